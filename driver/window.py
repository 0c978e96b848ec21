"""The service window: what is stopped for the GPU, and gets restored whatever happens.

The record of what is about to be stopped is on the disk before anything is stopped, and goes only
when the backend is healthy again. So a driver that is killed in between leaves all that the next
start, or `driver recover`, needs: nothing but the workspace.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from contracts import files
from contracts.errors import BackendUnavailable, WindowOpen
from contracts.stage import Frozen
from driver.settings import BackendSettings

if TYPE_CHECKING:  # the Docker SDK takes 0.2 s to import
    from driver.runners.docker import ContainerHost

_CLEAN_EXITS = (0, 143)
"""0, and 128 + SIGTERM for a program without a handler of its own."""


class Record(Frozen):
    """What was running before: enough to bring it back."""

    backend: BackendSettings
    container_id: str
    restarts: int
    opened_at: float
    """Seconds since the epoch: the outage may outlive this process."""


class Window:
    """Opens at the first GPU stage that really runs, closes after the last."""

    def __init__(self, workspace: Path, backend: BackendSettings | None) -> None:
        self._path = workspace / "window.json"
        self._backend = backend
        self.warnings: list[str] = []
        self.away_s = 0.0
        """How long the backend has been away in this process's windows."""

    @property
    def is_open(self) -> bool:
        """Whether something is stopped that has to come back."""
        return self._path.exists()

    def open(self) -> None:
        """Stop the backend's container, if there is one and it runs."""
        if self._backend is None or self.is_open:
            return
        containers = _containers()
        state = containers.state(self._backend.container)
        if not state["running"]:
            self.warnings.append(f"{self._backend.container} was not running, and is left as it is")
            return
        record = Record(
            backend=self._backend,
            container_id=str(state["id"]),
            restarts=state["restarts"],
            opened_at=time.time(),
        )
        files.write_json(self._path, record.model_dump(mode="json"))
        exit_code = containers.stop(self._backend.container, self._backend.stop_timeout_s)
        if exit_code not in _CLEAN_EXITS:
            self.warnings.append(
                f"{self._backend.container} did not stop cleanly (exit {exit_code}): "
                "work that it had in progress may be lost"
            )

    def close(self) -> None:
        """Start what was stopped and wait until it is healthy; then forget the record.

        Raises `BackendUnavailable`, and keeps the record, when it does not come back.
        """
        if not self.is_open:
            return
        from driver.adapters.backend import Backend

        record = self._read()
        backend, containers = record.backend, _containers()
        containers.start(backend.container)
        before = containers.state(backend.container)["restarts"]
        Backend(backend.url).wait_healthy(timeout_s=backend.healthy_timeout_s)
        if containers.state(backend.container)["restarts"] != before:
            raise BackendUnavailable(
                f"{backend.container} restarts again and again",
                why="its restart count rose while it answered",
            )
        self.away_s += time.time() - record.opened_at
        self._path.unlink()
        files.fsync_path(self._path.parent)

    def _read(self) -> Record:
        try:
            return Record.model_validate_json(self._path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise WindowOpen(
                f"cannot read {self._path}",
                why=str(error),
                todo="Start the backend's container by hand, then remove the file.",
            ) from error


def _containers() -> ContainerHost:
    from driver.runners.docker import ContainerHost

    return ContainerHost()
