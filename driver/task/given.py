"""What a new task is given: its name, and its fields as a person writes them.

A field is `NAME:TYPE` or `NAME:TYPE:MEANING`; a `?` behind the type lets it be null. Types: `text`,
`flag`, `score` (0 to 1), `count`, `date`, `list` (of short texts), or the values of a choice, as in
`mood:good|bad|mixed`.
"""

from __future__ import annotations

import keyword
import re
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import BaseModel

from contracts.errors import SettingsInvalid

TYPES = ("text", "flag", "score", "count", "date", "list")
_NAME = re.compile(r"[a-z][a-z0-9_]{1,29}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,29}")
_LONGEST_VALUE = 40
_MOST_FIELDS = 20
_QUOTES = '"""'
_WRITTEN_OUT = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "ı": "i"}
)
# Classes that the module of the answer uses itself.
_TAKEN = {"Annotated", "BaseModel", "ConfigDict", "Field", "StrEnum", "StringConstraints"}


@dataclass(frozen=True)
class Given:
    """A field of the new task's answer."""

    name: str
    kind: str
    """One of `TYPES`, or `choice`."""
    nullable: bool = False
    values: tuple[str, ...] = ()
    """Of a choice."""
    meaning: str = ""

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ").capitalize()

    @property
    def class_name(self) -> str:
        """What the class of a choice is called."""
        name = camel(self.name)
        return f"{name}Choice" if name in _TAKEN or name.endswith(("Item", "Answer")) else name


def camel(name: str) -> str:
    """Return a name with underscores as that of a class."""
    return "".join(part.capitalize() for part in name.split("_"))


def task_name(text: str) -> str:
    """Return the name of a task if it can be one; raises `SettingsInvalid`."""
    if keyword.iskeyword(text):
        raise SettingsInvalid(
            f"{text!r} cannot be the name of a task",
            why="it is a word of the Python language, and the name is that of a package",
            todo=f"Take another one, as {text}_task.",
        )
    if not _NAME.fullmatch(text):
        raise SettingsInvalid(
            f"{text!r} cannot be the name of a task",
            why="it is the name of a Python package: 2 to 30 small letters of a to z, digits and "
            "underscores, a letter first",
            todo=f"Take {near}, say." if (near := _near(text)) else "Take another one.",
        )
    return text


def _near(text: str) -> str:
    """Return the nearest text that can be a name, "" where there is none."""
    near = _plain(text)
    return near if _NAME.fullmatch(near) and not keyword.iskeyword(near) else ""


def _plain(text: str) -> str:
    """Return what is left of a text in small letters of a to z, digits and underscores."""
    written = unicodedata.normalize("NFC", text).lower().translate(_WRITTEN_OUT)
    plain = unicodedata.normalize("NFKD", written).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:30].rstrip("_")


def field(text: str) -> Given:
    """Return a field as it was written; raises `SettingsInvalid` that says what is wrong."""
    name, separator, rest = text.strip().partition(":")
    kind, _, meaning = rest.partition(":")
    nullable = kind.endswith("?")
    kind = kind.removesuffix("?")
    if not separator or not kind:
        raise _wrong(text, "it has no type")
    if not _FIELD.fullmatch(name) or keyword.iskeyword(name):
        raise _wrong(text, "a name has 1 to 30 small letters, digits and underscores")
    if hasattr(BaseModel, name) or name.startswith("model_"):
        raise _wrong(text, "pydantic keeps this name for itself")
    meaning = " ".join(meaning.split())
    if _QUOTES in text:
        raise _wrong(text, f"no Modelfile can hold {_QUOTES}, and the prompt has all that is here")
    if kind in TYPES:
        if nullable and kind in {"flag", "list"}:
            raise _wrong(text, f"a {kind} is never null")
        return Given(name, kind, nullable, meaning=meaning)
    values = tuple(" ".join(unicodedata.normalize("NFC", each).split()) for each in kind.split("|"))
    if len(values) < 2 or len(set(values)) < len(values):
        raise _wrong(text, f"the types are {', '.join(TYPES)}, or at least two values a|b")
    for value in values:
        if not 0 < len(value) <= _LONGEST_VALUE or not value.isprintable():
            raise _wrong(
                text, f"{value!r} is no value of 1 to {_LONGEST_VALUE} characters that can be shown"
            )
    return Given(name, "choice", nullable, values, meaning)


def members(values: Sequence[str]) -> dict[str, str]:
    """Return what the member of an enum is called for each of its values, in their order."""
    found: dict[str, str] = {}
    for number, value in enumerate(values, start=1):
        name = _plain(value).upper()
        fits = name[:1].isalpha() and name not in found.values() and not name.startswith("VALUE_")
        found[value] = name if fits else f"VALUE_{number}"
    return found


def language(text: str) -> str:
    """Return the language of the texts, on one line; raises `SettingsInvalid` for none."""
    said = " ".join(text.split())
    if not said or not said.isprintable() or _QUOTES in said:
        raise SettingsInvalid(f"{text!r} is no language", todo="Name it, as --language French.")
    return said


def fields(texts: Sequence[str]) -> tuple[Given, ...]:
    """Return the fields, asked for at the terminal where none is given."""
    found = [field(text) for text in texts] if texts else _asked()
    names = [each.name for each in found]
    if not found or len(names) > _MOST_FIELDS:
        raise SettingsInvalid(
            f"an answer has 1 to {_MOST_FIELDS} fields, and {len(names)} are given",
            todo="Name each: --field NAME:TYPE[:MEANING].",
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsInvalid(f"a field is named twice: {', '.join(twice)}")
    if len({each.class_name for each in found}) < len(found):
        raise SettingsInvalid("two fields have names that differ by underscores only")
    return tuple(found)


def _asked() -> list[Given]:
    """Ask for fields until an empty line, or the end of the input; nobody is asked where there is
    no terminal."""
    found: list[Given] = []
    if not sys.stdin.isatty():
        return found
    print(f"Fields of the answer, in order, as NAME:TYPE[:MEANING]. Types: {', '.join(TYPES)}, or")
    print("the values of a choice (good|bad); ? behind the type lets it be null. Empty: done.")
    with suppress(EOFError):
        while text := input("field: ").strip():
            try:
                found.append(field(text))
            except SettingsInvalid as error:
                print(error)
    return found


def _wrong(text: str, why: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{text!r} is no field", why=why, todo="Write NAME:TYPE or NAME:TYPE:MEANING."
    )
