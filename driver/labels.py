"""`driver labels`: carry the teacher's answers out of a workspace, and into one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contracts import files, stages
from contracts.errors import FileUnusable, InputMissing, ItemsInvalid
from contracts.label_cache import CACHE_FILE, Imported, LabelCache, is_attempt
from driver.store import Store
from tasks.definition import InvalidAnswer, Item, Task

Row = dict[str, Any]

_LABEL_KEYS = ("label", "labels", "output", "answer")
"""Where the label of a row may stand; else its fields stand in the row itself."""
_ITEM_KEYS = ("item", "article", "input")
_NAMED = 5


@dataclass
class Import:
    """What became of the rows of an import."""

    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Rule ids, `format`, or `unknown item`."""
    examples: list[str] = field(default_factory=list)
    """The first refusals, each with its place."""

    def refuse(self, kind: str, place: str, why: str) -> None:
        """Count a row that is not taken."""
        self.refused[kind] += 1
        if len(self.examples) < _NAMED:
            self.examples.append(f"{place}: {why}")


def export(workspace: Path, out: Path) -> int:
    """Write the label cache as JSONL and return the number of rows."""
    if not out.parent.is_dir() or out.is_dir():
        raise FileUnusable(f"cannot write {out}", why="it is a folder, or its folder is not there")
    if not (workspace / CACHE_FILE).is_file():
        raise InputMissing(f"{workspace} keeps no labels", todo="Label first, or name another one.")
    with LabelCache(workspace / CACHE_FILE) as cache:
        return files.write_jsonl(out, cache.export())


def take(workspace: Path, task: Task, paths: Sequence[Path]) -> Import:
    """Put rows of JSONL files into the label cache: exported ones, and labels of other tools.

    A foreign row holds an item and its label: side by side (`{"id": …, "title": …, "label": {…}}`),
    or in one object; without the item's text its id must be among the last snapshot's items. Only
    an answer that is whole and keeps the task's rules is taken. A row that is no JSON object raises
    `ItemsInvalid`, before anything is written.
    """
    found, exported, imported = Import(), [], []
    known = _known_items(workspace, task)
    for path in paths:
        for place, row in _rows(path):
            if _is_exported(row):
                exported.append(row)
            elif (each := _foreign(task, row, known, place, found)) is not None:
                imported.append(each)
    with LabelCache(workspace / CACHE_FILE) as cache:
        found.taken = cache.put_exported(exported) + len(imported)
        cache.put_imported(imported)
    return found


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        for number, row in enumerate(files.read_jsonl(path), 1):
            yield f"{path}, line {number}", row
    except OSError as error:
        raise ItemsInvalid(f"{path} cannot be read", why=str(error)) from error


def _is_exported(row: Row) -> bool:
    if row.keys() == {"key", "attempts"}:
        attempts = row["attempts"]
        return isinstance(attempts, list) and all(map(is_attempt, attempts))
    return row.keys() == set(Imported._fields) and all(isinstance(v, str) for v in row.values())


def _foreign(
    task: Task, row: Row, known: dict[str, Item], place: str, found: Import
) -> Imported | None:
    item = _item(task, row, known)
    if item is None:
        found.refuse("unknown item", place, "neither an item nor the id of a known one")
        return None
    label = next((row[key] for key in _LABEL_KEYS if key in row), None)
    if label is None:
        label = {name: row[name] for name in task.output.model_fields if name in row}
    text = label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
    try:
        output = task.parse(text)
    except InvalidAnswer as error:
        found.refuse("format", place, str(error))
        return None
    broken = [v for v in task.check(item, output) if v.severity == "error"]
    for violation in broken:
        found.refuse(violation.rule, place, violation.message)
    if broken:
        return None
    source = place.rpartition("/")[2]
    return Imported(task.item_digest(item), task.answer_text(output), source)


def _item(task: Task, row: Row, known: dict[str, Item]) -> Item | None:
    inner = next((row[key] for key in _ITEM_KEYS if isinstance(row.get(key), dict)), row)
    try:
        return task.item.model_validate(inner)
    except ValidationError:
        return known.get(str(inner.get("id")))


def _known_items(workspace: Path, task: Task) -> dict[str, Item]:
    """Return the items of the last snapshot, by id."""
    last = Store(workspace).latest(stages.SNAPSHOT.name)
    if last is None:
        return {}
    path = workspace / last[1].outputs[stages.ITEMS.name].path
    items = (task.item.model_validate(row) for row in files.read_jsonl(path))
    return {item.id: item for item in items}
