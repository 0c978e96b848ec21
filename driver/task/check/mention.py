"""Which modules of a checkout may have to do with a task, by the words in their text.

Only these are parsed, with what they import and what imports them: that may be one in a hundred.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from driver.task.check.values import choice_of
from driver.task.source import Source

_ASKING = (
    r"/api/chat|/api/generate|/chat/completions|SystemMessage|HumanMessage"
    r"|\b(?:chat|generate|invoke|ainvoke|with_structured_output)\s*\("
    r"|['\"](?:role|messages|prompt|system|human)['\"]|\b(?:role|messages|prompt)\s*="
)
"""What a module has in its text that asks a model, or puts its messages together."""


def mention(source: Source) -> Callable[[bytes], bool]:
    """Return what tells whether a module's text has to do with the task, or asks a model.

    It has where it sets a field or column of an object, writes the table or a value in quotes, or
    names two fields: of one alone, which may be any word, nothing is compared.
    """
    choices = [choice for field in source.fields if (choice := choice_of(field.shape))]
    names, quoted = [field.name for field in source.fields], list[str]()
    if source.task.storage is not None:
        names += source.storage.columns
        quoted += [*source.storage.analysis, source.storage.table]
    types = [name for each in choices if each.name for name in (each.name, f"{each.name}Enum")]
    quoted += [one.value for each in choices for one in each.choices]
    of_types = rf"\b(?:{_any(types)})\b|" if types else ""
    field = _any(names)
    written = rf"\.(?:{field})\s*(?:=(?!=)|,)|setattr\([^)]*['\"](?:{field})['\"]"
    written += rf"|['\"](?:{_any(quoted)})['\"]"
    alone = re.compile(f"{of_types}{written}|{_ASKING}".encode())
    any_name = re.compile(rf"\b(?:{_any(names)})\b".encode())
    return lambda text: bool(alone.search(text)) or len({*any_name.findall(text)}) >= 2


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(each) for each in dict.fromkeys(words))
