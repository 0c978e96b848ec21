"""The models that an evaluation asks, and their answers to the rows of the test split."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from contracts import candidate, files
from contracts.answer_cache import AnswerCache
from contracts.entrypoint import StageContext
from contracts.errors import EngineUnavailable, InputMissing, ModelMissing, RetrainError
from contracts.params import EvaluateParams
from contracts.stages import GGUF
from images.labeler.asking import CUT_OFF, Request, server_for
from images.labeler.measures import Judged
from images.labeler.pool import Pool
from serving.engine import Answer, AnswerCutOff, Engine, full_tag
from tasks.definition import InvalidAnswer, Item, Task

Role = Literal["candidate", "champion", "baseline"]


_ROUNDS = 2
"""How often what has no answer is asked, after the others are through; the pool asks twice each
time (images/labeler/pool.py)."""
_ANSWER = TypeAdapter(Answer)


@dataclass(frozen=True)
class Question:
    """A row of the test split."""

    id: str
    item: Item
    messages: list[dict[str, str]]
    expected: BaseModel
    stratum: str


@dataclass(frozen=True)
class Contestant:
    """A model that is asked: what it is in this comparison, its tag and digest."""

    role: Role
    tag: str
    digest: str


@dataclass(frozen=True)
class Reply:
    """What a model said; `output` is None with the reason why it is not valid."""

    question: Question
    output: BaseModel | None
    reason: str
    broken: tuple[str, ...]
    """Ids of the label rules that it breaks, those that bar a label from training only."""
    text: str
    answer_tokens: int
    seconds: float
    answered: bool = True
    """False where the engine had no answer of this model's, for `reason`."""

    def judged(self) -> Judged:
        """Return what is measured of it."""
        return Judged(self.question.expected, self.output, self.broken)


