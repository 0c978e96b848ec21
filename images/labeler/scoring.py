"""Scores of a candidate's answers, field by field, by the kind of each field.

Names in scores.json: `valid` is the share of valid answers; a field's own name is its main score,
and `FIELD.precision` and the like are its further ones. An answer that is not valid counts as
wrong in every field. Precision, recall and F1 are about what was expected or answered, so an
invalid answer to a row where nothing was expected shows in the others only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from images.labeler.fields import Kind, kinds

Pair = tuple[BaseModel, BaseModel | None]
"""Expected answer, and the candidate's, if that is valid."""

_MISSING: Any = object()
"""The value of a field in an invalid answer: equal to nothing."""


def score(output: type[BaseModel], pairs: Sequence[Pair]) -> dict[str, float]:
    """Return every score by name, 0 (worst) to 1, rounded to four places."""
    found = {"valid": _share([answer is not None for _, answer in pairs])}
    for name, kind in kinds(output).items():
        values = [
            (getattr(expected, name), _MISSING if answer is None else getattr(answer, name))
            for expected, answer in pairs
        ]
        for suffix, value in _SCORES[kind](values).items():
            found[f"{name}{suffix}"] = value
    return {name: round(value, 4) for name, value in found.items()}


def score_names(output: type[BaseModel]) -> list[str]:
    """Return the names that `score` gives for an output model."""
    return list(score(output, []))


Values = Sequence[tuple[Any, Any]]


def _flag(values: Values) -> dict[str, float]:
    return {"": _accuracy(values), **_detection([({e} & {True}, {a} & {True}) for e, a in values])}


def _choice(values: Values) -> dict[str, float]:
    """Accuracy, and the mean F1 of all classes that were expected or answered; none is a class."""
    classes = {value for pair in values for value in pair} - {_MISSING}
    f1 = [
        _detection([({e} & {one}, {a} & {one}) for e, a in values])[".f1"]
        for one in sorted(classes, key=str)
    ]
    return {"": _accuracy(values), ".macro_f1": sum(f1) / len(f1) if f1 else 0.0}


def _choices(values: Values) -> dict[str, float]:
    """Micro F1, over all chosen values of all rows, and the share of rows with all right."""
    sets = [(set(e), set() if a is _MISSING else set(a)) for e, a in values]
    exact = [a is not _MISSING and set(e) == set(a) for e, a in values]
    return {"": _detection(sets)[".f1"], ".exact": _share(exact)}


def _number(values: Values) -> dict[str, float]:
    """One minus the mean absolute error; an error counts as 1 at most, a missing value too."""
    errors = [
        1.0 if a is _MISSING or (e is None) != (a is None) else min(1.0, abs((e or 0) - (a or 0)))
        for e, a in values
    ]
    return {"": 1 - sum(errors) / len(errors) if errors else 0.0}


def _presence(values: Values) -> dict[str, float]:
    """Share of rows in which the text, or list, is there or not as expected."""
    return {"": _share([a is not _MISSING and bool(e) == bool(a) for e, a in values])}


_SCORES: dict[Kind, Callable[[Values], dict[str, float]]] = {
    Kind.FLAG: _flag,
    Kind.CHOICE: _choice,
    Kind.CHOICES: _choices,
    Kind.NUMBER: _number,
    Kind.TEXT: _presence,
}


def _accuracy(values: Values) -> float:
    return _share([a is not _MISSING and e == a for e, a in values])


def _detection(pairs: Sequence[tuple[set[Any], set[Any]]]) -> dict[str, float]:
    """Return precision, recall and F1 of detected against expected values, over all rows.

    Nothing expected and nothing detected is right: 1. One of them without the other: 0.
    """
    hits = sum(len(expected & found) for expected, found in pairs)
    wanted = sum(len(expected) for expected, _ in pairs)
    detected = sum(len(found) for _, found in pairs)
    if not wanted and not detected:
        return {".precision": 1.0, ".recall": 1.0, ".f1": 1.0}
    return {
        ".precision": hits / detected if detected else 0.0,
        ".recall": hits / wanted if wanted else 0.0,
        ".f1": 2 * hits / (wanted + detected),
    }


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0
