"""`driver labels`: carry the teacher's answers out of a workspace, and into one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts import files
from contracts.errors import FileUnusable, InputMissing, ItemsInvalid
from contracts.label_cache import CACHE_FILE, Imported, LabelCache, is_attempt
from driver.known_items import KnownItems
from tasks.definition import InvalidAnswer, Item, Task

Row = dict[str, Any]

_LABEL_KEYS = ("label", "labels", "output", "answer")
"""Where the label of a row may stand; else its fields stand in the row itself."""
_ITEM_KEYS = ("item", "article", "input")
_NAMED = 5  # of each kind


@dataclass
class Import:
    """What became of the rows of an import."""

    rows: int = 0
    answers: int = 0
    """The teacher's, from an export: of items with a label, in quarantine, or still being asked."""
    labels: int = 0
    """Of other tools, valid by today's rules."""
    refused: Counter[str] = field(default_factory=Counter)
    """Rule ids, `format`, `no label`, or `unknown item`."""
    refused_rows: int = 0
    strangers: Counter[str] = field(default_factory=Counter)
    """Labels that are kept, but surely for no item of the last snapshot, by why not: nothing uses
    them."""
    examples: list[str] = field(default_factory=list)
    """The first refusals, and the first strangers of each kind, each with its place."""

    @property
    def taken(self) -> int:
        """How many rows are new in this workspace."""
        return self.answers + self.labels

    @property
    def known(self) -> int:
        """How many rows say what this workspace knew already."""
        return self.rows - self.refused_rows - self.taken

    def refuse(self, place: str, faults: Mapping[str, str]) -> None:
        """Count a row that is not taken, with what is wrong with it by kind."""
        if self.refused_rows < _NAMED:
            self.examples.append(f"{place}: {'; '.join(faults.values())}")
        self.refused_rows += 1
        self.refused.update(faults.keys())

    def keep_stranger(self, place: str, kind: str, detail: str) -> None:
        """Count a label that is for no item of the last snapshot, or not surely for one."""
        if self.strangers[kind] < _NAMED:
            self.examples.append(f"{place}: {detail}")
        self.strangers[kind] += 1


def export(workspace: Path, out: Path) -> tuple[int, int]:
    """Write the label cache as JSONL; return how many rows were written, and how many are damaged
    and left out."""
    if not out.parent.is_dir() or out.is_dir():
        raise FileUnusable(f"cannot write {out}", why="it is a folder, or its folder is not there")
    none = InputMissing(f"{workspace} keeps no labels", todo="Label first, or name another one.")
    if not (workspace / CACHE_FILE).is_file():
        raise none
    with LabelCache(workspace / CACHE_FILE) as cache:
        if not len(cache):
            raise none  # rather than empty a file that may hold an earlier export
        written = files.write_jsonl(out, cache.export())
        return written, len(cache) - written


def take(workspace: Path, task: Task, paths: Sequence[Path]) -> Import:
    """Put rows of JSONL files into the label cache: exported ones, and labels of other tools.

    A foreign row holds an item and its label: side by side (`{"id": …, "title": …, "label": {…}}`),
    or in one object. `KnownItems.match` says which item of the last snapshot it is for. A label
    that fits none is kept for a later snapshot, and counted. Only an answer that is whole and keeps
    the task's rules is taken. Raises `ItemsInvalid` for a row that is no JSON object, and for
    files without any, before anything is written.
    """
    found, exported, imported = Import(), [], []
    known = KnownItems.of_last_snapshot(workspace, task)
    for path in paths:
        for place, row in files.read_placed_jsonl(path):
            found.rows += 1
            if _is_exported(row):
                if "key" in row or _is_label(task, row, known, place, found):
                    exported.append(row)
            elif (each := _foreign(task, row, known, place, found)) is not None:
                imported.append(each)
    if not found.rows:
        raise ItemsInvalid(f"{', '.join(map(str, paths))} holds no rows")
    with LabelCache(workspace / CACHE_FILE) as cache:
        found.answers = cache.put_exported(row for row in exported if "key" in row)
        found.labels = cache.put_exported(row for row in exported if "key" not in row)
        found.labels += cache.put_imported(imported)
    return found


def _is_exported(row: Row) -> bool:
    if row.keys() == {"key", "attempts"}:
        attempts = row["attempts"]
        return isinstance(attempts, list) and bool(attempts) and all(map(is_attempt, attempts))
    return row.keys() == set(Imported._fields) and all(isinstance(v, str) for v in row.values())


def _is_label(task: Task, row: Row, known: KnownItems, place: str, found: Import) -> bool:
    """Return whether an exported label is one; without its item only its form can be judged."""
    item = known.by_digest.get(row["item"])
    if _judged(task, item, row["answer"], place, found) is None:
        return False
    if known.by_digest and item is None:
        found.keep_stranger(place, "no such text", "fits no item of the last snapshot")
    return True


def _judged(task: Task, item: Item | None, text: str, place: str, found: Import) -> str | None:
    """Return a label as the task writes it; None for one that is refused."""
    try:
        output = task.parse(text)
    except InvalidAnswer as error:
        found.refuse(place, {"format": str(error)})
        return None
    violations = task.check(item, output) if item is not None else []
    broken = {v.rule: v.message for v in violations if v.severity == "error"}
    if broken:
        found.refuse(place, broken)
        return None
    return task.answer_text(output)


def _foreign(task: Task, row: Row, known: KnownItems, place: str, found: Import) -> Imported | None:
    if row.keys() == {"key", "attempts"}:
        found.refuse(place, {"format": "its attempts are not as `labels export` writes them"})
        return None
    inner = next((row[key] for key in _ITEM_KEYS if isinstance(row.get(key), dict)), row)
    match = known.match(inner)
    if match.item is None:
        found.refuse(place, {"unknown item": "neither an item nor the id of a known one"})
        return None
    label = next((row[key] for key in _LABEL_KEYS if row.get(key) is not None), None)
    if label is None:
        label = {name: row[name] for name in task.output.model_fields if name in row}
    if not label:
        found.refuse(place, {"no label": "it holds no label"})
        return None
    text = label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
    answer = _judged(task, match.item, text, place, found)
    if answer is None:
        return None
    if match.stranger:
        found.keep_stranger(place, match.stranger, match.detail)
    return Imported(task.item_digest(match.item), answer, place.rpartition("/")[2])
