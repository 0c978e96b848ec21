"""A labelled item, and a group of near-duplicates with its place in the split."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from images.labeler.assignment import Side
from tasks.definition import Item, Task


@dataclass(frozen=True)
class Standing:
    """What the frozen test set knows of an item."""

    kind: Literal["tested", "seen", "reprint", "barred", ""] = ""
    """`tested` and `seen` as `TestSet` has them. `reprint`: says what a tested item said, and may
    stand for it. `barred`: does so too, but was trained on, or says what an item said that was."""
    reprints: frozenset[str] = frozenset()
    """The tested texts that it is similar to."""


@dataclass(frozen=True)
class Labelled:
    """An item with its label."""

    item: Item
    output: BaseModel
    origin: str
    text: str
    """What duplicates are looked for in."""
    words: str
    """Digest of the text's words, by which the frozen test set knows it under another id."""
    time: datetime | None
    draw: str
    """Hash of seed and id in hex."""
    standing: Standing = Standing()

    @property
    def trainable(self) -> bool:
        """Whether no tested item says the same."""
        return self.standing.kind not in {"tested", "reprint", "barred"}


@dataclass
class Placed:
    """Rows that say the same, and their side: some are kept, the others are left out."""

    kept: list[Labelled]
    """None where nothing of it may be tested or trained on."""
    left_out: list[Labelled]
    frozen: bool
    """`kept` are rows of the frozen test set."""
    distinct: list[Labelled]
    """One for each wording, of all rows that may be trained on."""
    side: Side = "train"

    @property
    def members(self) -> list[Labelled]:
        """All rows, kept ones first."""
        return [*self.kept, *self.left_out]

    @property
    def draw(self) -> str:
        """The lowest of the members' draws: a new copy moves a group to the front at most."""
        return min(row.draw for row in self.members)

    @property
    def time(self) -> datetime | None:
        """When the content was first known: what is reprinted today is no news."""
        return min((row.time for row in self.members if row.time), default=None)

    def facets(self, task: Task) -> frozenset[str]:
        """Return what the kept row's label is; its stratum where the task names no facets."""
        output = self.kept[0].output
        return task.facets(output) or frozenset({task.stratum(output)})

    def keep_distinct(self) -> None:
        """Keep one row of each wording instead of one row."""
        ids = {row.item.id for row in self.distinct}
        members = self.members
        self.kept = [row for row in members if row.item.id in ids]
        self.left_out = [row for row in members if row.item.id not in ids]
