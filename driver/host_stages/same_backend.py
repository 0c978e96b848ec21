"""Whether a backend is the one that a record is of: told by what its items hold.

Its address says little. A backend gets another one, and at the same there may be another database
by now, or an older state of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from contracts.errors import FileUnusable, InputMissing, SettingsInvalid, without_userinfo
from driver.adapters.addresses import is_same_address
from driver.adapters.backend import Backend
from driver.host_stages.reanalysis import (
    Outcome,
    Row,
    another_article,
    answer_digest,
    is_as_left,
    look_at,
)
from driver.host_stages.record import Record
from tasks import Storage


def note_move(workspace: Path, backend: Backend, storage: Storage) -> str:
    """Note in the newest record, and in each at the same address, where their backend is now.

    Returns what was noted, in words. Raises `InputMissing` where there is no record, and
    `SettingsInvalid` where fewer than half of the newest one's items hold what it has left them
    with, or what they had before: then it is another backend, and nothing is noted.
    """
    known = Record.by_last_run(workspace)
    if not known:
        raise InputMissing(
            f"no reprocess, and no verification, is recorded in {workspace}",
            todo="Check the workspace (-w). `driver reprocess` without --backend-moved begins one.",
        )
    old, new = known[0].about().backend, without_userinfo(backend.url)
    if is_same_address(old, new):
        return f"the newest record is of {new} already: nothing to note"
    _require_its_items(known[0], backend, storage)
    for record in reversed(known):  # the newest last: after a kill the same call goes on
        with suppress(FileUnusable):  # it is in nobody's way
            if is_same_address(record.about().backend, old):
                record.move(backend.url)
    return f"noted: the backend is now at {new} (was {old})"


def _require_its_items(record: Record, backend: Backend, storage: Storage) -> None:
    before, given = record.before(), record.answers()
    known = {i: {answer_digest(state, storage)} for i, state in before.items()}
    known |= {i: {*known.get(i, ()), answer} for i, answer in given.items()}
    _, shown = look_at(backend, storage, known)
    held, of = _held(known, before, shown, storage)
    if 2 * held < of or (known and not held):
        raise SettingsInvalid(
            f"the backend at {backend.url} is not the one that was at {record.about().backend}",
            why=f"{held} of the {len(known)} items in {record.folder} hold there what was noted "
            "of them",
            todo="Correct backend.url. If that is meant to be another backend: without "
            "--backend-moved, `driver reprocess` asks about each of its items.",
        )


def doubts(record: Record, storage: Storage, shown: Mapping[str, Row], ids: Collection[str]) -> str:
    """Return in words that fewer than half of the items that are done, of those with these `ids`,
    hold what they were left with; "" where more do.

    `shown` is how the backend shows them, by id. Else its database is another one, or an older
    state of it: they are not done there.
    """
    last = {line["id"]: line["outcome"] for line in record.lines() if "outcome" in line}
    done = {i for i, outcome in last.items() if outcome == Outcome.PROCESSED and i in ids}
    known = {i: {answer} for i, answer in record.answers().items() if answer and i in done}
    held, of = _held(known, record.before(), shown, storage)
    if 2 * held >= of:
        return ""
    return (
        f"{of - held} of {of} items no longer hold the answers of this reprocess, or are gone, "
        "although it counts them as done: the backend has another database by now, or an older "
        "state of it, unless they were all edited. If they are to get the model's answers: move "
        f"{record.folder} out of {record.folder.parent}, and call `driver reprocess` again; it "
        "asks about each of them, and what they hold now then counts as what they had before."
    )


def doubts_of_newest(workspace: Path, backend: Backend, storage: Storage) -> str:
    """Return the `doubts` about a finished reprocess, which asks the backend for its items."""
    newest = next(iter(Record.by_last_run(workspace)), None)
    if newest is None:
        return ""
    ids = newest.answers().keys()
    _, shown = look_at(backend, storage, ids)
    return doubts(newest, storage, shown, ids)


def _held(
    known: Mapping[str, Collection[str]],
    before: Mapping[str, Row],
    shown: Mapping[str, Row],
    storage: Storage,
) -> tuple[int, int]:
    """Return how many items hold one of the answers known of them, by digest, and of how many.

    With "" among them it may be any: of a request that was cut off. One that is gone, or another
    article by now, holds none; one that has a person's review instead says nothing.
    """
    held = of = 0
    for item_id, answers in known.items():
        item = shown.get(item_id)
        if item is not None and another_article(before.get(item_id, {}), item):
            item = None
        if item is not None and ("" in answers or _holds(item, storage, answers)):
            held += 1
        elif item is not None and item.get("is_manually_reviewed") is True:
            continue
        of += 1
    return held, of


def _holds(item: Row, storage: Storage, answers: Collection[str]) -> bool:
    return any(is_as_left(item, storage, each) for each in answers)
