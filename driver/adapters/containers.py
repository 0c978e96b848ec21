"""Containers that are not ours, on whatever engine they run: the backend's, and who holds a GPU.

Stage containers are run by driver/runners/docker.py.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import docker
import docker.errors
import requests
import urllib3.exceptions

from contracts.errors import BackendUnavailable, DockerUnavailable
from contracts.stage import Frozen
from driver import users
from driver.docker_tls import Tls, environment_for, ways

T = TypeVar("T")

LOCAL = "unix:///var/run/docker.sock"
"""The engine that the SDK asks where DOCKER_HOST is not set."""
AWAY_S = 40.0
"""How long an engine that is being restarted is waited for; `recover` has a minute in all."""
_PING_TIMEOUT_S = 10
_SSH_S = 20.0
"""How long the first answer may take in all, with ssh's login."""
_ANSWER_S = 120
"""How long an engine may take to answer, a stop's own time-out on top; one that hangs is away."""
_PAUSE_S = 0.5
_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, DockerUnavailable, OSError)
"""What a connection to the engine fails with. An APIError is an answer, although an OSError too."""


class ContainerState(Frozen):
    """A container as the engine sees it now; enough to bring it back."""

    id: str
    name: str
    running: bool
    """Also while it is paused."""
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
    paused: bool = False


class Stopped(Frozen):
    """How a container ended."""

    exit_code: int
    seconds: float
    """From the request to the end."""


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Return what `ask` returns, or raise what it raises; `DockerUnavailable` if it takes longer.

    By ssh an answer comes through the pipe of a process, for which the SDK's time-outs do not
    count: a host that takes the connection and then says nothing would be waited for for ever. The
    thread that waits is left behind, and ends with this process.
    """
    answers: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()

    def wait() -> None:
        try:
            answer = ask()
        except Exception as error:  # noqa: BLE001  # raised again where it is waited for
            answers.put(partial(_raise, error))
        else:
            answers.put(lambda: answer)

    threading.Thread(target=wait, daemon=True).start()
    try:
        return answers.get(timeout=seconds)()
    except queue.Empty:
        raise DockerUnavailable(
            "the Docker engine does not answer", why=f"nothing came within {seconds:.0f} s"
        ) from None


def _raise(error: Exception) -> NoReturn:
    raise error


def connect(host: str = "", tls: Tls | None = None) -> docker.DockerClient:
    """Return a client for an engine (`ssh://user@host`, `unix://…`); "" means DOCKER_HOST.

    For `tcp://` with None for `tls`, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH count. Raises
    `DockerUnavailable` when no engine answers.
    """
    return _reach(host, tls)[0]


def _reach(host: str, tls: Tls | None) -> tuple[docker.DockerClient, Tls | None]:
    """Return a client and the one of `ways` by which it came; the first one's failure is told."""
    first, *others = ways(host, tls)
    try:
        return _connect(host, first), first
    except DockerUnavailable:
        for way in others:
            with suppress(DockerUnavailable):
                return _connect(host, way), way
        raise


def _connect(host: str, tls: Tls | None) -> docker.DockerClient:
    environment = environment_for(host, tls)
    try:
        # The system's own ssh, for its config, agent and known hosts.
        client = docker.from_env(
            environment=environment, timeout=_PING_TIMEOUT_S, use_ssh_client=True
        )
        within(_SSH_S, client.ping)
        # A create waits on the disk and a log stream on the stage: no time-out from here on.
        client.api.timeout = None
        return client
    except (docker.errors.DockerException, OSError) as error:
        _require_access(environment.get("DOCKER_HOST") or LOCAL)
        place = f" at {host}" if host else ""
        raise DockerUnavailable(f"no Docker engine answers{place}", why=str(error)) from error


def _require_access(host: str) -> None:
    """Raise `DockerUnavailable` for an engine's socket that this user may not write to."""
    path = Path(host.removeprefix("unix://"))
    if not host.startswith("unix://") or not os.access(path, os.F_OK, effective_ids=True):
        return
    if os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        return
    raise DockerUnavailable(
        f"{users.me()} may not use the Docker engine at {path}",
        why=f"Permission denied: the socket is {users.owner_of(path)}'s and of its group",
        todo=f"Add the user to the group of the engine (`sudo usermod --append --groups docker "
        f"{users.me()}`, then log in again), or call with sudo.",
        passing=False,
    )


