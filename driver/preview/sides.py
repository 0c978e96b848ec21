"""One of two definitions of the task: what it asks about an item, and what was answered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from contracts.derived_labels import Asker, Base, ancestors, bases, row_key
from contracts.files import canonical_json
from contracts.label_cache import LabelCache, is_attempt
from contracts.label_definition import LabelDefinition
from serving.engine import Messages
from tasks.definition import InvalidAnswer, Item, Task

_CUT_OFF = "cut off: the engine has ended it twice, as Ollama does where a model repeats itself"


@dataclass(frozen=True)
class Told:
    """What the teacher answered under one definition."""

    text: str
    fields: Mapping[str, Any] | None
    """None for what is no JSON object."""
    broken: tuple[str, ...] = ()
    """What bars it, by today's form and rules."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """A request, and the key that its answer is kept under."""

    key: str
    messages: Messages
    schema: dict[str, Any]


class Side:
    """One of the two definitions: what it asks, and what was answered."""

    def __init__(self, task: Task, asker: Asker, definition: LabelDefinition) -> None:
        self._task, self._asker, self.definition = task, asker, definition
        self._schema = {
            **task.schema(),
            "properties": {name: each.values for name, each in definition.fields.items()},
            "required": list(definition.fields),
        }
        prompts = [definition.label_prompt, definition.correction_prompt]
        self.prefix = asker.prefix(prompts, self._schema)
        self._asked_as = replace(task, label_prompt=definition.label_prompt)
        self._bases: dict[str, Base] = {}

    def complete(self, cache: LabelCache, items: Sequence[Item]) -> None:
        """Start from the answers of earlier definitions, as the label stage does."""
        found = ancestors(cache, self._asker, self.prefix, self.definition)
        digests = [self._task.item_digest(item) for item in items]
        started = bases(cache, found, self.definition, digests)
        known, parse = self.definition.fields, self._task.parse
        self._bases = {key: base for key, base in started.items() if base.can_stand(known, parse)}

    def wanted(self, cache: LabelCache, items: Iterable[Item]) -> Iterator[Question]:
        """Yield what has to be asked."""
        for item in items:
            key = self._key(item)
            if self._attempts(cache, key) or cache.derived([key]):
                continue
            question = self._question(item)
            if question and not self._attempts(cache, question.key):
                yield question

    def told(self, cache: LabelCache, item: Item) -> Told:
        """Return what was answered, judged by today's form and rules.

        What was asked and is not kept, the engine has cut off.
        """
        key, base = self._key(item), self._bases.get(self._task.item_digest(item))
        derived = cache.derived([key]).get(key)
        if attempts := self._attempts(cache, key):
            return _judged(self._task, item, attempts[-1]["text"])
        if derived:
            return _judged(self._task, item, derived.text)
        question = self._question(item)
        more = self._attempts(cache, question.key) if question else []
        if base is None or (question and not more):
            return Told("", None, (_CUT_OFF,))
        added = _object(more[-1]["text"]) if more else {}
        return _judged(self._task, item, base.merged(self.definition.fields, added or {}))

    def _key(self, item: Item) -> str:
        return row_key(self.prefix, self._task.item_digest(item))

    def _question(self, item: Item) -> Question | None:
        base = self._bases.get(self._task.item_digest(item))
        if base is None:
            return Question(self._key(item), self._asked_as.label_messages(item), self._schema)
        if not base.asked:
            return None
        fields = {name: self.definition.fields[name].meaning for name in base.asked}
        properties = {name: self._schema["properties"][name] for name in base.asked}
        schema = {**self._schema, "properties": properties, "required": list(properties)}
        messages = self._asked_as.backfill_messages(item, base.values, fields)
        return Question(self._asker.backfill_key(messages, schema), messages, schema)

    @staticmethod
    def _attempts(cache: LabelCache, key: str) -> list[dict[str, Any]]:
        return [each for each in cache.attempts([key]).get(key, ()) if is_attempt(each)]


def _judged(task: Task, item: Item, text: str) -> Told:
    fields = _object(text)
    if fields is None:
        return Told(text, None, ("format: no JSON object",))
    lacking = {name: fields.get(name) for name in task.output.model_fields}
    try:
        output = task.parse(canonical_json(lacking))
    except InvalidAnswer as error:
        return Told(text, fields, (f"format: {error}",))
    found = task.check(item, output)
    said = {
        severity: tuple(f"{v.rule}: {v.message}" for v in found if v.severity == severity)
        for severity in ("error", "warning")
    }
    return Told(text, fields, said["error"], said["warning"])


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
