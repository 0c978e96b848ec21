"""Signals: the first one ends the run in order, the second one at once.

In order means: the stage is stopped, the service brought back, all that is done kept. A signal
that comes while the service is being brought back waits for that. A hang-up is never the second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from contracts.errors import Interrupted

# A lost ssh session is no reason for an outage: SIGHUP ends a run as Ctrl-C does.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Turns the first signal into KeyboardInterrupt; one for the process."""

    def __init__(self) -> None:
        self._received = 0
        self._shields = 0
        self._quiet = False

    def install(self) -> None:
        """Take over the signals that end a process; under nohup(1), a hang-up stays ignored."""
        for number in _ENDING:
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            signal.signal(number, self._handle)

    def be_quiet(self) -> None:
        """Say nothing when a signal comes: for a command that only looks, and stops nothing."""
        self._quiet = True

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold the first signal back until what is inside is done."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if self._received and not self._shields and sys.exc_info()[0] is None:
                raise KeyboardInterrupt

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self._received:
            # One lost terminal hangs up twice: its shell does, and the kernel once that is gone.
            # Nobody has asked for haste.
            return
        self._received += 1
        if self._received > 1:
            # Not an exception: whatever hangs must not be asked first. What is stopped is on the
            # record, a container runs on, and a process of ours dies with us.
            self._say(b"\nstopped at once; `python -m driver recover` brings the service back\n")
            os._exit(Interrupted.exit_code)
        self._say(b"\nending in order, and bringing the service back; again: at once\n")
        if not self._shields:
            raise KeyboardInterrupt

    def _say(self, text: bytes) -> None:
        """Write to stderr, from a handler; a terminal that was lost is no reason to fail."""
        if not self._quiet:
            with suppress(OSError):
                os.write(2, text)


SIGNALS = Signals()
