"""Which modules of a checkout may have to do with a task, by the words in their text.

Only these are parsed, with what they import and what imports them: that may be one in a hundred.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from driver.task.check.values import choice_of
from driver.task.source import Source

_ASKING = (
    r"/api/chat|/api/generate|/chat/completions|SystemMessage|HumanMessage"
    r"|\b(?:chat|generate|invoke|ainvoke|with_structured_output)\s*\("
    r"|['\"](?:role|messages|prompt|system|human)['\"]|\b(?:role|messages|prompt)\s*="
)
"""What a module has in its text that asks a model, or puts its messages together."""


def mention(source: Source) -> re.Pattern[bytes]:
    """Return what finds a field, a column, the table, a value of the task's, or a model asked."""
    choices = [choice for field in source.fields if (choice := choice_of(field.shape))]
    names = [field.name for field in source.fields]
    names += [name for each in choices for name in (each.name, f"{each.name}Enum") if each.name]
    if source.task.storage is not None:
        names += [*source.storage.columns, *source.storage.analysis, source.storage.table]
    values = [one.value for each in choices for one in each.choices]
    quoted = f"['\"](?:{_any(values)})['\"]|" if values else ""
    return re.compile(rf"\b(?:{_any(names)})\b|{quoted}{_ASKING}".encode())


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(each) for each in dict.fromkeys(words))
