"""What values a field can have that has but a few."""

from __future__ import annotations

import types
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

_FEW = 100


def choices(annotation: Any) -> list[Any]:
    """Return every value that a field of a closed set can have, None included where it may be."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (None, type(None)):
        return [None]
    if origin in (Union, types.UnionType):
        return [value for argument in arguments for value in choices(argument)]
    if origin is Literal:
        return list(arguments)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return list(annotation)
    return choices(arguments[0]) if arguments else []  # list[…], Annotated[…]


def few_values(output: type[BaseModel], name: str, schema: dict[str, Any]) -> list[Any] | None:
    """Return every value of a field that is an enum, a flag, or a whole number between two limits,
    None included where it may be null; None where it is another or has more than 100 values.

    `schema` is the field's own, of `Task.schema`.
    """
    found: list[Any] = []
    for option in schema.get("anyOf", [schema]):
        if option.get("type") == "null":
            found.append(None)
        elif option.get("type") == "boolean":
            found += [False, True]
        elif option.keys() & {"enum", "const"}:
            every = choices(output.model_fields[name].annotation)
            found += [each for each in every if each is not None]
        elif option.get("type") == "integer" and option.keys() >= {"minimum", "maximum"}:
            most = min(option["maximum"], option["minimum"] + _FEW)
            found += range(option["minimum"], most + 1)
        else:
            return None
    return found if len(found) <= _FEW else None
