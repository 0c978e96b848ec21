"""The items that a verification has asked about, analysed once more by the model that is back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import FileUnusable, TaskInvalid
from driver import recent, restoration
from driver.adapters import backend_edits
from driver.adapters.backend import Backend, ItemUnavailable
from driver.adapters.items import storage_of
from driver.host_stages import answers, reanalysis, reprocess
from driver.host_stages.canaries import Witness, kept_items
from driver.host_stages.reanalysis import Outcome, Row, Seen
from driver.host_stages.record import Record as Kept
from serving.engine import Engine, Model
from tasks import InvalidAnswer, Storage, Task, UnknownTask, load_task

if TYPE_CHECKING:
    from driver.verification import Record

_HEALTHY_S = 60.0
_SHOWN = 12  # digits of a digest


def answer(
    root: Path, engine: Engine, record: Record, live: Model, say: Callable[[str], None]
) -> None:
    """Have the items that were asked analysed by the model that is live now; `say` is told which
    were not, and how they get back what they held before.

    Raises `BackendUnavailable` where the backend does not answer, or asks another model.
    """
    backend = Backend(record.backend)
    backend.wait_healthy(needed=1, timeout_s=_HEALTHY_S)
    reprocess.check(record.backend, record.alias)
    path = root / record.canaries
    rows = kept_items(path, say)
    told = f"The backend is healthy and asks {record.alias} (digest {live.digest[:_SHOWN]})."
    task = task_of(root, record)
    if rows and task is None:
        told += (
            f" The {len(rows)} items of the verification were NOT analysed again, since their "
            "task is not known: `driver reprocess` does it. What they held before is in "
            f"{path}."
        )
    elif rows and task is not None:
        kept = _kept(root, say)
        with Witness(engine) as witness:
            seen = {r["id"]: _analysed(backend, task, r, record.timeout_s, kept) for r in rows}
        if engine.name == "ollama" and live.digest not in witness.tags:
            say(f"{record.alias} was not seen at work in the engine: see whom the backend asks.")
        told += f" {_told(record.alias, seen, say)}{_former(backend, storage_of(task), kept, path)}"
    say(told)


def task_of(root: Path, record: Record) -> Task | None:
    """Return the task of the items; of a record by an older driver, that of the last run."""
    name = record.task or str(recent.settings(root).get("task", ""))
    try:
        return load_task(name) if name else None
    except (UnknownTask, TaskInvalid):  # taken out of the tasks since, or broken
        return None


def _kept(root: Path, say: Callable[[str], None]) -> Kept | None:
    """Return where the verification has kept what its items held, for `reprocess --restore`.

    The last run is its own. None of an older driver; and of a damaged one, which `say` is told:
    the items get their answers all the same.
    """
    try:
        last = next(iter(Kept.by_last_run(root)), None)
        return last if last and last.about().canaries else None
    except FileUnusable as error:
        say(f"the items cannot be given back what they held before: {error}")
        return None


def _analysed(backend: Backend, task: Task, row: Row, timeout_s: float, kept: Kept | None) -> Seen:
    """Have one item analysed, and note what it holds by it: only that is given back.

    It has failed, too, where no valid answer is stored.
    """
    before: Row = {}
    with suppress(ItemUnavailable):
        before = backend.item(row["id"])
    seen = reanalysis.reprocess(backend, storage_of(task), row, timeout_s)
    if kept and row["id"] in kept.about().canaries:
        kept.leave(row["id"], seen.answer)
    if seen.outcome is Outcome.PROCESSED:
        try:
            answers.stored(task, before, backend.item(row["id"]))
        except (InvalidAnswer, ItemUnavailable) as error:
            return replace(seen, outcome=Outcome.FAILED, reason=str(error))
    return seen


def _former(backend: Backend, storage: Storage, kept: Kept | None, path: Path) -> str:
    """Say how the items get back what they held before, as the end of a sentence."""
    if not restoration.writable(backend_edits.find(backend), storage):
        return f", since it offers no way to write their old fields back: those are in {path}."
    if kept is None:
        return f". What they held before is in {path}."
    run = max(kept.about().runs, default="")
    return (
        f". `driver reprocess --restore {run} --yes` writes back what they held before, which is "
        f"in {path}."
    )


def _told(alias: str, seen: Mapping[str, Seen], say: Callable[[str], None]) -> str:
    """Say what became of the items: how many were analysed, and each that was not."""
    without = {
        Outcome.FAILED: f"has no valid answer of {alias} yet",
        Outcome.NOT_THERE: "is not in the backend any more",
        Outcome.LEFT_OUT: "was reviewed by a person, and stays as it is",
    }
    for item_id, each in seen.items():
        if each.outcome in without:
            reason = f": {each.reason}" if each.reason else ""
            say(f"item {item_id} {without[each.outcome]}{reason}")
    done = sum(each.outcome is Outcome.PROCESSED for each in seen.values())
    return f"It has analysed {done} of the {len(seen)} items of the verification again"
