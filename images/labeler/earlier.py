"""Answers of before an edit of the task, and the question for what they lack.

An added field is asked for alone, with the item and the answer that it belongs to; what comes is
put into that answer, which is then judged as a whole. What the edit has outdated is asked anew.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache as cached
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from contracts.derived_labels import IMPORT, REVIEW, Base, ancestors, bases, is_outdated
from contracts.label_cache import Derived, LabelCache
from images.labeler.teacher import Judgement, Question, Teacher, judge, judge_output
from serving.attempts import Attempt
from tasks.definition import InvalidAnswer, Item, Task
from tasks.parsing import parse_answer


class Earlier:
    """What earlier definitions' answers give for the items that today's has no answer to."""

    def __init__(
        self,
        task: Task,
        teacher: Teacher,
        cache: LabelCache,
        lacking: Mapping[str, Sequence[Item]],
    ) -> None:
        """`lacking` holds the items by the key of their row, items of the same text together."""
        self._task, self._lacking = task, lacking
        self.derived = cache.derived(list(lacking))
        """Rows that were made before, by their key."""
        digests = {task.item_digest(group[0]): key for key, group in lacking.items()}
        found = ancestors(cache, teacher.asker, teacher.prefix, teacher.definition)
        started = bases(cache, found, teacher.definition, list(digests))
        self._bases = {digests[item]: base for item, base in started.items()}
        self._keys = {
            key: teacher.backfill_key(lacking[key][0], base)
            for key, base in self._bases.items()
            if base.asked
        }
        spent = [json.loads(row.origin).get("backfill", "") for row in self.derived.values()]
        self._attempts = cache.attempts([*self._keys.values(), *filter(None, spent)])

    def known(self, key: str) -> Question | None:
        """Return a row that was made before, to be judged; None where there is none, or the
        question that it was completed by is another one now."""
        row = self.derived.get(key)
        if row is None or is_outdated(row, self._bases.get(key), self._keys.get(key, "")):
            return None
        backfill = json.loads(row.origin).get("backfill", "")
        return Question(
            key,
            tuple(self._lacking[key]),
            (Attempt.given(row.text, "derived"),),
            origin=row.origin,
            spent=Attempt.read(self._attempts.get(backfill, ())),
        )

    def completed(self, key: str, max_attempts: int) -> Question:
        """Return the question for what the answer of an item lacks, with the attempts at it so far;
        for the whole where there is no answer, or it cannot stand."""
        whole = Question(key, tuple(self._lacking[key]))
        base = self._bases.get(key)
        if base is None or not base.can_stand(self._task.output.model_fields, self._task.parse):
            return whole
        if not base.asked:
            text = base.merged(self._task.output.model_fields, {})
            attempt = Attempt.given(text, "derived")
            judgement = judge(self._task, whole.item, attempt)
            found = Question(
                key, whole.items, (attempt,), (judgement,), origin=json.dumps(base.origin())
            )
            return whole if found.accepted is None else found
        backfill = self._keys[key]
        before = Attempt.read(self._attempts.get(backfill, ()))
        question = Question(backfill, whole.items, before, base=base, row=key)
        judged = tuple(judge_for(self._task, question, each) for each in before)
        question = Question(backfill, whole.items, before, judged, base=base, row=key)
        return following(self._task, question, max_attempts) or question


def of_reviews(
    task: Task,
    teacher: Teacher,
    cache: LabelCache,
    incomplete: Mapping[str, Base],
    items: Mapping[str, Item],
) -> list[Question]:
    """Return the questions for what persons' labels lack, with the attempts at them so far."""
    same: dict[str, list[str]] = defaultdict(list)
    for name, base in incomplete.items():
        same[teacher.backfill_key(items[name], base)].append(name)
    attempts = cache.attempts(list(same))
    found = []
    for key, names in same.items():
        group = tuple(items[name] for name in names)
        question = Question(
            key, group, Attempt.read(attempts.get(key, ())), base=incomplete[names[0]]
        )
        judged = tuple(judge_for(task, question, each) for each in question.attempts)
        found.append(replace(question, judgements=judged))
    return found


def following(task: Task, question: Question, max_attempts: int) -> Question | None:
    """Return what is to be asked next; None where nothing is.

    A completed answer that breaks the very rules that it breaks without what was asked for is
    itself outdated: then the item is asked as a whole. Where that cannot be told, as null there
    makes no answer, it counts as outdated if the last attempt is right by itself.
    """
    whole = question.base is not None and question.base.source != REVIEW
    if whole and question.base and question.judgements and question.accepted is None:
        without = _without(task, question.item, question.base)
        faults = {*question.judgements[-1].faults}
        if without is None:
            last = question.attempts[-1]
            outdated = question.settled(max_attempts) and _is_whole(task, question.base, last)
        else:
            outdated = bool(without.faults) and faults <= {*without.faults}
        if outdated:
            return Question(question.row, question.items)
    return None if question.settled(max_attempts) else question


def judge_for(task: Task, question: Question, attempt: Attempt) -> Judgement:
    """Return whether an attempt answers a question; what completes an answer is judged with it."""
    if question.base is None or not attempt.finished:
        return judge(task, question.item, attempt)
    try:
        answer = parse_answer(_only(task.output, question.base.asked), attempt.text)
        output = task.parse(_merged(task, question.base, answer))
    except InvalidAnswer as error:
        return Judgement(None, [f"format: {error}"], [])
    return judge_output(task, question.item, output)


def _is_whole(task: Task, base: Base, attempt: Attempt) -> bool:
    """Return whether an attempt has the form of what was asked for, whatever it completes."""
    try:
        parse_answer(_only(task.output, base.asked), attempt.text)
    except InvalidAnswer:
        return False
    return attempt.finished


def as_derived(question: Question) -> Derived | None:
    """Return the row to keep of a question that was answered by what was there, or completed."""
    output = question.accepted
    if output is None or not (question.base or question.origin):
        return None
    origin = json.dumps(question.base.origin(question.key)) if question.base else question.origin
    if json.loads(origin)["from"] in {REVIEW, IMPORT}:
        return None  # what others have said can be read again, and may be changed by then
    text = json.dumps(output.model_dump(mode="json"), ensure_ascii=False)
    return Derived(question.row or question.key, text, origin)


def _without(task: Task, item: Item, base: Base) -> Judgement | None:
    """Return what is to be said of an answer with null in what it lacks; None where it is none."""
    text = base.merged(task.output.model_fields, dict.fromkeys(base.asked))
    judgement = judge(task, item, Attempt.given(text, "without"))
    return None if "format" in judgement.faults else judgement


def _merged(task: Task, base: Base, answer: BaseModel) -> str:
    return base.merged(task.output.model_fields, answer.model_dump(mode="json"))


@cached
def _only(output: type[BaseModel], fields: tuple[str, ...]) -> type[BaseModel]:
    """Return a model of some fields of an answer, with their limits."""
    given: dict[str, Any] = {
        name: (output.model_fields[name].annotation, output.model_fields[name]) for name in fields
    }
    strict = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    model: type[BaseModel] = create_model("Fields", __config__=strict, **given)
    return model
