"""The items of the last snapshot, and which of them a label from elsewhere is for.

A file of other tools can give an item's text cut, and its date and source in other ways, or none.
Its label is for the item that it surely is; what could be two items' is nobody's.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contracts import files, stages
from contracts.errors import ItemsInvalid
from driver.store import Store
from tasks.definition import Item, Task

_TELLING_CHARS = 80
"""Less text, without an id, can be that of another item, such as a stock phrase."""
_NO_ID = "-"
_NAMED = 3
_CUT_MARK = re.compile(r"\s*\[?(?:…|\.{3})\]?$")


@dataclass(frozen=True)
class Match:
    """What a row's label is for."""

    item: Item | None
    """A known item, or the row's own; None where the row holds none."""
    stranger: str = ""
    """Why it is not for a known item, shortly; empty where it is, or where none is known."""
    detail: str = ""
    """The same in full, with names."""


class KnownItems:
    """The items of a snapshot; none where there is no snapshot yet."""

    def __init__(self, task: Task, items: Iterable[Item] = ()) -> None:
        self._task = task
        self._items = list(items)
        self._by_id = {item.id: item for item in self._items}
        self.by_digest = {task.item_digest(item): item for item in self._items}
        self._sorted: dict[str, list[tuple[str, int]]] = {}

    @classmethod
    def of_last_snapshot(cls, workspace: Path, task: Task) -> KnownItems:
        """Return the items of the last snapshot; none where it is gone or damaged."""
        last = Store(workspace).latest(stages.SNAPSHOT.name)
        if last is None:
            return cls(task)
        path = workspace / last[1].outputs[stages.ITEMS.name].path
        try:
            return cls(task, [task.item.model_validate(row) for row in files.read_jsonl(path)])
        except (OSError, ItemsInvalid, ValidationError):
            return cls(task)

    def match(self, row: Mapping[str, Any]) -> Match:
        """Return the item that a row is about, as far as that is certain.

        It is the one that reads the same to a model; else the one that has the row's id, unless the
        row's text contradicts it; else the only one that the row's text begins, if that is long
        enough to tell.
        """
        named = self._by_id.get(str(row.get("id")))
        without_id = {"id": _NO_ID} if row.get("id") is None else {}
        try:
            given = self._task.item.model_validate({**row, **without_id})
        except ValidationError:
            return Match(named)  # an id alone
        if not self._items or self._task.item_digest(given) in self.by_digest:
            return Match(given)
        if named is not None and self._is_text_of(given, named):
            return Match(named)
        return self._match_by_text(given, named)

    def _match_by_text(self, given: Item, named: Item | None) -> Match:
        """Return the only item that a text begins; `named` is the one that has its id."""
        fits = self._narrowed(given, self._begun_by(given))
        if not fits:
            other = f": {named.id} has another text" if named is not None else ""
            return Match(given, "no such text", f"fits no item of the last snapshot{other}")
        if len(fits) > 1:
            names = ", ".join(item.id for item in islice(fits, _NAMED))
            more = ", …" if len(fits) > _NAMED else ""
            detail = f"its text is that of {len(fits)} items of the last snapshot: {names}{more}"
            return Match(given, "several items", detail)
        if sum(map(len, self._texts(given).values())) < _TELLING_CHARS:
            detail = (
                f"its text is too short to tell whether it is {fits[0].id} of the last snapshot"
            )
            return Match(given, "text too short", detail)
        return Match(fits[0])

    def _is_text_of(self, given: Item, known: Item) -> bool:
        """Return whether a text is that of an item, whole or cut."""
        texts = self._texts(known)
        return (
            all(texts[name].startswith(text) for name, text in self._texts(given).items())
            or self._task.text_of(given).split() == self._task.text_of(known).split()
        )

    def _begun_by(self, given: Item) -> list[Item]:
        """Return the items whose texts begin with those given."""
        name, text = max(self._texts(given).items(), key=lambda each: len(each[1]))
        if name not in self._sorted:
            told = ((self._texts(item)[name], number) for number, item in enumerate(self._items))
            self._sorted[name] = sorted(told)
        ordered = self._sorted[name]
        start = bisect_left(ordered, (text,))
        begun = takewhile(lambda each: each[0].startswith(text), islice(ordered, start, None))
        return [item for _, number in begun if self._is_text_of(given, item := self._items[number])]

    def _narrowed(self, given: Item, fits: Sequence[Item]) -> list[Item]:
        """Return one item of each reading; of several those that nothing given contradicts."""
        each = {self._task.item_digest(item): item for item in fits}
        if len(each) < 2:
            return list(each.values())
        agreeing = [item for item in each.values() if self._agree(given, item)]
        return agreeing if len(agreeing) == 1 else list(each.values())

    def _agree(self, given: Item, known: Item) -> bool:
        fields = self._task.item.model_fields.keys() - {"id"}
        values = ((str(getattr(given, name)), str(getattr(known, name))) for name in fields)
        return all(_plain(theirs).startswith(_plain(ours)) for ours, theirs in values)

    def _texts(self, item: Item) -> dict[str, str]:
        return {name: _plain(str(getattr(item, name))) for name in self._task.text_fields}


def _plain(text: str) -> str:
    """Return a text with single blanks, and without the dots of a cut."""
    return _CUT_MARK.sub("", " ".join(text.split()))
