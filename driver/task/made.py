"""Answers made from a task's schema, to try its functions out on: no model has to be asked.

Texts are a word long: how long they may be, the limits say, and rules on long ones load what takes
a second. What a validator refuses of them is no fault of the task's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from tasks.schema import DATE
from tasks.wiring_faults import CHARACTERS

_WORDS = ("A text", "a", "A", "1", "2026-01-31", "a1", "AA", "A-1", "")
"""One of these is taken for a text that has to match a pattern."""
_UNEVEN = " A Text "
"""What a validator that strips or lowers a text would change."""
_MOST_ENTRIES = 8
_PIECE = re.compile(r"(?:[^\w\r\n]|_)?[^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+|\s+")
"""A word with the sign before it, up to three digits, or signs in a row: no token holds more."""


class Size(StrEnum):
    """How much an answer says."""

    LEAST = "least"
    """Null and false where it may be, lists and texts at their shortest, the first values."""
    USUAL = "usual"
    MOST = "most"
    """Nothing null, true, lists with as many entries as may be, the last values."""


def answers(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield answers: one of each size, and each of these with one field at each of its values."""
    bases = [_value(schema, size) for size in Size]
    yield from bases
    for base in bases:
        for name, child in schema["properties"].items():
            for value in _values(child):
                if value != base[name]:
                    yield {**base, name: value}


def uneven(schema: dict[str, Any], answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an answer with one text at a time that begins and ends with a blank."""
    for name, child in schema["properties"].items():
        for node in child.get("anyOf", [child]):
            is_free = node.get("type") == "string" and not node.keys() & {"pattern", "enum"}
            if is_free and node.get("minLength", 0) <= len(_UNEVEN) <= node.get("maxLength", 0):
                yield {**answer, name: _UNEVEN}


def text_of(answer: dict[str, Any]) -> str:
    """Return an answer as a model writes it."""
    return json.dumps(answer, ensure_ascii=False)


def _values(node: dict[str, Any]) -> list[Any]:
    """Return every value of a closed set, and one of each size of any other."""
    if "anyOf" in node:
        return [value for option in node["anyOf"] for value in _values(option)]
    if "enum" in node:
        return list(node["enum"])
    made = [_value(node, size) for size in Size]
    return [value for place, value in enumerate(made) if value not in made[:place]]


def least_tokens(schema: dict[str, Any]) -> int:
    """Return the tokens that the shortest answer of a schema has at least, by any tokenizer that
    cuts texts between words and signs before all else, as Qwen's does."""
    text = text_of(_shortest(schema))
    return max(len(_PIECE.findall(text)), len(text) // CHARACTERS)


def _shortest(node: dict[str, Any]) -> Any:
    """Return the value of a schema that takes the fewest tokens."""
    values = node.get("enum", [node["const"]] if "const" in node else [])
    if values := [*values, *map(_shortest, node.get("anyOf", ()))]:
        return min(values, key=_length)
    match node.get("type"):
        case "object":
            return {name: _shortest(child) for name, child in node["properties"].items()}
        case "array":
            return [_shortest(node["items"])] * node.get("minItems", 0)
        case "string" if node.get("pattern") != DATE:
            return "a" * node.get("minLength", 0)
        case "integer" | "number":
            return 0
    return _value(node, Size.LEAST)


def _length(value: Any) -> tuple[int, int]:
    text = json.dumps(value, ensure_ascii=False)
    return len(_PIECE.findall(text)), len(text)


def _value(node: dict[str, Any], size: Size, number: int = 0) -> Any:
    """Return a value of a schema; `number` tells the entries of a list from one another."""
    if "anyOf" in node:
        options = sorted(node["anyOf"], key=lambda option: option.get("type") != "null")
        return _value(options[0 if size is Size.LEAST else -1], size, number)
    values = node.get("enum", [node["const"]] if "const" in node else [])
    if values:
        first = len(values) - 1 if size is Size.MOST else 0
        return values[(first + number) % len(values)]
    kind = node.get("type")
    made: Any = None
    if kind == "object":
        made = {name: _value(child, size, number) for name, child in node["properties"].items()}
    elif kind == "array":
        made = [_value(node["items"], size, place) for place in range(_entries(node, size))]
    elif kind == "string":
        made = _text(node, size, number)
    elif kind == "boolean":
        made = size is Size.MOST
    elif kind in {"integer", "number"}:
        made = _figure(node, size)
    return made


def _entries(node: dict[str, Any], size: Size) -> int:
    least, most = node.get("minItems", 0), node["maxItems"]
    different = len(node["items"].get("enum", range(_MOST_ENTRIES)))
    wanted = {Size.LEAST: 0, Size.USUAL: 1, Size.MOST: different}[size]
    return int(max(least, min(wanted, most)))


def _figure(node: dict[str, Any], size: Size) -> float:
    least = node.get("minimum", min(0, node.get("maximum", 0)))
    most = node.get("maximum", max(1, least))
    between = (least + most) // 2 if node["type"] == "integer" else (least + most) / 2
    figures: dict[Size, float] = {Size.LEAST: least, Size.USUAL: between, Size.MOST: most}
    return figures[size]


def _text(node: dict[str, Any], size: Size, number: int) -> str:
    least, most = node.get("minLength", 0), node["maxLength"]
    if pattern := node.get("pattern"):
        if pattern == DATE:
            return f"2026-01-{number % 28 + 1:02}"
        fitting = [w for w in _WORDS if least <= len(w) <= most and re.search(pattern, w)]
        return fitting[number % len(fitting)] if fitting else "a" * least
    if size is Size.LEAST:
        return ("" if not least else str(number)).ljust(least, "a")
    return f"{number + 1} text".ljust(least, "s")[:most]
