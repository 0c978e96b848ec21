"""The conversation with the teacher about one item, until an answer is valid or enough is tried.

One item a request: an answer can only belong to what was asked. An answer that breaks a rule is
shown to the teacher again with the rule named; nothing is repaired, guessed or filled in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from contracts.derived_labels import Asker, Base, row_key
from contracts.label_definition import LabelDefinition
from contracts.params import LabelParams
from images.labeler.asking import Request
from serving.attempts import Attempt, context_for
from tasks.definition import InvalidAnswer, Item, Task, Violation

_WARMER = 0.3
"""Added to the temperature with every attempt: a near-greedy teacher would repeat itself."""


@dataclass(frozen=True)
class Judgement:
    """What the task says to an answer; `output` is None when it cannot be used."""

    output: BaseModel | None
    reasons: list[str]
    violations: list[Violation]

    @property
    def faults(self) -> tuple[str, ...]:
        """What bars the answer: rule ids, `format`, or `cut-off`, each once."""
        return tuple(dict.fromkeys(reason.partition(":")[0] for reason in self.reasons))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The ids of the rules that only warn of it, each once."""
        return tuple(dict.fromkeys(v.rule for v in self.violations if v.severity == "warning"))


@dataclass(frozen=True)
class Question:
    """An item, or several with the very same text, and the attempts at it so far."""

    key: str
    items: tuple[Item, ...]
    attempts: tuple[Attempt, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    base: Base | None = None
    """The answer that these attempts complete; None where they are whole answers."""
    row: str = ""
    """The key of the row that they complete."""
    origin: str = ""
    """What the answer was made from, if it was given to other questions (`Derived.origin`)."""
    spent: tuple[Attempt, ...] = ()
    """The requests that it was completed by."""

    @property
    def item(self) -> Item:
        """The item that is asked about."""
        return self.items[0]

    @property
    def accepted(self) -> BaseModel | None:
        """The first valid answer."""
        return next((j.output for j in self.judgements if j.output is not None), None)

    def settled(self, max_attempts: int) -> bool:
        """Return whether nothing more is to be asked."""
        return self.accepted is not None or len(self.attempts) >= max_attempts


def unaskable(task: Task, item: Item) -> str:
    """Return why no answer to an item could ever be a label; "" for one that can be asked.

    A control token in its text would end the teacher's turn, and the trained model's after it.
    """
    text = task.user_message(item)
    found = [token for token in task.chat.control_tokens if token in text]
    return f"its text holds control tokens of the model: {' '.join(found)}" if found else ""


def judge(task: Task, item: Item, attempt: Attempt) -> Judgement:
    """Return whether an attempt is a valid label of the item."""
    if not attempt.finished:
        return Judgement(None, [f"cut-off: the answer was cut off ({attempt.reason})"], [])
    try:
        output = task.parse(attempt.text)
    except InvalidAnswer as error:
        return Judgement(None, [f"format: {error}"], [])
    return judge_output(task, item, output)


def judge_output(task: Task, item: Item, output: BaseModel) -> Judgement:
    """Return whether an answer keeps the task's rules; warnings do not bar it."""
    violations = task.check(item, output)
    broken = [f"{v.rule}: {v.message}" for v in violations if v.severity == "error"]
    return Judgement(None if broken else output, broken, violations)


def remembered(
    task: Task, attempts: Sequence[Attempt], verdicts: Sequence[Mapping[str, Any]]
) -> tuple[Judgement, ...] | None:
    """Return the judgements that `verdict_of` was made of, without asking the rules again.

    None where they do not fit the attempts or are damaged: then the rules are to be asked.
    """
    try:
        return tuple(_remembered(task, *pair) for pair in zip(attempts, verdicts, strict=True))
    except (ValueError, LookupError, TypeError):  # InvalidAnswer is a ValueError
        return None


def _remembered(task: Task, attempt: Attempt, verdict: Mapping[str, Any]) -> Judgement:
    reasons = [str(reason) for reason in verdict["reasons"]]
    violations = [Violation(*each) for each in verdict["violations"]]
    return Judgement(None if reasons else task.parse(attempt.text), reasons, violations)


def verdict_of(judgement: Judgement) -> dict[str, Any]:
    """Return what is worth keeping of a judgement: the rules take a hundred times a look-up."""
    return {
        "reasons": judgement.reasons,
        "violations": [[v.rule, v.severity, v.message] for v in judgement.violations],
    }


class Teacher:
    """A teacher under the stage's params: what it is asked, and the key of its answers."""

    def __init__(
        self, tag: str, digest: str, task: Task, params: LabelParams, items: Iterable[Item]
    ) -> None:
        self._task = task
        self._timeout_s = params.timeout_s
        self._temperature = params.temperature
        self._schema = task.schema()
        self._num_ctx = params.num_ctx or context_for(
            task.label_prompt, map(task.user_message, items), params.num_predict
        )
        # The size of the context is no part of it: an input that does not fit is refused, so
        # it never changes an answer.
        self.definition = LabelDefinition.of(task)
        self.asker = Asker.of(tag, digest, params)
        prompts = [task.label_prompt, task.correction_prompt]
        self.prefix = self.asker.prefix(prompts, self._schema)

    def key(self, item: Item) -> str:
        """Return the cache key of an item: all that its first request depends on.

        The label rules are not part of it. They judge cached answers anew, so a changed rule
        costs a request only for the answers that it bars.
        """
        return row_key(self.prefix, self._task.item_digest(item))

    def backfill_key(self, item: Item, base: Base) -> str:
        """Return the cache key of what completes an answer: all that the request depends on."""
        return self.asker.backfill_key(self._completing(item, base), self._only(base.asked))

    def request(self, question: Question) -> Request:
        """Return the next request about an item, warmer than the last and with another seed."""
        number = len(question.attempts)
        temperature = min(2.0, self._temperature + _WARMER * number)
        return Request(
            self._messages(question),
            self._only(question.base.asked) if question.base else self._schema,
            {
                **self.asker.sampling,
                "num_ctx": self._num_ctx,
                "temperature": temperature,
                "seed": number,
            },
            self._timeout_s,
        )

    def _messages(self, question: Question) -> list[dict[str, str]]:
        """Return the question, with the last answer and what is wrong with it.

        An answer that was cut off, or that holds chat markup, is not shown again: it would fill
        the context, or could not be told from markup.
        """
        base = question.base
        if base is None:
            asked = self._task.label_messages(question.item)
        else:
            asked = self._completing(question.item, base)
        if not question.attempts or not question.attempts[-1].finished:
            return asked
        last, judgement = question.attempts[-1], question.judgements[-1]
        if any(token in last.text for token in self._task.chat.control_tokens):
            return asked
        return self._task.corrected(asked, last.text, judgement.reasons)

    def _completing(self, item: Item, base: Base) -> list[dict[str, str]]:
        """Return the question for the fields that an answer lacks: it, and what they mean."""
        fields = {name: self.definition.fields[name].meaning for name in base.asked}
        return self._task.backfill_messages(item, base.values, fields)

    def _only(self, fields: Sequence[str]) -> dict[str, Any]:
        """Return the schema of an answer of some fields only."""
        properties = {name: self._schema["properties"][name] for name in fields}
        return {**self._schema, "properties": properties, "required": list(properties)}


def as_rows(attempts: Sequence[Attempt], judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Return attempts as the quarantine shows them, each with what is wrong with it."""
    return [
        {**asdict(attempt), "broken": judgement.reasons}
        for attempt, judgement in zip(attempts, judgements, strict=True)
    ]
