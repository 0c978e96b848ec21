"""Which parts of a task are no text, function or number where the definition asks for one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from pydantic import BaseModel

from tasks.answer_faults import Fault
from tasks.chat import ChatFormat
from tasks.definition import Serving, Task
from tasks.item import Item
from tasks.storage import Column, Storage

PROMPTS = {
    "system_prompt": "prompts/system.md",
    "label_prompt": "prompts/label.md",
    "correction_prompt": "prompts/correction.md",
    "backfill_prompt": "__init__.py",
}
"""The prompts with the file of the package that each stands in."""
_SHOWN = 80
Check = tuple[str, Callable[[Any], bool]]
"""What a value has to be, in words, and whether one is."""


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(map(_text, value))


def _number(least: float, most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
    )


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and _number(least)(value)


def _instance(of: type) -> Check:
    return f"one {of.__name__}(…)", lambda value: isinstance(value, of)


def _derived(of: type) -> Check:
    return (
        f"a class that derives from {of.__name__}",
        lambda value: isinstance(value, type) and issubclass(value, of),
    )


def _rules(value: Any) -> bool:
    ids = [getattr(each, "id", None) for each in value] if isinstance(value, tuple | list) else [""]
    return (
        all(map(_text, ids))
        and len(set(ids)) == len(ids)
        and all(getattr(each, "severity", None) in {"error", "warning"} for each in value)
        and all(isinstance(getattr(each, "message", None), str) for each in value)
    )


def _by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, str) for each in value)


_FUNCTION: Check = ("a function", callable)
_ANY_TEXT: Check = ("a text", lambda value: isinstance(value, str))
_NAMED: Check = ("a mapping by the names of fields", _by_name)
_PARTS: dict[str, Check] = {
    "version": ('a text, such as "1"', _text),
    "item": _derived(Item),
    "output": _derived(BaseModel),
    **dict.fromkeys(PROMPTS, _ANY_TEXT),
    **dict.fromkeys(("user_message", "check", "stratum", "positive"), _FUNCTION),
    **dict.fromkeys(("text_of", "facets", "time_of"), _FUNCTION),
    "canary": _instance(Item),
    "canary_strata": (
        "a set of the texts that `stratum` returns, with one at least",
        lambda value: isinstance(value, AbstractSet) and bool(value) and all(map(_text, value)),
    ),
    "chat": _instance(ChatFormat),
    "serving": _instance(Serving),
    "text_fields": (
        'a tuple of the names of an item\'s fields, as ("title", "text"); of one: ("text",)',
        lambda value: _texts(value) and bool(value),
    ),
    "ordinal": (
        "a mapping from the names of fields to the values of each in order",
        lambda value: _by_name(value) and all(isinstance(x, tuple | list) for x in value.values()),
    ),
    "calibrated": (
        "a mapping from fields to fields",
        lambda value: _by_name(value) and all(map(_text, value.values())),
    ),
    "matters": ('a tuple of the names of measures; of one: ("valid",)', _texts),
    "rules": (
        "a tuple of rules, each with an id of its own, a severity (error or warning), a message",
        _rules,
    ),
    "storage": (
        "one Storage(…), or None",
        lambda value: value is None or isinstance(value, Storage),
    ),
    "only_for": _NAMED,
}
_SERVING: dict[str, Check] = {
    "temperature": ("a number of 0 or more", _number(0)),
    "num_ctx": ("a whole number of tokens", _whole(1)),
    "num_predict": ("a whole number of tokens", _whole(1)),
    "repeat_penalty": ("a number above 0; 1.0 is off", _number(1e-9)),
    "top_p": ("a number of 0 to 1", _number(0, 1)),
    "seed": ("a whole number of 0 or more", _whole(0)),
}
_STORAGE: dict[str, Check] = {
    "table": ("the name of a table", _text),
    "columns": (
        "a mapping from the names of fields to one Column(…) each",
        lambda value: _by_name(value) and all(isinstance(x, Column) for x in value.values()),
    ),
    "analysis": (
        'a tuple of a column and the keys in it, as ("metadata", "llm_analysis") or ("metadata",)',
        lambda value: _texts(value) and bool(value),
    ),
    "answered": ('a tuple of the names of fields; of one: ("relevant",)', _texts),
    "textless": _NAMED,
    "fallback": ("a text, or None", lambda value: value is None or _text(value)),
}
_COLUMN: dict[str, Check] = {
    "length": (
        "a number of characters, or None",
        lambda value: value is None or _whole(1)(value),
    ),
    "null": ("a text, or None", lambda value: value is None or isinstance(value, str)),
}


def of_parts(task: Task) -> Iterator[Fault]:
    """Yield the parts that are of another kind than the definition says."""
    where = f"tasks/{task.name}/__init__.py: "
    yield from _unlike(where, task, _PARTS)
    if isinstance(task.serving, Serving):
        yield from _unlike(f"{where}serving, ", task.serving, _SERVING)
    if isinstance(task.storage, Storage):
        yield from (found := list(_unlike(f"{where}storage, ", task.storage, _STORAGE)))
        for name, column in {} if found else task.storage.columns.items():
            yield from _unlike(f"{where}storage, column {name}, ", column, _COLUMN)


def _unlike(where: str, part: object, checks: Mapping[str, Check]) -> Iterator[Fault]:
    for name, (wanted, fits) in checks.items():
        if not fits(value := getattr(part, name)):
            shown = repr(value)
            shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
            yield Fault(f"{where}{name} is {shown}", f"Let {name} be {wanted}.")
