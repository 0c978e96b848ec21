"""What kind of answer each field of an output model holds, read from its annotations.

The label report counts and the evaluation scores by kind, so that neither knows a task's fields.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from enum import Enum, StrEnum
from statistics import median
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


class Kind(StrEnum):
    """How a field's values compare."""

    FLAG = "flag"
    """True or false."""
    CHOICE = "choice"
    """One of an enumeration, or none."""
    CHOICES = "choices"
    """A list of values of an enumeration."""
    NUMBER = "number"
    TEXT = "text"
    """Free text, a list of it, or anything else: only its presence compares."""


def kinds(output: type[BaseModel]) -> dict[str, Kind]:
    """Return the kind of each field of an output model, in the model's order."""
    return {name: _kind(field.annotation) for name, field in output.model_fields.items()}


def _kind(annotation: Any) -> Kind:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        given = [argument for argument in arguments if argument is not type(None)]
        return _kind(given[0]) if len(given) == 1 else Kind.TEXT
    if origin is list:
        return Kind.CHOICES if _kind(arguments[0]) is Kind.CHOICE else Kind.TEXT
    if origin is Literal:
        return Kind.CHOICE
    if not isinstance(annotation, type):
        return _kind(arguments[0]) if arguments else Kind.TEXT  # Annotated[…]
    return _simple(annotation)


def _simple(annotation: type) -> Kind:
    if issubclass(annotation, Enum):
        return Kind.CHOICE
    if issubclass(annotation, bool):  # before int, of which it is a subclass
        return Kind.FLAG
    return Kind.NUMBER if issubclass(annotation, (int, float)) else Kind.TEXT


def describe(output: type[BaseModel], answers: list[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return for each field what its values are over all answers: counts, or a distribution."""
    return {
        name: _describe(kind, [getattr(answer, name) for answer in answers])
        for name, kind in kinds(output).items()
    }


def _describe(kind: Kind, values: list[Any]) -> dict[str, Any]:
    if kind in (Kind.FLAG, Kind.CHOICE):
        return {"kind": kind.value, "counts": _counts(values)}
    if kind is Kind.CHOICES:
        chosen = [each for value in values for each in value or []]
        return {"kind": kind.value, "counts": _counts(chosen), "empty": sum(not v for v in values)}
    given = [value for value in values if value not in (None, "", [])]
    if kind is Kind.NUMBER:
        measured: list[float] = [float(value) for value in given]
    else:
        measured = [len(value) for value in given if hasattr(value, "__len__")]
    found: dict[str, Any] = {"kind": kind.value, "given": len(given)}
    if measured:
        what = "value" if kind is Kind.NUMBER else "length"
        spread = {"min": min(measured), "median": median(measured), "max": max(measured)}
        found[what] = spread
    return found


def _counts(values: Iterable[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        shown = str(value.value if isinstance(value, Enum) else value)
        found[shown] = found.get(shown, 0) + 1
    return dict(sorted(found.items()))
