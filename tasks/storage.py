"""What a backend keeps of an answer, and where: columns of their own, and one JSON value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


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

    def analysed(self, fields: Iterable[str]) -> tuple[str, ...]:
        """Return those of a task's fields that have no column of their own."""
        return tuple(name for name in fields if name not in self.columns)
