"""Times at which the backend, or the serving engine behind it, is away: waited for, not counted.

An item that could not be analysed because Ollama was restarted is no failed item. For the backend
it is: it stores an empty answer and calls that done. So after an item without an answer it is asked
whether it reaches its engine.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from contracts.errors import BackendUnavailable, EngineUnavailable
from driver.adapters.backend import Backend
from driver.host_stages.telling import say

_POLL_S = 0.5
_TODO = "Bring it back, then run again: what is done stays done (`driver reprocess --status`)."


class Stopped(Exception):
    """The work is ending: whoever waits shall wait no more."""


class Outage:
    """Waits for the backend on behalf of several threads; the first one asks, the others wait.

    `objection` returns why the work cannot go on although the backend answers, None if it can; it
    raises `BackendUnavailable` where it does not answer.
    """

    def __init__(
        self,
        backend: Backend,
        patience_s: float,
        objection: Callable[[], BackendUnavailable | None],
    ) -> None:
        self._backend = backend
        self._patience_s = patience_s
        self._objection = objection
        self._asking = threading.Lock()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let every wait end."""
        self._stop.set()

    def pause(self, seconds: float) -> None:
        """Sleep; raises `Stopped` when the work is ending."""
        if self._stop.wait(seconds):
            raise Stopped

    def ready(self) -> None:
        """Return when the backend answers and there is no objection; raises what keeps it."""
        try:
            objection = self._objection()
        except BackendUnavailable as error:
            self.sit_out(error)
            return
        if objection:
            raise objection

    def sit_out(self, error: BackendUnavailable) -> None:
        """Return when the backend is healthy again; raises `BackendUnavailable` if it is not in
        time, or has come back as one that objects. `error` is how it was found to be away."""
        deadline = time.monotonic() + self._patience_s
        with self._asking:
            self.pause(0)
            if not self._backend.healthy():
                say(f"{error.what}; waiting for it, up to {self._patience_s:.0f} s")
            while True:
                self._wait_healthy(deadline, error)
                with contextlib.suppress(BackendUnavailable):  # gone again
                    if objection := self._objection():
                        break
                    return
        raise objection

    def _wait_healthy(self, deadline: float, error: BackendUnavailable) -> None:
        left_s = max(deadline - time.monotonic(), 0)
        try:
            self._backend.wait_healthy(
                timeout_s=left_s, pause_s=_POLL_S, meanwhile=lambda: self.pause(0)
            )
        except BackendUnavailable as late:
            raise BackendUnavailable(
                f"the backend {self._backend.url} did not come back within "
                f"{self._patience_s:.0f} s",
                why=f"{error.why}; {late.why}",
                todo=_TODO,
            ) from error

    def sit_out_engine(self) -> bool:
        """Return whether the backend's engine was away, when it is there again.

        Raises `EngineUnavailable` if it is not in time.
        """
        with self._asking:
            if objection := self._objection():  # switched off, say: that does not pass
                raise objection
            if self._engine_there():
                return False
            say(f"the backend does not reach Ollama; waiting up to {self._patience_s:.0f} s")
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