class ContainerHost:
    """One engine, for containers that somebody else made.

    Every call raises `DockerUnavailable` when the engine does not answer.
    """

    def __init__(self, host: str = "", patience_s: float = 0.0, tls: Tls | None = None) -> None:
        """`patience_s` is how long an engine that is away is waited for, at every call."""
        self.host = host or os.environ.get("DOCKER_HOST", "") or LOCAL
        self._tls = tls
        self._patience_s = patience_s
        self._client: docker.DockerClient | None = None
        self.wait()

    def environment(self) -> dict[str, str]:
        """Return the environment in which the command line reaches the engine."""
        return environment_for(self.host, self._tls)

    def wait(self) -> None:
        """Return once the engine answers."""
        self._patiently(lambda client: client.ping())

    def answers(self) -> bool:
        """Return whether the engine answers now."""
        try:
            connect(self.host, self._tls).close()
        except DockerUnavailable:
            return False
        return True

    def _patiently(self, ask: Callable[[docker.DockerClient], T]) -> T:
        """Return what the engine says; where it goes away meanwhile, it is asked again."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                if self._client is None:
                    self._client, self._tls = _reach(self.host, self._tls)
                    self._client.api.timeout = _ANSWER_S
                return ask(self._client)
            except docker.errors.APIError:
                raise
            except _BROKEN as error:
                self._client = None  # by ssh, it is a process that has ended
                refused = isinstance(error, DockerUnavailable) and not error.passing
                if refused or time.monotonic() >= deadline:
                    if isinstance(error, DockerUnavailable):
                        raise
                    raise DockerUnavailable(
                        f"the Docker engine at {self.host} went away", why=str(error)
                    ) from error
                time.sleep(_PAUSE_S)

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
            paused=bool(state.get("Paused")),
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
        started = time.monotonic()
        try:
            self._patiently(lambda client: client.api.stop(name, timeout=timeout_s))
        except docker.errors.NotFound as error:
            raise _missing(name) from error
        except docker.errors.APIError as error:
            raise BackendUnavailable(
                f"the container {name} cannot be stopped", why=str(error)
            ) from error
        return Stopped(
            exit_code=int(self._get(name).attrs["State"]["ExitCode"]),
            seconds=round(time.monotonic() - started, 1),
        )

    def start(self, name: str) -> None:
        """Start a container; one that runs already is left alone."""
        try:
            self._patiently(lambda client: client.api.start(name))
        except docker.errors.NotFound as error:
            if "No such container" in str(error):  # else of a network or device that it wants
                raise _missing(name) from error
            raise BackendUnavailable(
                f"the container {name} does not start", why=str(error)
            ) from error
        except docker.errors.APIError as error:
            raise BackendUnavailable(
                f"the container {name} does not start", why=str(error)
            ) from error

    def log_lines(self, name: str, since: float) -> Iterator[tuple[float, str]]:
        """Yield what a container has said since a time, and when (seconds since the epoch).

        Raises `BackendUnavailable` where its log cannot be read.
        """
        container = self._get(name)
        try:
            for line in container.logs(stream=True, follow=False, since=since, timestamps=True):
                at, _, text = line.decode("utf-8", errors="replace").rstrip("\n").partition(" ")
                yield datetime.fromisoformat(at).timestamp(), text
        except (docker.errors.APIError, ValueError, *_BROKEN) as error:
            raise BackendUnavailable(
                f"the log of the container {name} cannot be read", why=str(error)
            ) from error

    def _get(self, name: str) -> Any:
        try:
            return self._patiently(lambda client: client.containers.get(name))
        except docker.errors.NotFound as error:
            raise _missing(name) from error


def _missing(name: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"there is no container {name}",
        why="backend.container names none on this engine",
        todo="`docker ps -a` lists them; set backend.container.",
        passing=False,
    )
