"""What the service window writes down before it stops anything, for whoever has to restore it."""

from __future__ import annotations

import math
import time

from contracts.stage import Frozen
from driver.docker_tls import Tls
from driver.settings import BackendSettings
from serving.engine import Resident

RECORD_FILE = "window.json"
"""Its name in the workspace."""


class Stopping(Frozen):
    """A stop that is about to be asked for: the engine goes on with it, whoever dies meanwhile."""

    id: str
    """The container."""
    started_at: str
    """When the engine had started it: what runs with another start has been started since."""
    asked_at: float
    """Seconds since the epoch."""
    timeout_s: int
    """After that the engine kills it."""

    def left_s(self) -> int:
        """Return how long it may still take to end by itself, in whole seconds, at least one."""
        return max(1, math.ceil(self.timeout_s - max(0.0, time.time() - self.asked_at)))


class Other(Frozen):
    """A container that ran, and is stopped because it held the GPU."""

    id: str
    name: str
    host: str
    """Its Docker engine, as in DOCKER_HOST; "" for this host's own."""
    tls: Tls | None = None
    """How that is spoken to, where it is at tcp://."""
    stopping: Stopping | None = None


class Record(Frozen):
    """What was running before: enough to bring it back, and nothing else."""

    workspace: str = ""
    """Its path when the window was opened; "" where an older driver did not note it."""
    backend: BackendSettings | None = None
    """With the engine and the folder as they were in effect, since nobody else will know; None
    where only others are stopped."""
    container_id: str = ""
    container_name: str = ""
    restart_policy: str = ""
    stop: bool = False
    """Whether the container is stopped, or may be by now."""
    stopping: Stopping | None = None
    """The last stop that was begun, or may have been: by us, or by compose in a renewal."""
    llm_enabled: bool | None = None
    """The backend's own LLM switch; None where it did not say."""
    ollama: str = ""
    """Address of the engine whose models are below; "" for none."""
    models: tuple[Resident, ...] = ()
    """What the engine had loaded."""
    opened_at: float
    """Seconds since the epoch: the outage may outlive this process."""
    stopped_at: float | None = None
    others: tuple[Other, ...] = ()
    """Whatever else is stopped, in the order of the stops."""

    @property
    def settings(self) -> BackendSettings:
        """The backend's settings, of a record that has a backend."""
        if self.backend is None:
            raise ValueError("the record is of no backend")
        return self.backend
