"""`driver labels`: carry the teacher's answers out of a workspace, and into one."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contracts import files
from contracts.errors import FileUnusable, InputMissing, ItemsInvalid
from contracts.label_cache import (
    CACHE_FILE,
    DEFINITION,
    DERIVED,
    Imported,
    LabelCache,
    is_attempt,
)
from driver.known_items import KnownItems
from tasks.definition import InvalidAnswer, Item, Task

Row = dict[str, Any]

_LABEL_KEYS = ("label", "labels", "output", "answer")
"""Where the label of a row may stand; else its fields stand in the row itself."""
_ITEM_KEYS = ("item", "article", "input")
_CONTRADICTION = "contradiction"
_NAMED = 5  # of each kind
_PLACES = 4  # of one contradiction


@dataclass
class Import:
    """What became of the rows of an import."""

    rows: int = 0
    answers: int = 0
    """The teacher's, from an export: of items with a label, in quarantine, or still being asked."""
    labels: int = 0
    """Of other tools, valid by today's rules."""
    refused: Counter[str] = field(default_factory=Counter)
    """Rule ids, `format`, `no label`, `unknown item`, or `contradiction`."""
    refused_rows: int = 0
    contradictions: int = 0
    """Items with different labels in one import; all their rows are refused."""
    strangers: Counter[str] = field(default_factory=Counter)
    """Labels that are kept, but surely for no item of the last snapshot, by why not: nothing uses
    them."""
    examples: list[str] = field(default_factory=list)
    """The first refusals, contradictions, and strangers of each kind, each with its place."""

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

    def refuse_contradiction(self, places: Sequence[str]) -> None:
        """Count rows that give one item different labels: nobody knows which one is meant."""
        if self.contradictions < _NAMED:
            named = ", ".join(places[:_PLACES]) + (", …" if len(places) > _PLACES else "")
            self.examples.append(f"{named}: different labels for one item; none is taken")
        self.contradictions += 1
        self.refused_rows += len(places)
        self.refused[_CONTRADICTION] += len(places)

    def keep_stranger(self, place: str, kind: str, detail: str) -> None:
        """Count a label that is for no item of the last snapshot, or not surely for one."""
        if self.strangers[kind] < _NAMED:
            self.examples.append(f"{place}: {detail}")
        self.strangers[kind] += 1


@dataclass(frozen=True)
class _Label:
    """A label that keeps the rules, and whether it is for an item of the last snapshot."""

    place: str
    row: Imported
    answer: str
    """The row's as the task writes it, so that what says the same is the same."""
    is_exported: bool = False
    stranger: str = ""
    detail: str = ""


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
    the task's rules is taken, and none for an item that gets different ones. Raises `ItemsInvalid`
    for a row that is no JSON object, and for files without any, before anything is written.
    """
    found = Import()
    answers: list[Row] = []
    given: list[_Label] = []
    known = KnownItems.of_last_snapshot(workspace, task)
    for path in paths:
        for place, row in files.read_placed_jsonl(path):
            found.rows += 1
            is_exported = _is_exported(row)
            if is_exported and row.keys() != set(Imported._fields):
                answers.append(row)
                continue
            read = _exported if is_exported else _foreign
            if (label := read(task, row, known, place, found)) is not None:
                given.append(label)
    if not found.rows:
        raise ItemsInvalid(f"{', '.join(map(str, paths))} holds no rows")
    labels = list(_agreeing(given, found))
    exported = [each.row._asdict() for each in labels if each.is_exported]
    with LabelCache(workspace / CACHE_FILE) as cache:
        found.answers = cache.put_exported(answers)
        found.labels = cache.put_exported(exported)
        found.labels += cache.put_imported(each.row for each in labels if not each.is_exported)
    return found


def _agreeing(given: Iterable[_Label], found: Import) -> Iterator[_Label]:
    """Yield one label for each item; none where they differ, since no row says which one counts."""
    by_item: dict[str, list[_Label]] = defaultdict(list)
    for each in given:
        by_item[each.row.item].append(each)
    for those in by_item.values():
        if len({each.answer for each in those}) > 1:
            found.refuse_contradiction([each.place for each in those])
            continue
        for each in those:
            if each.stranger:
                found.keep_stranger(each.place, each.stranger, each.detail)
        yield those[0]


def _is_exported(row: Row) -> bool:
    if row.keys() == {"key", "attempts"}:
        attempts = row["attempts"]
        return isinstance(attempts, list) and bool(attempts) and all(map(is_attempt, attempts))
    kinds = ({*Imported._fields}, {*DEFINITION}, {*DERIVED})
    return row.keys() in kinds and all(isinstance(v, str) for v in row.values())


def _exported(task: Task, row: Row, known: KnownItems, place: str, found: Import) -> _Label | None:
    """Return an exported label as it is; without its item only its form can be judged."""
    item = known.by_digest.get(row["item"])
    answer = _judged(task, item, row["answer"], place, found)
    if answer is None:
        return None
    label = _Label(place, Imported(**row), answer, is_exported=True)
    if known.by_digest and item is None:
        why = "fits no item of the last snapshot"
        return replace(label, stranger="no such text", detail=why)
    return label


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


def _foreign(task: Task, row: Row, known: KnownItems, place: str, found: Import) -> _Label | None:
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
    imported = Imported(task.item_digest(match.item), answer, place.rpartition("/")[2])
    return _Label(place, imported, answer, stranger=match.stranger, detail=match.detail)
