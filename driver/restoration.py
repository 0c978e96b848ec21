"""Gives the backend's items back what they had before a reprocess: shows it, or writes it.

Only to the backend that the reprocess was of, and only what an item still holds of it: what
somebody has changed since stays, and so does what the reprocess has not asked about. Never an item
that a person has reviewed since, whatever it holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from contracts.errors import RestoreFailed
from driver.adapters.addresses import is_same_address
from driver.adapters.backend import Backend
from driver.adapters.backend_edits import ItemEdits
from driver.adapters.items import analysis_of, in_columns, with_analysis
from driver.host_stages.reanalysis import Row, another_article, is_as_left, look_at
from driver.host_stages.record import Record
from tasks import Storage

_FLAG = "is_manually_reviewed"


class Standing(StrEnum):
    """How an item stands to what was kept of it."""

    SAME = "as it was"
    DIFFERS = "differs"
    REVIEWED = "reviewed by a person since"
    CHANGED = "differs, but not as this reprocess has left it"
    GONE = "no longer in the backend, or under another title, or not readable"


@dataclass(frozen=True)
class Difference:
    """One item: what it had before, and has now, of all that differs."""

    item_id: str
    title: str
    standing: Standing
    before: Row = field(default_factory=dict)
    now: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Restored:
    """What became of a restoration."""

    items: int
    """Items that have all that can be written again."""
    problems: tuple[str, ...]
    not_written: tuple[str, ...]
    """Fields that differ and that the backend does not let be written."""


def require_same_backend(record: Record, backend: Backend, *, moved: bool) -> None:
    """Raise `RestoreFailed` for another backend than the record's, unless it has only `moved`."""
    recorded = Backend(record.about().backend).url
    if moved or is_same_address(recorded, backend.url):
        return
    raise RestoreFailed(
        f"the reprocess in {record.folder} was of {recorded}, and not of {backend.url}",
        why="an item of another backend would get an answer that it never had",
        todo="Set backend.url to that one, or name another RUN. If it is the same backend under "
        "another address: `--backend-moved`.",
    )


def earlier(workspace: Path, storage: Storage, record: Record) -> str:
    """Say which record holds what the items had still before, "" for none: they were reprocessed
    by the same model at another address, which may be the same backend's."""
    about = record.about()
    found = Record.leaving(workspace, about.model, about.backend, record.before(), storage)
    if found is None:
        return ""
    older, left = found
    return (
        f"{left} of these items held the same model's answers before, given at "
        f"{older.about().backend}; what they had before that is in {older.folder}. If that is the "
        "same backend, give these back first, then "
        f"`driver reprocess --restore {older.folder.name} --backend-moved`."
    )


def differences(backend: Backend, storage: Storage, record: Record) -> list[Difference]:
    """Compare every kept item with how the backend shows it now; changes nothing."""
    kept, given = record.before(), record.answers()
    _, shown = look_at(backend, storage, kept)
    return [_difference(storage, state, shown.get(i), given.get(i)) for i, state in kept.items()]


def _difference(storage: Storage, state: Row, now: Row | None, given: str | None) -> Difference:
    """Compare an item with what was kept of it; `given` is of `Record.answers`, None if missing."""
    item_id, title = str(state["id"]), str(state.get("title") or "")
    if now is None or another_article(state, now):
        return Difference(item_id, title, Standing.GONE)
    before, after = _values(state, storage), _values(now, storage)
    kept = {*storage.edited, *state, _analysis(storage)}  # an older driver kept no other columns
    differing = [name for name in before if name in kept and before[name] != after[name]]
    if not differing:
        return Difference(item_id, title, Standing.SAME)
    return Difference(
        item_id,
        title,
        _standing(storage, state, now, given),
        {name: before[name] for name in differing},
        {name: after[name] for name in differing},
    )


def _standing(storage: Storage, state: Row, now: Row, given: str | None) -> Standing:
    """Say how an item that differs stands to what was kept of it."""
    as_left = is_as_left(now, storage, given)
    if now.get(_FLAG) is True and not (state[_FLAG] is True and as_left):
        return Standing.REVIEWED
    # Of a request that was cut off, or answered too late, only a new analysis can be seen.
    analysed = given == "" and analysis_of(now, storage) != analysis_of(state, storage)
    return Standing.DIFFERS if as_left or analysed else Standing.CHANGED


def _values(item: Row, storage: Storage) -> Row:
    return {**in_columns(item, storage), _analysis(storage): analysis_of(item, storage)}