def read_questions(path: Path, task: Task) -> list[Question]:
    """Return the rows of a test split; raises `InputMissing` naming the line that is none."""
    found = []
    for number, row in enumerate(files.read_jsonl(path), 1):
        try:
            question = Question(
                str(row["id"]),
                task.item.model_validate(row["item"]),
                row["messages"][:-1],
                task.parse(row["messages"][-1]["content"]),
                row["stratum"],
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputMissing(f"{path}, line {number} is no test row", why=str(error)) from error
        found.append(question)
    if not found:
        raise InputMissing(f"{path} holds no rows")
    return found


@contextmanager
def contestants(
    context: StageContext[EvaluateParams], engine: Engine, task: Task
) -> Iterator[list[Contestant]]:
    """Yield who takes part: the candidate, and the champion and the base model where there are any.

    The candidate is made under a tag of its own and removed in any case. A leftover costs disk, not
    correctness, so a failed removal is told and hides neither the result nor the error.
    """
    tag = candidate.tag(context.job.inputs[GGUF.name])
    others = _others(context.params, engine)
    try:
        made = engine.create(
            tag,
            context.input(GGUF),
            task.modelfile(),
            lambda done, total: context.progress(done, total, "bytes"),
            base=context.params.base,
        )
        yield [Contestant("candidate", tag, made.digest), *others]
    finally:
        for remove in (engine.unload, engine.delete):
            try:
                remove(tag)
            except ModelMissing:
                pass  # it was never created
            except RetrainError as error:
                sys.stderr.write(f"the candidate {tag} is left in {engine.name}: {error}\n")


def _others(params: EvaluateParams, engine: Engine) -> list[Contestant]:
    """Return the champion, unless nothing is live yet, and the base model, if one is named.

    Raises `ModelMissing` for a base model that the engine does not have.
    """
    models = engine.models()
    found = []
    if params.champion and (live := models.get(full_tag(params.champion))):
        found.append(Contestant("champion", live.tag, live.digest))
    if params.baseline:
        base = models.get(full_tag(params.baseline))
        if base is None:
            raise ModelMissing(
                f"{engine.name} has no base model {params.baseline}",
                why=f"it has {', '.join(sorted(models)) or 'no model at all'}",
                todo=f'ollama pull {params.baseline}, or set evaluate.baseline to "".',
            )
        found.append(Contestant("baseline", base.tag, base.digest))
    return found


def ask(
    context: StageContext[EvaluateParams],
    engine: Engine,
    who: Contestant,
    task: Task,
    questions: Sequence[Question],
    cache: AnswerCache,
) -> list[Reply]:
    """Return a model's replies in the order of the questions; only what is new to it is asked.

    What gets no answer is asked again, and told as such if it never gets one. A champion that the
    engine gives up leaves the rest of the questions without one: whether it is the champion or the
    engine that is broken is asked next (`images/labeler/unanswered.py`). With any other model
    raises `EngineUnavailable` or `ModelMissing`.
    """
    options = dict(task.modelfile().parameters)
    keys = {question.id: _key(who, question, options) for question in questions}
    replies: dict[str, Reply] = {}
    for question in questions:
        if kept := _kept(cache.get(keys[question.id])):
            replies[question.id] = _reply(task, question, kept)
    context.progress(len(replies), len(questions), "items", model=who.role)
    asked = rest = [question for question in questions if question.id not in replies]
    for _ in range(_ROUNDS):
        known = next((q for q in questions if q.id in replies and replies[q.id].answered), None)
        try:
            for question, answer in _answers(context, engine, who, options, rest, known):
                if isinstance(answer, Answer) and answer.reason != CUT_OFF:
                    cache.put(keys[question.id], asdict(answer))
                replies[question.id] = _reply(task, question, answer)
                valid = sum(reply.output is not None for reply in replies.values())
                context.progress(len(replies), len(questions), "items", model=who.role, valid=valid)
        except (EngineUnavailable, ModelMissing) as error:
            if who.role != "champion":
                raise
            silent = EngineUnavailable(error.what, why=error.why)
            replies |= {q.id: _reply(task, q, silent) for q in rest if q.id not in replies}
            break
        rest = [question for question in rest if not replies[question.id].answered]
    if asked:
        # The next one needs the memory; a broken champion may be past unloading.
        with suppress(*((RetrainError,) if who.role == "champion" else ())):
            engine.unload(who.tag)
    return [replies[question.id] for question in questions]


def require_well(
    context: StageContext[EvaluateParams],
    engine: Engine,
    candidate: Contestant,
    task: Task,
    said: Sequence[Reply],
) -> None:
    """Raise `EngineUnavailable` unless the candidate answers now what it has answered before.

    The cache is not asked: this is about the engine.
    """
    known = next((reply.question for reply in said if reply.answered), None)
    if known is None:
        raise EngineUnavailable("the engine had no answer of the candidate's either")
    options = dict(task.modelfile().parameters)
    with suppress(AnswerCutOff):  # also an answer
        engine.chat(
            candidate.tag, known.messages, options=options, timeout_s=context.params.timeout_s
        )
    engine.unload(candidate.tag)


def _answers(
    context: StageContext[EvaluateParams],
    engine: Engine,
    who: Contestant,
    options: dict[str, Any],
    questions: Sequence[Question],
    known: Question | None,
) -> Iterator[tuple[Question, Answer | EngineUnavailable]]:
    params = context.params
    if not questions:
        return

    def request(question: Question) -> Request:
        return Request(question.messages, None, options, params.timeout_s, may_be_cut_off=True)

    server = server_for(engine, who.tag, request, name=engine.name, ceiling=params.concurrency)
    yield from Pool([server], params.patience_s, answered=known).answers(questions)


def _key(who: Contestant, question: Question, options: dict[str, Any]) -> str:
    asked = {"model": who.digest, "messages": question.messages, "options": options}
    return files.digest_text(files.canonical_json(asked))


def _kept(row: dict[str, Any] | None) -> Answer | None:
    """Return a cached answer; None for one that is damaged, or of another version of `Answer`."""
    try:
        return _ANSWER.validate_python(row)
    except ValidationError:
        return None


def _reply(task: Task, question: Question, answer: Answer | EngineUnavailable) -> Reply:
    if isinstance(answer, EngineUnavailable):
        return Reply(question, None, str(answer.what), (), "", 0, 0.0, answered=False)
    output, reason = None, ""
    broken: tuple[str, ...] = ()
    if not answer.finished:
        reason = f"cut off after {answer.answer_tokens} tokens ({answer.reason})"
    else:
        try:
            output = task.parse(answer.text)
        except InvalidAnswer as error:
            reason = str(error)
        else:
            found = task.check(question.item, output)
            broken = tuple(sorted({v.rule for v in found if v.severity == "error"}))
    return Reply(
        question, output, reason, broken, answer.text, answer.answer_tokens, answer.seconds
    )
