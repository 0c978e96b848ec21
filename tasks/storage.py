"""What a backend keeps of an answer, and where: columns of their own, and one JSON value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Column:
    """How a field of the answer is kept that has a column of its own."""

    length: int | None = None
    """Characters that the column holds at most; None for a text without such a limit."""
    null: str | None = None
    """The word that the backend keeps where the answer says null; None if it keeps NULL."""
    edited: bool = False
    """Whether people can change it in the backend's pages: then the column is what counts."""
    left_over: bool = False
    """Whether the earlier value stays where a new answer has none."""


@dataclass(frozen=True)
class Storage:
    """Where a backend keeps an answer."""

    table: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    """The fields with a column of the same name in `table`; all others go into `analysis`."""
    analysis: tuple[str, ...] = ("metadata", "llm_analysis")
    """The way to the JSON object of the other fields: a column, then the keys in it."""
    answered: tuple[str, ...] = ()
    """Fields, of that object or with a column, of which one at least is there where anything was
    answered; empty: any field of that object will do, and all columns where every field has one."""
    textless: Mapping[str, Any] = field(default_factory=dict)
    """What an answer says that has nothing for the columns `left_over`; empty: none says so."""
    fallback: str | None = None
    """The text that the backend keeps for an answer that it could not read; None if it has none."""

    @property
    def edited(self) -> tuple[str, ...]:
        """The fields that people can change in the backend's pages."""
        return tuple(name for name, column in self.columns.items() if column.edited)

    @property
    def left_over(self) -> tuple[str, ...]:
        """The fields that stay as they were where a new answer has none."""
        return tuple(name for name, column in self.columns.items() if column.left_over)

    def analysed(self, fields: Iterable[str]) -> tuple[str, ...]:
        """Return those of a task's fields that have no column of their own."""
        return tuple(name for name in fields if name not in self.columns)
