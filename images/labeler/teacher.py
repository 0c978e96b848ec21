"""The conversation with the teacher about one item, until an answer is valid or enough is tried.

One item a request: an answer can only belong to what was asked. An answer that breaks a rule is
shown to the teacher again with the rule named; nothing is repaired, guessed or filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from contracts.errors import EngineUnavailable
from contracts.files import canonical_json, digest_text
from contracts.params import (
    LabelParams,
)
from images.labeler.asking import ask
from serving.engine import Engine, Model
from tasks.chat import UnrenderableMessages
from tasks.definition import InvalidAnswer, Item, Task, Violation

_FORMAT = "attempts 1"
"""Changes with the fields of `Attempt`, which the cache holds."""
_WARMER = 0.3
"""Added to the temperature with every attempt: a near-greedy teacher would repeat itself."""
_FOLLOW_UP = (
    "This answer cannot be used:\n{reasons}\n"
    "Answer again for the same input: the whole JSON object, corrected, and nothing else."
)


@dataclass(frozen=True)
class Attempt:
    """One request and what came back, as cached and as written to the quarantine."""

    seed: int
    text: str
    finished: bool
    reason: str
    """Why the engine ended the answer."""


@dataclass(frozen=True)
class Judgement:
    """What the task says to an answer; `output` is None when it cannot be used."""

    output: BaseModel | None
    reasons: list[str]
    violations: list[Violation]


@dataclass(frozen=True)
class Conversation:
    """All attempts at one item; `failure` is why the last request had no answer at all."""

    attempts: list[Attempt]
    failure: EngineUnavailable | None = None


def judge(task: Task, item: Item, attempt: Attempt) -> Judgement:
    """Return whether an attempt is a valid label of the item."""
    if not attempt.finished:
        return Judgement(None, [f"the answer was cut off ({attempt.reason})"], [])
    try:
        output = task.parse(attempt.text)
    except InvalidAnswer as error:
        return Judgement(None, [str(error)], [])
    return judge_output(task, item, output)


def judge_output(task: Task, item: Item, output: BaseModel) -> Judgement:
    """Return whether an answer keeps the task's rules; warnings do not bar it."""
    violations = task.check(item, output)
    broken = [f"{v.rule}: {v.message}" for v in violations if v.severity == "error"]
    return Judgement(None if broken else output, broken, violations)


def accepted(
    task: Task, item: Item, attempts: Sequence[Attempt]
) -> tuple[Attempt, Judgement] | None:
    """Return the first attempt that is valid by today's rules, which may be younger than it."""
    for attempt in attempts:
        judgement = judge(task, item, attempt)
        if judgement.output is not None:
            return attempt, judgement
    return None


class Teacher:
    """A teacher model under the stage's params; `label` may be called from several threads."""

    def __init__(self, engine: Engine, model: Model, task: Task, params: LabelParams) -> None:
        self._engine = engine
        self._model = model
        self._task = task
        self._params = params
        self._schema = task.schema()
        self._options: Mapping[str, float | int] = {
            "num_ctx": params.num_ctx,
            "num_predict": params.num_predict,
            "temperature": params.temperature,
            "repeat_penalty": 1.0,
        }

    def key(self, item: Item) -> str:
        """Return the cache key of an item: all that its first request depends on.

        The label rules are not part of it. They judge cached answers anew, so a changed rule
        costs a request only for the answers that it bars.
        """
        request = self._task.label_request_digest(item)
        teacher = [self._model.tag, self._model.digest]
        return digest_text(canonical_json([_FORMAT, request, teacher, dict(self._options)]))

    def label(self, item: Item, before: Sequence[Attempt]) -> Conversation:
        """Ask until an answer is valid, `max_attempts` are made, or the engine has none to give.

        Goes on after the attempts `before`. Raises `EngineUnavailable` when the engine is gone.
        """
        attempts = list(before)
        while len(attempts) < self._params.max_attempts:
            if accepted(self._task, item, attempts):
                break
            number = len(attempts)
            answer = ask(
                self._engine,
                self._model.tag,
                self._messages(item, attempts[-1] if attempts else None),
                schema=self._schema,
                options={**self._options, "temperature": self._temperature(number), "seed": number},
                timeout_s=self._params.timeout_s,
            )
            if isinstance(answer, EngineUnavailable):
                return Conversation(attempts, answer)
            attempts.append(Attempt(number, answer.text, answer.finished, answer.reason))
        return Conversation(attempts)

    def _temperature(self, number: int) -> float:
        return min(2.0, self._params.temperature + _WARMER * number)

    def _messages(self, item: Item, last: Attempt | None) -> list[dict[str, str]]:
        """Return the question, with the last answer and what is wrong with it.

        An answer that was cut off, or that holds chat markup, is not shown again: it would fill
        the context, or could not be told from markup.
        """
        question = self._task.label_messages(item)
        if last is None or not last.finished:
            return question
        reasons = "\n".join(f"- {reason}" for reason in judge(self._task, item, last).reasons)
        again = [
            *question,
            {"role": "assistant", "content": last.text},
            {"role": "user", "content": _FOLLOW_UP.format(reasons=reasons)},
        ]
        try:
            self._task.render_prompt(again)
        except UnrenderableMessages:
            return question
        return again


def as_rows(task: Task, item: Item, attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Return attempts as the quarantine shows them, each with what is wrong with it."""
    return [
        {**asdict(attempt), "broken": judge(task, item, attempt).reasons} for attempt in attempts
    ]
