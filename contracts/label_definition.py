"""What of a task's definition labels rest on, and what an edit of it does to those that are there.

The label stage, `driver plan` and `driver task diff` ask the same question: may an answer that was
given under one definition stand under another, and what does it lack? The reasons for each part:
docs/adr/0009-an-edit-costs-what-it-changes.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum
from itertools import accumulate, pairwise
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

_LENGTHS = frozenset({"minLength", "maxLength", "minItems", "maxItems"})
"""What of a field's schema bounds its values without changing what they mean."""
_BOUNDS = frozenset({"minimum", "maximum"})
"""What does so where it is narrowed only; widened, it may be another scale."""
_WORD = re.compile(r"\w+|[^\w\s]")
_STOPS = frozenset(".!?:;")
_ENDS = frozenset(".!?")
_SHOWN_WORDS = 12


class OnlyFor(BaseModel):
    """For which answers a field has something to say."""

    model_config = ConfigDict(frozen=True)

    where: dict[str, Any]
    """Other fields of the answer, with the values that they have to have."""
    otherwise: Any
    """What the field holds in all other answers."""


class FieldDefinition(BaseModel):
    """A field of the answer."""

    model_config = ConfigDict(frozen=True)

    values: dict[str, Any]
    """Its JSON schema, as the engine gets it."""
    meaning: str
    """What the task says of it and of its values; "" where it does not."""


class LabelDefinition(BaseModel):
    """What labels rest on, as it was at one moment."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: str
    label_prompt: str
    correction_prompt: str
    fields: dict[str, FieldDefinition]
    """In the order of the answer."""
    whole: tuple[str, ...]
    """What an answer as a whole must keep."""
    rules: dict[str, str]
    """The label rules by id: severity and message."""
    only_for: dict[str, OnlyFor] = {}

    @classmethod
    def of(cls, task: Any) -> LabelDefinition:
        """Return what the labels of a task rest on; also of a task of an earlier revision."""
        model, schema = task.output, task.schema()["properties"]
        decorators = model.__pydantic_decorators__
        validators = {**decorators.field_validators, **decorators.model_validators}
        return cls(
            task=task.name,
            label_prompt=task.label_prompt,
            correction_prompt=task.correction_prompt,
            fields={
                name: FieldDefinition(values=schema[name], meaning=_meaning(field))
                for name, field in model.model_fields.items()
            },
            whole=tuple(
                " ".join((each.func.__doc__ or name).split()) for name, each in validators.items()
            ),
            rules={rule.id: f"{rule.severity}: {rule.message}" for rule in task.rules},
            only_for={
                name: OnlyFor(where=dict(each.where), otherwise=each.otherwise)
                for name, each in getattr(task, "only_for", {}).items()
            },
        )


def _meaning(field: Any) -> str:
    enums = [each for each in _types(field.annotation) if issubclass(each, Enum)]
    values = [
        f"{value.value}: {meaning}"
        for each in enums
        for value in each
        if (meaning := getattr(value, "meaning", ""))
    ]
    return "\n".join([field.description or "", *values]).strip()


def _types(annotation: Any) -> Iterable[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for each in get_args(annotation):
        yield from _types(each)


@dataclass(frozen=True)
class Insertion:
    """Words put into the label prompt that count as what it says of added fields."""

    fields: tuple[str, ...]
    first_line: int
    last_line: int
    text: str


@dataclass(frozen=True)
class Edit:
    """What has changed from one definition to another."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Fields whose values mean something else."""
    limits: tuple[str, ...] = ()
    """Fields whose values are bounded otherwise: what does not fit is asked again."""
    described: tuple[str, ...] = ()
    """Fields of which the task says something else, but not to the teacher."""
    prompt: tuple[str, ...] = ()
    """Words of the label prompt that belong to no field which was added or removed, as `- old` and
    `+ new`."""
    reworded: tuple[str, ...] = ()
    """The fields whose descriptions are all that the label prompt says otherwise; empty where it
    says more otherwise. An answer in which they were asked for alone can stand without them."""
    own: tuple[Insertion, ...] = ()
    """Words that count as an added field's: for them no other row is asked."""
    correction: bool = False
    """Whether an answer that cannot be used is sent back with other words."""
    rules: tuple[str, ...] = ()
    """Label rules that are new, gone, or say something else."""
    whole: bool = False
    """Whether an answer as a whole must keep something else."""

    @property
    def relabels(self) -> bool:
        """Whether no answer of before can stand."""
        return bool(self.changed or self.prompt)

    @property
    def is_nothing(self) -> bool:
        """Whether the two definitions are one."""
        return self == Edit()


def compare(old: LabelDefinition, new: LabelDefinition) -> Edit:
    """Return what has changed. A field under another name is one removed and one added."""
    added = tuple(name for name in new.fields if name not in old.fields)
    removed = tuple(name for name in old.fields if name not in new.fields)
    both = [(name, old.fields[name], new.fields[name]) for name in new.fields if name in old.fields]
    other = [(name, then, now) for name, then, now in both if then.values != now.values]
    changed = tuple(name for name, then, now in other if not _same(then.values, now.values))
    names = _Fields(added, frozenset(removed), frozenset(name for name, *_ in both))
    prompt, own = _prompt_edits(old.label_prompt, new.label_prompt, names)
    return Edit(
        added=added,
        removed=removed,
        changed=changed,
        limits=tuple(name for name, _, _ in other if name not in changed),
        described=tuple(name for name, then, now in both if then.meaning != now.meaning),
        prompt=prompt,
        reworded=_reworded(old, new, names) if prompt else (),
        own=own,
        correction=_words(old.correction_prompt) != _words(new.correction_prompt),
        rules=tuple(
            name
            for name in dict.fromkeys([*old.rules, *new.rules])
            if old.rules.get(name) != new.rules.get(name)
        ),
        whole=old.whole != new.whole,
    )


