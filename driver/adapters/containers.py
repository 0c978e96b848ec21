"""Containers that are not ours, on whatever engine they run: the backend's, and who holds a GPU.

Stage containers are run by driver/runners/docker.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors

from contracts.errors import BackendUnavailable, DockerUnavailable
from contracts.stage import Frozen

_PING_TIMEOUT_S = 10
_STOP_MARGIN_S = 30
"""How much longer than its own time-out the engine may take to answer a stop."""


class ContainerState(Frozen):
    """A container as the engine sees it now; enough to bring it back."""

    id: str
    name: str
    running: bool
    restarts: int
    """How often the engine has restarted it by itself."""
    restart_policy: str
    """`no`, `always`, `unless-stopped` or `on-failure`."""
    started_at: str
    """RFC 3339."""
    image: str = ""
    """As it was named when the container was made."""
    labels: dict[str, str] = {}
    removes_itself: bool = False
    """Made with `--rm`: a stop is its end."""


class Stopped(Frozen):
    """How a container ended."""

    exit_code: int
    seconds: float
    """From the request to the end."""


def connect(host: str = "") -> docker.DockerClient:
    """Return a client for an engine (`ssh://user@host`, `unix://…`); "" means DOCKER_HOST.

    Raises `DockerUnavailable` when no engine answers.
    """
    try:
        if host:
            # The system's own ssh, for its config, agent and known hosts.
            client = docker.DockerClient(
                base_url=host, timeout=_PING_TIMEOUT_S, use_ssh_client=host.startswith("ssh://")
            )
        else:
            client = docker.from_env(timeout=_PING_TIMEOUT_S, use_ssh_client=True)
        client.ping()
        # A create waits on the disk and a log stream on the stage: no time-out from here on.
        client.api.timeout = None
        return client
    except (docker.errors.DockerException, OSError) as error:
        place = f" at {host}" if host else ""
        raise DockerUnavailable(f"no Docker engine answers{place}", why=str(error)) from error


class ContainerHost:
    """One engine, for containers that somebody else made."""

    def __init__(self, host: str = "") -> None:
        self.host = host or os.environ.get("DOCKER_HOST", "")
        self._client = connect(host)

    def state(self, name: str) -> ContainerState:
        """Return how a container is, by its name or id.

        Raises `BackendUnavailable` when there is no such container.
        """
        container = self._get(name)
        state, config = container.attrs["State"], container.attrs["HostConfig"]
        return ContainerState(
            id=container.id,
            name=container.name,
            running=state["Running"],
            restarts=container.attrs["RestartCount"],
            restart_policy=config.get("RestartPolicy", {}).get("Name") or "no",
            started_at=state["StartedAt"],
            image=container.attrs["Config"]["Image"],
            labels=container.attrs["Config"].get("Labels") or {},
            removes_itself=bool(config.get("AutoRemove")),
        )

    def exists(self, name: str) -> bool:
        """Return whether there is a container of this name or id."""
        try:
            self._get(name)
        except BackendUnavailable:
            return False
        return True

    def stop(self, name: str, timeout_s: int) -> Stopped:
        """Stop a container; after `timeout_s` the engine kills it, and its exit code is 137."""
        container = self._get(name)
        started = time.monotonic()
        try:
            container.stop(timeout=timeout_s)
        except docker.errors.APIError as error:
            raise BackendUnavailable(
                f"the container {name} cannot be stopped", why=str(error)
            ) from error
        container.reload()
        return Stopped(
            exit_code=int(container.attrs["State"]["ExitCode"]),
            seconds=round(time.monotonic() - started, 1),
        )

    def start(self, name: str) -> None:
        """Start a container; one that runs already is left alone."""
        try:
            self._get(name).start()
        except docker.errors.APIError as error:
            raise BackendUnavailable(
                f"the container {name} does not start", why=str(error)
            ) from error

    def log_lines(self, name: str, since: float) -> Iterator[str]:
        """Yield what a container has said since a time (seconds since the epoch)."""
        for line in self._get(name).logs(stream=True, follow=False, since=since):
            yield line.decode("utf-8", errors="replace").rstrip("\n")

    def _get(self, name: str) -> Any:
        try:
            return self._client.containers.get(name)
        except docker.errors.NotFound as error:
            raise BackendUnavailable(
                f"there is no container {name}",
                why="backend.container names none on this engine",
                todo="`docker ps -a` lists them; set backend.container.",
            ) from error
