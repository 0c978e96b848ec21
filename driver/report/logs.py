"""`driver logs`: what the stages of a run have said, and with -f what they say until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from contracts.errors import InputMissing, RunUnreadable
from driver import locks
from driver.pipeline import PIPELINE
from driver.store import Run

_POLL_S = 0.3
_TAKEN_UP = "takes it up: a stage that was at work is told from its beginning"
_DUE = {"planned", "running"}
"""The states of stages that a run has not done with: what a driver that is killed leaves."""


def show(
    workspace: Path,
    stage: str,
    run_id: str,
    *,
    follow: bool,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> None:
    """Give `say` each line of a run's logs, in the stages' order, named by stage.

    `stage` and `run_id` may be "": every stage, the last run. With `follow` it goes on until the
    run has ended, also where its driver dies and another takes it up, or where a driver at work
    begins the next one; `note` is told of that. Raises `InputMissing` for what is not there.
    """
    run = Run.named(workspace, run_id)
    names = [each.name for each in PIPELINE if stage in ("", each.name)]
    if not names or (stage and not follow and not run.log(stage).exists()):
        raise InputMissing(
            f"run {run.id} has no log of {stage}",
            why=f"it has {', '.join(_logged(run)) or 'none yet'}",
            todo="Name one of these, or none for all.",
        )
    if run_id and run.id != _newest(workspace, run).id:
        follow = False  # whatever has become of an older run, it says nothing more
    tails = [_Tail(name, run.log(name)) for name in names]
    left = ""
    while True:
        at_work = follow and locks.is_held(workspace)  # before the notes: those are written last
        end = "" if at_work and not run_id else _end(run)
        newest = run if not follow or (run_id and end) else _newest(workspace, run)
        for tail in tails:
            for line in tail.lines(to_the_end=bool(end) or not follow or newest.id != run.id):
                say(f"{tail.name}: {line}" if len(tails) > 1 else line)
        if not follow:
            return
        if newest.id != run.id:
            how = "begins" if _end(run) else _TAKEN_UP
            note(f"-- run {newest.id} {how}")
            run, tails = newest, [_Tail(name, newest.log(name)) for name in names]
        elif end:
            note(f"-- {end}")
            return
        elif not at_work and left != run.id:
            left = run.id
            note(f"-- the driver of run {run.id} has died; waiting for the next to take it up")
        else:
            time.sleep(_POLL_S)


def _newest(workspace: Path, run: Run) -> Run:
    """Return the newest run of a workspace; `run` where it has none any more."""
    return Run.last(workspace) or run


def _logged(run: Run) -> list[str]:
    return [each.name for each in PIPELINE if run.log(each.name).exists()]


def _end(run: Run) -> str:
    """Return how a run has ended, in words; "" while it goes on, or if its driver has left it."""
    try:
        noted = run.read_state()
    except RunUnreadable as error:
        return f"how run {run.id} has ended cannot be told: {error.what}"
    if noted.failure:
        return f"run {run.id} has ended: {noted.failure.what}"
    # A driver that was killed before its first note has left none.
    due = not noted.stages or any(each.state in _DUE for each in noted.stages.values())
    return f"run {run.id} has ended" if noted.ended_at or not due else ""


class _Tail:
    """Reads what has been added to a file, in whole lines."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._stream: BinaryIO | None = None
        self._pending = b""

    def lines(self, *, to_the_end: bool) -> Iterator[str]:
        """Yield the new lines; `to_the_end` takes an unfinished last one too."""
        if self._stream is None:
            if not self._path.exists():
                return
            self._stream = self._path.open("rb")
        *whole, self._pending = (self._pending + self._stream.read()).split(b"\n")
        if to_the_end and self._pending:
            whole.append(self._pending)
            self._pending = b""
        # As bytes until here: what is being written may end within a letter.
        yield from (line.decode("utf-8", errors="replace") for line in whole)
