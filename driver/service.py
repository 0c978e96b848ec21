"""The application's backend as something that is stopped and started: a container, or compose's."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import datetime
from typing import Protocol

from contracts.errors import BackendUnavailable
from driver.adapters.containers import ContainerHost, ContainerState, Stopped
from driver.settings import BackendSettings, ComposeSettings

_COMPOSE_TIMEOUT_S = 300
_REPROCESS_ASKED = re.compile(r"POST /api/items/reprocess(\?\S*)? HTTP/\S+\"? 200")
_REPROCESS_DONE = "Reprocessing complete:"
"""The backend has no endpoint that tells; its access log and this line do (as observed)."""


class Service(Protocol):
    """What the window does with the backend."""

    def state(self) -> ContainerState:
        """Return its container as it is now; `BackendUnavailable` where there is none."""

    def reprocessing(self) -> bool:
        """Return whether it seems to be in the middle of a bulk reprocess, which a stop loses."""

    def stop(self, timeout_s: int) -> Stopped:
        """Stop it and return how it ended."""

    def start(self, container_id: str) -> None:
        """Start the very container that was stopped, or what has taken its place since."""

    def renew(self, container_id: str) -> None:
        """Start it with the settings of now: compose makes a changed container anew."""


def service_for(settings: BackendSettings) -> Service:
    """Return the backend's service; raises `DockerUnavailable` when its engine does not answer."""
    if settings.compose:
        return ComposeService(settings.compose, settings.docker_host)
    return ContainerService(settings.container, settings.docker_host)


class ContainerService:
    """A container by its name."""

    def __init__(self, name: str, docker_host: str) -> None:
        self._containers = ContainerHost(docker_host)
        self._name = name

    def name(self) -> str:
        """Return the name or id by which the engine knows the container."""
        return self._name

    def state(self) -> ContainerState:
        """Return its container as it is now."""
        return self._containers.state(self.name())

    def reprocessing(self) -> bool:
        """Compare how many bulk reprocesses were asked for with how many are done, by the log."""
        state = self.state()
        since = datetime.fromisoformat(state.started_at).timestamp()
        asked = done = 0
        for line in self._containers.log_lines(state.id, since):
            asked += _REPROCESS_ASKED.search(line) is not None
            done += _REPROCESS_DONE in line
        return asked > done

    def stop(self, timeout_s: int) -> Stopped:
        """Stop its container."""
        return self._containers.stop(self.name(), timeout_s)

    def start(self, container_id: str) -> None:
        """Start the container by its id, or by its name if it was made anew meanwhile."""
        known = self._containers.exists(container_id)
        self._containers.start(container_id if known else self.name())

    def renew(self, container_id: str) -> None:
        """Start it; a plain container keeps the settings it was made with."""
        self.start(container_id)


class ComposeService(ContainerService):
    """A service of a compose project, which may have to be made anew for a new environment."""

    def __init__(self, settings: ComposeSettings, docker_host: str) -> None:
        super().__init__(settings.service, docker_host)
        self._settings = settings

    def name(self) -> str:
        """Return the id of the service's container; `BackendUnavailable` where it has none."""
        ids = self._compose("ps", "--all", "--quiet", self._settings.service).split()
        if not ids:
            raise BackendUnavailable(
                f"the compose service {self._settings.service} has no container",
                why=f"in {self._settings.folder}",
                todo="Check backend.compose, and start it once (`docker compose up -d`).",
            )
        return ids[0]

    def start(self, container_id: str) -> None:
        """Start the container by its id; without one, let compose make it."""
        if self._containers.exists(container_id):
            self._containers.start(container_id)
        else:
            self._up()

    def renew(self, container_id: str) -> None:  # noqa: ARG002  # compose knows which one it is
        """Let compose start it, with the environment of the settings; it replaces a changed one."""
        self._up()

    def _up(self) -> None:
        self._compose("up", "--detach", "--no-deps", self._settings.service)

    def _compose(self, *arguments: str) -> str:
        settings = self._settings
        engine = ["--host", self._containers.host] if self._containers.host else []
        files = [part for file in settings.files for part in ("--file", file)]
        command = ["docker", *engine, "compose", "--project-directory", str(settings.folder)]
        try:
            done = subprocess.run(
                [*command, *files, *arguments],
                cwd=settings.folder,
                env={**os.environ, **settings.environment},
                capture_output=True,
                text=True,
                check=True,
                timeout=_COMPOSE_TIMEOUT_S,
            )
        except subprocess.CalledProcessError as error:
            raise BackendUnavailable(
                f"`docker compose {arguments[0]}` failed for {settings.service}",
                why=error.stderr.strip()[-500:],
                todo="Check backend.compose.",
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendUnavailable(
                f"`docker compose` does not run for {settings.service}", why=str(error)
            ) from error
        return done.stdout
