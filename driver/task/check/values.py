"""What a place outside must be able to hold of each field, and how a difference is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from driver.task.check.finding import Edit, Finding, Severity
from driver.task.shape import Field, Kind, Shape, figure
from driver.task.source import Source

UPDATES = ("update", "edit", "patch")
"""In the name of a schema that holds only what people may change."""
QUERIES = ("filter", "query", "param", "search", "sort")
"""In the name of one that asks for items and holds none."""
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NOTHING = frozenset({"", "none", "null", "unknown"})
SHOWN = ("out", "output", "response", "read", "public", "view")
"""In the name of one that the API gives, and reads nothing with."""


def choice_of(shape: Shape) -> Shape | None:
    """Return the enum of a field: its own, or that of a list's entries; None where it has none."""
    if shape.kind is Kind.LIST and shape.entry:
        return choice_of(shape.entry)
    return shape if shape.kind is Kind.CHOICE else None


def entry_of(field: Field) -> Field | None:
    """Return the texts of a list as a field of its name; None where it has none."""
    entry = field.shape.entry
    is_texts = entry is not None and entry.kind in {Kind.TEXT, Kind.CHOICE}
    return replace(field, shape=entry) if entry is not None and is_texts else None


def longest(source: Source, field: Field) -> int | None:
    """Return the characters of the longest text that a column of a field gets, or the entries of
    the longest list; None: no limit."""
    column = source.storage.columns.get(field.name)
    word = len(column.null or "") if column else 0
    if field.shape.kind is Kind.CHOICE:
        return max(word, *(len(choice.value) for choice in field.shape.choices))
    if field.shape.kind is Kind.TEXT:
        return None if field.shape.most is None else max(word, int(field.shape.most))
    if field.shape.kind is Kind.LIST:
        return None if field.shape.most is None else int(field.shape.most)
    return 0


def lacking(field: Field, known: Iterable[str]) -> list[str]:
    """Return the values of a field's enum that are not among those known; [] without an enum."""
    choice = choice_of(field.shape)
    there = set(known)
    return [each.value for each in choice.choices if each.value not in there] if choice else []


def missing_fields(source: Source, there: Iterable[str], name: str) -> list[Field]:
    """Return the fields that a type lacks which is this task's; [] for any other type."""
    wanted, known = wanted_fields(source, there, name), {*there}
    return [field for field in source.fields if field.name in wanted - known]


def wanted_fields(source: Source, there: Iterable[str], name: str) -> set[str]:
    """Return the fields that a type should have: none for one that is not surely this task's.

    More than half of the columns make it one of rows, of the JSON value's fields one of analyses;
    of all fields, and two of the kind, either. By its name it may be one of what people change,
    which lacks what they do not, or one of questions.
    """
    if is_named(name, QUERIES):
        return set()
    columns = {field.name for field, _ in source.columns}
    if is_named(name, UPDATES):
        columns &= set(source.storage.edited)
    analysed = set(source.analysed)
    shared = (columns | analysed) & {*there}
    mostly = 2 * len(shared) > len(source.fields)
    return {
        each
        for kind in (columns, analysed)
        if 2 * len(kind & shared) > len(kind) or (mostly and len(kind & shared) >= 2)
        for each in kind
    }


def may_be_stored(source: Source, field: Field, text: str) -> bool:
    """Return whether code may store a text in an answer's place, and an enum's values beside it.

    That is one of the values, or a word that stands for nothing; of a text any, such as a fallback.
    """
    choice, column = choice_of(field.shape), source.storage.columns.get(field.name)
    known = {each.value for each in choice.choices} if choice else {text}
    return text in known or text.lower() in _NOTHING or (column is not None and text == column.null)


def _others(field: Field, known: Iterable[str]) -> list[str]:
    """Return what an enum knows beside the task's values, but for words that stand for nothing."""
    choice = choice_of(field.shape)
    values = {each.value for each in choice.choices} if choice else set()
    return [each for each in known if each not in values and each.lower() not in _NOTHING]


def is_named(name: str, words: Iterable[str]) -> bool:
    """Return whether a type's name holds one of these words, in the singular or plural."""
    parts = {each.lower().removesuffix("s") for each in _WORD.findall(name)}
    return not parts.isdisjoint(words)


def unknown_values(
    place: str,
    field: Field,
    known: Iterable[str],
    names: Sequence[str],
    holder: str,
    edit: Edit | None,
    *,
    breaks: bool = True,
) -> Finding:
    """Return the finding of an enum that does not know these values of the task's."""
    listed = ", ".join(names)
    others = ", ".join(_others(field, known))
    instead = f"; it has {others}, which no answer has" if others else ""
    return Finding(
        place,
        f"{holder} does not know {listed}, of {field.name}{instead}",
        f"an answer with {names[0]} is refused or cannot be shown: the item's page is an error"
        if breaks
        else f"pages have no case for {names[0]}, and the types deny that it comes",
        f"Add {listed}, or rename what stands for it; rows with an old value need a migration.",
        Severity.BREAKS if breaks else Severity.DIFFERS,
        edit,
    )


def too_short(
    place: str, field: Field, length: int, needed: int | None, edit: Edit | None, of: str = ""
) -> Finding:
    """Return the finding of a column or limit that is shorter than an answer may be.

    `of`: what of the field it is, where that is a part.
    """
    unit = "entries" if field.shape.kind is Kind.LIST else "characters"
    wanted = "any length" if needed is None else f"{figure(needed)} {unit}"
    return Finding(
        place,
        f"{of}{field.name} holds {length} {unit}, and an answer may have {wanted}",
        "one longer value is refused by the database, and a bulk reprocess loses its whole batch",
        "Widen it, with a migration (`driver task render`: migration.py) where it is a column.",
        Severity.BREAKS,
        edit,
    )
