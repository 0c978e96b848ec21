"""Times at which the backend, or the serving engine behind it, is away: waited for, not counted.

An item that could not be analysed because Ollama was restarted is no failed item. For the backend
it is: it stores no priority and calls that done. So after an item without an answer it is asked
whether it reaches its engine.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from contracts.errors import BackendUnavailable, EngineUnavailable
from driver.adapters.backend import Backend

_POLL_S = 0.5
_TODO = "Bring it back, then run again: what is done stays done (`driver reprocess --status`)."


class Stopped(Exception):
    """The work is ending: whoever waits shall wait no more."""


class Outage:
    """Waits for the backend on behalf of several threads; the first one asks, the others wait.

    `check` is called when something has come back, and raises what keeps the work from going on.
    """

    def __init__(self, backend: Backend, patience_s: float, check: Callable[[], None]) -> None:
        self._backend = backend
        self._patience_s = patience_s
        self._check = check
        self._asking = threading.Lock()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let every wait end."""
        self._stop.set()

    def pause(self, seconds: float) -> None:
        """Sleep; raises `Stopped` when the work is ending."""
        if self._stop.wait(seconds):
            raise Stopped

    def sit_out(self, error: BackendUnavailable) -> None:
        """Return when the backend is healthy again; raises `BackendUnavailable` if it is not in
        time. `error` is how it was found to be away."""
        with self._asking:
            self.pause(0)
            if not self._backend.healthy():
                _say(f"{error.what}; waiting for it, up to {self._patience_s:.0f} s")
            try:
                self._backend.wait_healthy(
                    timeout_s=self._patience_s, pause_s=_POLL_S, meanwhile=lambda: self.pause(0)
                )
            except BackendUnavailable as late:
                raise BackendUnavailable(
                    late.what, why=f"{error.why}; {late.why}", todo=_TODO
                ) from error
            self._check()

    def sit_out_engine(self) -> bool:
        """Return whether the backend's engine was away, when it is there again.

        Raises `EngineUnavailable` if it is not in time.
        """
        with self._asking:
            self._check()  # switched off, or asked for another model: that does not pass
            if self._engine_there():
                return False
            _say(f"the backend does not reach Ollama; waiting up to {self._patience_s:.0f} s")
            deadline = time.monotonic() + self._patience_s
            while not self._engine_there():
                if time.monotonic() > deadline:
                    raise EngineUnavailable(
                        f"{self._backend.url} has not reached Ollama for {self._patience_s:.0f} s",
                        why="its /api/admin/health says llm_available: false",
                        todo=_TODO,
                    )
                self.pause(_POLL_S)
        return True

    def _engine_there(self) -> bool:
        return self._backend.admin_health().llm_available


def _say(line: str) -> None:
    print(line, file=sys.stderr)
