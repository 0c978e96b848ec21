"""Ends a stage that hangs: one that says nothing for too long, or takes too long in all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contracts.errors import StageTimedOut
from contracts.stage import Event, Stage
from driver.runners.outcome import Emit, Limits

_POLL_S = 1.0


class Watchdog:
    """Watches one execution of a stage: its events, and its log."""

    def __init__(
        self, stage: Stage, limits: Limits, log: Path, end: Callable[[], str], age_s: float = 0.0
    ) -> None:
        """`end` kills the stage, from a thread of the watchdog's, and may say why it hung.

        `age_s` is how long the stage has run already, under a driver that has died.
        """
        self._stage = stage
        self._limits = limits
        self._log = log
        self._size = -1
        self._end = end
        self._last = time.monotonic()
        self._began = self._last - age_s
        self._done = threading.Event()
        self._why = ""
        self._too_slow = False

    def listening(self, emit: Emit) -> Emit:
        """Return `emit`, which counts as a sign of life from now on."""

        def heard(event: Event) -> None:
            self._last = time.monotonic()
            emit(event)

        return heard

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is inside; raises `StageTimedOut` instead of whatever the killing caused."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        except Exception as error:
            self._done.set()
            thread.join()
            if self._why:
                raise self._timed_out() from error
            raise
        finally:
            self._done.set()
        thread.join()
        if self._why:
            raise self._timed_out()

    def _watch(self) -> None:
        while not self._done.wait(_POLL_S):
            now = time.monotonic()
            with suppress(OSError):  # somebody may have removed the run's folder
                if (size := self._log.stat().st_size) != self._size:
                    self._size, self._last = size, now
            if now - self._last > self._limits.silence_s:
                self._why = f"it said nothing for {self._limits.silence_s:g} s"
            elif self._limits.whole_s is not None and now - self._began > self._limits.whole_s:
                self._why = f"it took longer than {self._limits.whole_s:g} s"
                self._too_slow = True
            if self._why:
                self._why += self._end()
                return

    def _timed_out(self) -> StageTimedOut:
        # One that hangs may not hang again; one that is too slow for its limit stays that.
        return StageTimedOut(
            f"stage {self._stage.name} was stopped", why=self._why, passing=not self._too_slow
        )
