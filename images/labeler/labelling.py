"""What is known of the labels while they are made, counted as it comes."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from contracts.derived_labels import IMPORT, REVIEW, Base
from images.labeler.teacher import Judgement, Question
from serving.attempts import Attempt
from tasks.definition import Item, Task

_SHOWN_FAULTS = 3
_ORIGINS = {REVIEW: "reviewed", IMPORT: "imported"}
"""Of labels that were made of another than the teacher's, by where that is from."""


@dataclass(frozen=True)
class Decision:
    """How an item got its label, or why it has none."""

    origin: str
    """`reviewed`, `teacher` or `imported`."""
    attempts: tuple[Attempt, ...]
    judgements: tuple[Judgement, ...]
    failure: str = ""
    """Why the last request had no answer at all."""
    derived: dict[str, Any] | None = None
    """What the label was made from, if it was not answered as a whole under today's definition."""

    @property
    def output(self) -> BaseModel | None:
        """The label; None for an item in quarantine."""
        return next((j.output for j in self.judgements if j.output is not None), None)

    @property
    def deciding(self) -> Judgement | None:
        """The judgement on the label, or on the last attempt if there is none."""
        valid = next((j for j in self.judgements if j.output is not None), None)
        return valid or (self.judgements[-1] if self.judgements else None)


@dataclass
class Labelling:
    """The items and what has been decided so far, by item id."""

    task: Task
    items: dict[str, Item]
    reviewed: dict[str, BaseModel]
    incomplete: dict[str, Base] = field(default_factory=dict)
    """Reviewed labels of before an edit, which the teacher is asked to complete."""
    decisions: dict[str, Decision] = field(default_factory=dict)
    checked: dict[str, BaseModel | None] = field(default_factory=dict)
    """The teacher's answers to reviewed items; they change no label."""
    conversations: list[tuple[Attempt, ...]] = field(default_factory=list)
    """All that the teacher was asked, in whatever start, each once: items may share one."""
    completions: list[tuple[Attempt, ...]] = field(default_factory=list)
    """The same for fields alone that answers of before an edit lacked."""
    labelled: int = 0
    cached: int = 0
    asked: int = 0
    backfilled: int = 0
    """Items that the teacher was asked about for some fields only."""
    prompt_tokens: int = 0
    """Of this start's requests, as the two below: the pace. label_report tells the cost."""
    answer_tokens: int = 0
    elapsed_s: float = 0.0
    _positive: int = 0
    _faults: Counter[str] = field(default_factory=Counter)
    _began: float | None = None

    def decide(self, item_id: str, decision: Decision) -> None:
        """Keep how an item was decided."""
        self.decisions[item_id] = decision
        if decision.output is not None:
            self.labelled += 1
            self._positive += self.task.positive(decision.output)

    def settle(self, question: Question, *, cached: bool = False, failure: str = "") -> None:
        """Decide all items of a question by the attempts at it."""
        derived = _origin(question)
        if derived is None:
            self.conversations.append(question.attempts)
        else:
            self.completions.append(question.attempts if question.base else question.spent)
        origin = _ORIGINS.get(str((derived or {}).get("from")), "teacher")
        for item in question.items:
            if item.id in self.reviewed:
                self.checked[item.id] = question.accepted
                continue
            self.cached += cached and origin == "teacher"
            self.asked += not cached and derived is None
            self.backfilled += not cached and derived is not None
            decision = Decision(origin, question.attempts, question.judgements, failure, derived)
            self.decide(item.id, decision)

    def begin_asking(self) -> None:
        """Start the clock of the requests."""
        self._began = time.monotonic()

    def hear(self, attempt: Attempt, judgement: Judgement) -> None:
        """Count the answer to a request."""
        self.prompt_tokens += attempt.prompt_tokens
        self.answer_tokens += attempt.answer_tokens
        self._faults.update(judgement.faults)
        if self._began is not None:
            self.elapsed_s = time.monotonic() - self._began

    @property
    def barred_reviews(self) -> int:
        """How many reviewed items are in quarantine, since their labels must not be learned."""
        found = self.decisions.values()
        return sum(each.origin == "reviewed" and each.output is None for each in found)

    def figures(self) -> dict[str, float | str]:
        """Return what a person wants to see meanwhile."""
        shown: dict[str, float | str] = {}
        if (done := self.asked + self.backfilled) and self.elapsed_s:
            shown["items/min"] = round(60 * done / self.elapsed_s, 1)
        if self.backfilled:
            shown["backfilled"] = self.backfilled
        if self.labelled:
            shown["positive"] = f"{self._positive / self.labelled:.0%}"
        shown["quarantined"] = len(self.decisions) - self.labelled
        if self._faults:
            common = self._faults.most_common(_SHOWN_FAULTS)
            shown["broken"] = ", ".join(f"{name} {count}" for name, count in common)
        if self.answer_tokens:
            shown["tokens"] = f"{self.prompt_tokens} in, {self.answer_tokens} out"
        return shown


def _origin(question: Question) -> dict[str, Any] | None:
    if question.base:
        return question.base.origin(question.key)
    return dict(json.loads(question.origin)) if question.origin else None