def _analysis(storage: Storage) -> str:
    """Return what the analysis is called among the other fields."""
    return storage.analysis[-1]


def count(found: Sequence[Difference]) -> Counter[Standing]:
    """Return how many items stand how."""
    return Counter(each.standing for each in found)


def lines(found: Sequence[Difference]) -> list[Row]:
    """Return what there is to give back, for a file: id, title, and each field before and now."""
    return [
        {"id": each.item_id, "title": each.title, "before": each.before, "now": each.now}
        for each in found
        if each.standing is Standing.DIFFERS
    ]


def writable(edits: ItemEdits | None, storage: Storage) -> set[str]:
    """Return which of the fields that a reprocess changes can be written."""
    if edits is None:
        return set()
    known = {name for name in storage.columns if name in edits.fields}
    return known | ({_analysis(storage)} if storage.analysis[0] in edits.fields else set())


def write_back(
    backend: Backend,
    storage: Storage,
    record: Record,
    found: Sequence[Difference],
    edits: ItemEdits | None,
) -> Restored:
    """Write to each item that differs what it had before, and read every field of it back.

    Each is looked at once more before. With the first that is written to, the whole reprocess
    counts as undone, and the next one asks about every item; where nothing is due it does not, as
    that would overwrite what the items have got since.

    Raises `RestoreFailed` where the backend lets nothing be written, and at the first item that
    counts as reviewed afterwards although it was not: the next ones would too, and no reprocess
    would touch them any more.
    """
    fields, given, kept = writable(edits, storage), record.answers(), record.before()
    if edits is None or not fields:
        raise RestoreFailed(
            f"{backend.url} lets no item be written, so nothing was given back",
            why="its /openapi.json names neither PATCH nor PUT /api/items/{item_id} with a field "
            "that a reprocess changes",
        )
    due = [each for each in found if each.standing is Standing.DIFFERS]
    whole, problems, noted = 0, [], False
    for each in due:
        item = backend.shown(each.item_id)
        now = _difference(storage, kept[each.item_id], item, given.get(each.item_id))
        if item is None or now.standing not in {Standing.DIFFERS, Standing.SAME}:
            problems.append(f"item {each.item_id}: {now.standing}")
            continue
        values = _only(now.before, fields)
        if values and not noted:
            record.restored()  # before the first: what was done counts as undone from here on
            noted = True
        if problem := _write(backend, storage, edits, item, values):
            problems.append(f"item {each.item_id}: {problem}")
        else:
            whole += 1
    missing = {name for each in due for name in each.before} - fields
    return Restored(whole, tuple(problems), tuple(sorted(missing)))


def require(restored: Restored) -> str:
    """Return what was done, for people; raises `RestoreFailed` where some of it was not."""
    if restored.problems:
        raise RestoreFailed(
            f"{len(restored.problems)} items have not been given back all that they had; "
            f"{restored.items} have",
            why="; ".join(restored.problems[:3]),
        )
    if not restored.items:
        return "No item has anything to get back."
    rest = f" (but not {', '.join(restored.not_written)})" if restored.not_written else ""
    return f"{restored.items} items have what they had before{rest}, as read back."


def _only(values: Mapping[str, Any], names: set[str]) -> Row:
    return {name: value for name, value in values.items() if name in names}


def _write(backend: Backend, storage: Storage, edits: ItemEdits, item: Row, values: Row) -> str:
    """Write an item's fields and read them back; return what went wrong, "" if nothing did."""
    if not values:
        return ""
    analysis = _analysis(storage)
    changed = {name: value for name, value in values.items() if name != analysis}
    if analysis in values:
        changed[storage.analysis[0]] = with_analysis(item, values[analysis], storage)
    if _FLAG in edits.fields:
        changed[_FLAG] = item.get(_FLAG) is True  # or the edit might count as a review
    if refused := edits.write(backend, item, changed):
        return refused
    after = backend.shown(str(item["id"]))
    if after is None:
        return "it cannot be read any more"
    if (after.get(_FLAG) is True) != (item.get(_FLAG) is True):
        raise RestoreFailed(
            f"item {item['id']} counts as reviewed now, because it was written to",
            why="the backend takes every edit for a review, and cannot be told otherwise",
            todo="Take the review back on its page. `--out FILE` writes down the rest.",
        )
    read = _values(after, storage)
    unchanged = [name for name, value in values.items() if read[name] != value]
    return f"written, but not changed: {', '.join(unchanged)}" if unchanged else ""
