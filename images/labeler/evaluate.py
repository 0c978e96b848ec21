"""Ask the candidate the test split as the backend would, and decide whether it may go live.

The candidate is what will be deployed: the GGUF, in the serving engine, with the task's template
and parameters. No JSON schema is sent, because the backend sends none. A refusal is a result, not
a failure of this stage.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import (
    EngineUnavailable,
    InputMissing,
    ModelMissing,
    RetrainError,
    SettingsInvalid,
)
from contracts.params import (
    EvaluateMetrics,
    EvaluateParams,
)
from contracts.stages import (
    ANSWERS,
    GGUF,
    SCORES,
    TEST_SPLIT,
    VERDICT,
)
from images.labeler.asking import Request, server_for
from images.labeler.drift import check_candidate
from images.labeler.pool import Pool
from images.labeler.scoring import score, score_names
from serving import connect
from serving.engine import Answer, Engine
from tasks import load_task
from tasks.definition import InvalidAnswer, Task

_CANDIDATE = "retrain-candidate"


@dataclass(frozen=True)
class Question:
    """A row of the test split."""

    id: str
    messages: list[dict[str, str]]
    expected: BaseModel
    stratum: str


@dataclass(frozen=True)
class Reply:
    """What the candidate said; `output` is None with the reason why it is not valid."""

    question: Question
    output: BaseModel | None
    reason: str
    text: str
    answer_tokens: int
    seconds: float


def work(context: StageContext[EvaluateParams]) -> EvaluateMetrics:
    """Write answers.jsonl, scores.json and verdict.json.

    Raises `SettingsInvalid` for a threshold on an unknown score, before anything is created.
    The candidate is removed from the engine whatever happens.
    """
    task, params = load_task(context.job.task), context.params
    _require_known(params, task)
    questions = _questions(context, task)[: params.limit]
    engine = connect(os.environ, context.root)
    try:
        with _candidate(context, engine, task) as tag:
            drift = check_candidate(context, engine, tag, task, questions[0].messages)
            replies = _ask_all(context, engine, tag, task, questions)
    finally:
        engine.close()
    order = {question.id: position for position, question in enumerate(questions)}
    replies.sort(key=lambda reply: order[reply.question.id])
    scores = score(task.output, [(r.question.expected, r.output) for r in replies])
    promote, reasons = _verdict(scores, params)
    _write(context, task, replies, scores)
    verdict = {"promote": promote, "reasons": reasons, "rows": len(replies)}
    files.write_json(context.output(VERDICT), verdict)
    return EvaluateMetrics(
        rows=len(replies),
        valid=sum(reply.output is not None for reply in replies),
        promote=promote,
        scores={name: value for name, value in scores.items() if name != "valid"},
        reasons=tuple(reasons),
        drift=drift.divergence if drift else None,
        agreement=drift.agreement if drift else None,
    )


def _require_known(params: EvaluateParams, task: Task) -> None:
    known = score_names(task.output)
    if unknown := sorted(params.min_scores.keys() - set(known)):
        raise SettingsInvalid(
            f"evaluate.min_scores names {', '.join(unknown)}, which is no score of {task.name}",
            why=f"the scores are {', '.join(known)}",
        )


def _questions(context: StageContext[EvaluateParams], task: Task) -> list[Question]:
    path = context.input(TEST_SPLIT)
    found = []
    for number, row in enumerate(files.read_jsonl(path), 1):
        try:
            expected = task.parse(row["messages"][-1]["content"])
            question = Question(str(row["id"]), row["messages"][:-1], expected, row["stratum"])
        except (KeyError, IndexError, TypeError, InvalidAnswer) as error:
            raise InputMissing(f"{path}, line {number} is no test row", why=str(error)) from error
        found.append(question)
    if not found:
        raise InputMissing(f"{path} holds no rows")
    return found


@contextmanager
def _candidate(context: StageContext[EvaluateParams], engine: Engine, task: Task) -> Iterator[str]:
    """Create the candidate under a tag of its own, and remove it in any case.

    A leftover costs disk, not correctness, so a failed removal is told and does not hide the
    result, or the error that brought us here.
    """
    digest = context.job.inputs[GGUF.name].digest
    tag = f"{_CANDIDATE}:{digest[:12]}"
    try:
        engine.create(
            tag,
            context.input(GGUF),
            task.modelfile(),
            lambda done, total: context.progress(done, total, "bytes"),
        )
        yield tag
    finally:
        for remove in (engine.unload, engine.delete):
            try:
                remove(tag)
            except ModelMissing:
                pass  # it was never created
            except RetrainError as error:
                sys.stderr.write(f"the candidate {tag} is left in {engine.name}: {error}\n")


def _ask_all(
    context: StageContext[EvaluateParams],
    engine: Engine,
    tag: str,
    task: Task,
    questions: list[Question],
) -> list[Reply]:
    params, replies = context.params, []
    options = dict(task.modelfile().parameters)

    def request(question: Question) -> Request:
        return Request(question.messages, None, options, params.timeout_s)

    server = server_for(engine, tag, request, name=engine.name, ceiling=params.concurrency)
    context.progress(0, len(questions), "items")
    for question, answer in Pool([server], params.patience_s).answers(questions):
        replies.append(_reply(task, question, answer))
        valid = sum(reply.output is not None for reply in replies)
        context.progress(len(replies), len(questions), "items", valid=valid)
    return replies


def _reply(task: Task, question: Question, answer: Answer | EngineUnavailable) -> Reply:
    if isinstance(answer, EngineUnavailable):
        return Reply(question, None, str(answer.what), "", 0, 0.0)
    output, reason = None, ""
    if not answer.finished:
        reason = f"cut off after {answer.answer_tokens} tokens ({answer.reason})"
    else:
        try:
            output = task.parse(answer.text)
        except InvalidAnswer as error:
            reason = str(error)
    return Reply(question, output, reason, answer.text, answer.answer_tokens, answer.seconds)


def _verdict(scores: dict[str, float], params: EvaluateParams) -> tuple[bool, list[str]]:
    """Return whether every threshold is reached, and each with what was measured, missed first."""
    missed, reached = [], []
    for name, least in {"valid": params.min_valid, **params.min_scores}.items():
        value = scores[name]
        if value < least:
            missed.append(f"{name} is {value:.4g}, under the {least:.4g} demanded")
        else:
            reached.append(f"{name} is {value:.4g}, at least {least:.4g} as demanded")
    return not missed, [*missed, *reached]


def _write(
    context: StageContext[EvaluateParams], task: Task, replies: list[Reply], scores: dict[str, Any]
) -> None:
    rows = (
        {
            "id": reply.question.id,
            "stratum": reply.question.stratum,
            "expected": json.loads(reply.question.expected.model_dump_json()),
            "answer": reply.text,
            "valid": reply.output is not None,
            "reason": reply.reason,
            "answer_tokens": reply.answer_tokens,
            "seconds": round(reply.seconds, 3),
        }
        for reply in replies
    )
    files.write_jsonl(context.output(ANSWERS), rows)
    strata = {
        stratum: score(
            task.output,
            [(r.question.expected, r.output) for r in replies if r.question.stratum == stratum],
        )
        for stratum in sorted({reply.question.stratum for reply in replies})
    }
    files.write_json(context.output(SCORES), {"scores": scores, "by_stratum": strata})
