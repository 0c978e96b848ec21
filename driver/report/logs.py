"""`driver logs`: what the stages of a run have said, and with -f what they say now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from contracts.errors import InputMissing
from driver import locks
from driver.pipeline import PIPELINE
from driver.store import Run

_POLL_S = 0.3


def show(
    workspace: Path, stage: str, run_id: str, *, follow: bool, say: Callable[[str], None]
) -> None:
    """Give `say` each line of a run's logs, in the stages' order, named by stage.

    `stage` and `run_id` may be "": every stage, the last run. With `follow` it goes on until no
    driver is at work in the workspace any more, also to the run that a driver begins meanwhile.
    Raises `InputMissing` for what is not there.
    """
    run = Run.named(workspace, run_id)
    names = [each.name for each in PIPELINE if stage in ("", each.name)]
    if not names or (stage and not follow and not run.log(stage).exists()):
        raise InputMissing(
            f"run {run.id} has no log of {stage}",
            why=f"it has {', '.join(_logged(run)) or 'none yet'}",
            todo="Name one of these, or none for all.",
        )
    tails = [_Tail(name, run.log(name)) for name in names]
    while True:
        last_round = not follow or not locks.is_held(workspace)
        newest = (Run.last(workspace) if follow and not run_id else None) or run
        for tail in tails:
            for line in tail.lines(to_the_end=last_round or newest.id != run.id):
                say(f"{tail.name}: {line}" if len(tails) > 1 else line)
        if newest.id != run.id:
            run, tails = newest, [_Tail(name, newest.log(name)) for name in names]
        elif last_round:
            return
        else:
            time.sleep(_POLL_S)


def _logged(run: Run) -> list[str]:
    return [each.name for each in PIPELINE if run.log(each.name).exists()]


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
