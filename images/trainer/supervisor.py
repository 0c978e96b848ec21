"""Runs several processes as one: they end together, whatever happens to any of them or to this one.

torchrun is not used, since it puts its workers into sessions of their own: killed, it leaves them
behind, on the GPU and at work in the stage's folder. Here the kernel ends them with their parent.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pydantic import ValidationError

from contracts.entrypoint import Emit
from contracts.errors import StageFailed, StageKilled, error_for
from contracts.orphans import die_with
from contracts.stage import Event

_GRACE_S = 3.0
"""How long the others may go on after one has failed: of several that fail at once, or of one
another, the one with a reason is wanted."""
_POLL_S = 0.2


def supervise(
    command: Sequence[str], environments: Sequence[Mapping[str, str]], emit: Emit
) -> None:
    """Run a process for each environment to its end; raise the failure of the first that fails.

    The first one's events are passed on; what any of them writes to stderr goes to stderr, with
    its number. However this ends, by an exception or a kill too, no process is left.
    """
    ranks: list[_Rank] = []
    try:
        for number, environ in enumerate(environments):
            ranks.append(_Rank(number, _start(command, environ), emit))
        failed = _listen(ranks)
    finally:
        for each in ranks:
            each.process.kill()
            with each.process:
                pass  # waits for its end, and closes the pipes
    if failed:
        _raise(min(failed, key=_rank_of_reason), len(ranks))


@dataclass(eq=False)
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    emit: Emit
    told: dict[str, str] | None = None
    """The error that it named itself."""
    last: deque[str] = field(default_factory=lambda: deque(maxlen=3))

    def heard(self, line: str) -> None:
        """Take a line of its stdout: an event."""
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            self.said(line)
            return
        if event.error is not None:
            self.told = event.error
        elif self.number == 0:
            self.emit(event)

    def said(self, line: str) -> None:
        """Take a line of its stderr."""
        self.last.append(line)
        sys.stderr.write(f"[rank {self.number}] {line}\n")
        sys.stderr.flush()


def _start(command: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a rank in this process group: who ends a stage by its group ends its ranks."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509  # two system calls
    )


def _listen(ranks: Sequence[_Rank]) -> list[_Rank]:
    """Read what the ranks write until all have ended; return those that failed, in order.

    After a failure, and after the end (a grandchild may hold a pipe open), only for a while.
    """
    failed: list[_Rank] = []
    deadline = float("inf")
    with selectors.DefaultSelector() as selector:
        for each in ranks:
            assert each.process.stdout is not None  # noqa: S101  # PIPE was asked for
            assert each.process.stderr is not None  # noqa: S101
            selector.register(each.process.stdout, selectors.EVENT_READ, _Lines(each.heard))
            selector.register(each.process.stderr, selectors.EVENT_READ, _Lines(each.said))
        running = list(ranks)
        while (running or selector.get_map()) and time.monotonic() < deadline:
            for key, _ in selector.select(_POLL_S):
                chunk = os.read(key.fd, 1 << 16)
                key.data.take(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
            ended = [each for each in running if each.process.poll() is not None]
            failed += [each for each in ended if each.process.returncode]
            running = [each for each in running if each not in ended]
            if deadline == float("inf") and (failed or not running):
                deadline = time.monotonic() + _GRACE_S
    return failed


class _Lines:
    """Makes lines of what comes in pieces; an empty piece is the end."""

    def __init__(self, take_line: Callable[[str], None]) -> None:
        self._take_line = take_line
        self._rest = b""

    def take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if not chunk and self._rest:
            lines, self._rest = [self._rest], b""
        for line in lines:
            if line.strip():
                self._take_line(line.decode(errors="replace"))


def _rank_of_reason(failed: _Rank) -> int:
    """Say how good a reason is: one that was named, a signal, and any other end.

    A rank whose neighbour is gone ends with a broken connection, which explains nothing.
    """
    if failed.told is not None:
        return 0
    return 1 if failed.process.returncode < 0 else 2


def _raise(failed: _Rank, size: int) -> None:
    name = f"rank {failed.number} of {size}"
    code = failed.process.returncode
    if failed.told is not None:
        raise error_for(code)(
            f"{name}: {failed.told['what']}", why=failed.told["why"], todo=failed.told["todo"]
        )
    if code < 0:
        raise StageKilled(
            f"{name} was killed, and the others were ended with it",
            why=f"from outside, by {signal.Signals(-code).name}",
        )
    raise StageFailed(f"{name} failed with exit code {code}", why=" | ".join(failed.last))