def _same(old: Any, new: Any) -> bool:
    """Return whether the values of two schemas mean the same, but for their limits."""
    if isinstance(old, dict) and isinstance(new, dict):
        then, now = ({k: v for k, v in each.items() if k not in _LENGTHS} for each in (old, new))
        return (
            then.keys() - _BOUNDS == now.keys() - _BOUNDS
            and _narrowed(then, now)
            and all(
                _same_fields(then[key], now[key])
                if key == "properties"
                else _same(then[key], now[key])
                for key in then.keys() - _BOUNDS
            )
        )
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)


def _same_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Compare by name: a field that is called as a keyword is none."""
    return old.keys() == new.keys() and all(_same(old[name], new[name]) for name in old)


def _narrowed(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    least, most = -math.inf, math.inf
    return bool(
        new.get("minimum", least) >= old.get("minimum", least)
        and new.get("maximum", most) <= old.get("maximum", most)
    )


@dataclass(frozen=True)
class _Fields:
    """The names of fields, by what has become of them."""

    added: tuple[str, ...]
    removed: frozenset[str]
    kept: frozenset[str]

    def swaps(self, gone: Sequence[str], come: Sequence[str]) -> bool:
        """Return whether words of removed fields alone were replaced by words of added ones: no
        other field is named in what has gone, and each sentence put in names an added one."""
        return (
            not self.removed.isdisjoint(gone)
            and self.kept.isdisjoint(gone)
            and all(not set(self.added).isdisjoint(each) for each in _sentences(come, _ENDS))
        )


def _prompt_edits(
    old: str, new: str, fields: _Fields
) -> tuple[tuple[str, ...], tuple[Insertion, ...]]:
    """Return what differs but for words put in that name an added field, words taken out that
    name a removed one, and words of the one in place of the other's; and the words put in."""
    then, places = _words(old), [*_WORD.finditer(new)]
    now = [place.group() for place in places]
    edits, own = list[str](), list[Insertion]()
    for i, j, k, m in _differing(then, now, fields.swaps):
        gone, come = then[i:j], now[k:m]
        named = tuple(name for name in fields.added if name in come)
        if named and (not gone or fields.swaps(gone, come)):
            own.append(_insertion(named, new, places[k].start(), places[m - 1].end()))
        elif come or fields.removed.isdisjoint(gone):
            edits.append(" ".join([*_shown("-", gone), *_shown("+", come)]))
    return tuple(edits), tuple(own)


def _reworded(old: LabelDefinition, new: LabelDefinition, fields: _Fields) -> tuple[str, ...]:
    """Return the fields whose meanings, put into the old prompt as they are now, make it the new
    one but for what names added and removed fields; none where they do not."""
    told, found = old.label_prompt, list[str]()
    for name in sorted(fields.kept):
        then, now = (each.fields[name].meaning.splitlines() for each in (old, new))
        before = told
        for was, is_now in zip(then, now, strict=False):
            told = told.replace(was, is_now) if was.strip() and was != is_now else told
        found += [name] if told != before else []
    edits, _ = _prompt_edits(told, new.label_prompt, fields)
    return () if edits else tuple(found)


def _insertion(fields: tuple[str, ...], prompt: str, start: int, end: int) -> Insertion:
    first, last = (prompt.count("\n", 0, each) + 1 for each in (start, end))
    return Insertion(fields, first, last, prompt[start:end])


def _differing(
    old: Sequence[str], new: Sequence[str], swaps: Callable[[Sequence[str], Sequence[str]], bool]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield from where to where words differ, in the old ones and in the new.

    Sentences are compared first, and words in those that differ only: among 12,000 words each
    comma would be held against some hundred others. Nor are words compared where all of them are
    one field's in place of another's, whatever these have in common.
    """
    then, now = _sentences(old), _sentences(new)
    from_old, from_new = ([0, *accumulate(map(len, each))] for each in (then, now))
    for i, j, k, m in _unequal(then, now):
        start, end, come, until = from_old[i], from_old[j], from_new[k], from_new[m]
        if swaps(old[start:end], new[come:until]):
            yield start, end, come, until
            continue
        for a, b, c, d in _unequal(old[start:end], new[come:until]):
            yield start + a, start + b, come + c, come + d


def _unequal(old: Sequence[Any], new: Sequence[Any]) -> Iterator[tuple[int, int, int, int]]:
    for kind, *ends in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            i, j, k, m = ends
            yield i, j, k, m


def _sentences(words: Sequence[str], stops: frozenset[str] = _STOPS) -> list[tuple[str, ...]]:
    """Return words by sentence; line breaks are no matter."""
    ends = [at for at, word in enumerate(words, 1) if word in stops]
    return [tuple(words[i:j]) for i, j in pairwise([0, *ends, len(words)]) if i < j]


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _shown(sign: str, words: list[str]) -> Iterable[str]:
    if words:
        rest = " …" if len(words) > _SHOWN_WORDS else ""
        yield f"{sign} {' '.join(words[:_SHOWN_WORDS])}{rest}"


def to_ask(
    definition: LabelDefinition, values: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return which fields an answer lacks that have something to say in it, and what the other
    fields that it lacks hold."""
    asked, given = [], {}
    for name in definition.fields:
        if name in values:
            continue
        only = definition.only_for.get(name)
        if only and any(key in values and values[key] != v for key, v in only.where.items()):
            given[name] = only.otherwise
        else:
            asked.append(name)
    return tuple(asked), given
