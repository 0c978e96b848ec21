"""The application's backend as something that is stopped and started: a container, or compose's."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from contracts.errors import BackendUnavailable, WindowOpen
from driver import locks
from driver.adapters.containers import ContainerHost, ContainerState, Stopped
from driver.settings import BackendSettings, ComposeSettings

_REPROCESS_ASKED = re.compile(
    r"POST /api/(items/reprocess|llm/enable(?!\S*[?&]auto_reprocess=(false|0|no|off|f|n)\b))"
    r"(\?\S*)? HTTP/\S+\"? 200",
    re.IGNORECASE,
)
"""The LLM switched on begins one too, unless its query says not to."""
_REPROCESS_DONE = "Reprocessing complete:"
"""The backend has no endpoint that tells; its access log and this line do (as observed)."""
_ANSWERED = re.compile(r"HTTP/\d\S* \d{3}\b")
"""Any line of an access log, whatever was asked."""
_LONGEST_REPROCESS_S = 6 * 3600
"""After that a bulk reprocess that has not told its end is none: one that was answered with "no
items to process" never does. Its 1000 items at most take that long at 21 s each."""


MODEL = "OLLAMA_MODEL"
"""The variable of its container by which the backend knows whom to ask; nothing else counts."""


class Service(Protocol):
    """What the window does with the backend."""

    def state(self, container_id: str = "") -> ContainerState:
        """Return its container, or that very one, as it is now; `BackendUnavailable` where there
        is none."""

    def reprocessing(self) -> bool | None:
        """Return whether it seems to be in the middle of a bulk reprocess, which a stop loses; None
        where that cannot be told."""

    def stop(self, container_id: str, timeout_s: int) -> Stopped:
        """Stop that very container of it and return how it ended."""

    def start(self, container_id: str) -> str:
        """Start the very container that was stopped, or what has taken its place since; return
        its id or name."""

    def renew(self, container_id: str) -> str:
        """Start it with the settings of now: compose makes a changed container anew. Return the
        id or name."""


def service_for(settings: BackendSettings, patience_s: float = 0.0) -> Service:
    """Return the backend's service; raises `DockerUnavailable` when its engine does not answer.

    `patience_s` is how long one that is being restarted is waited for, now and in every call.
    """
    engine = ContainerHost(settings.docker_host, patience_s, settings.docker_tls)
    if settings.compose:
        return ComposeService(settings.compose, engine, settings.stop_timeout_s)
    return ContainerService(settings.container, engine)


def model_asked_anew(settings: BackendSettings) -> str:
    """Return the model that a compose service asks once it is made anew, "" where none is set."""
    service = service_for(settings)
    return service.environment().get(MODEL, "") if isinstance(service, ComposeService) else ""


def check_returns(state: ContainerState) -> None:
    """Raise `WindowOpen` for a container whose stop would be its end."""
    if state.removes_itself:
        raise WindowOpen(
            f"{state.name} cannot be stopped for the GPU",
            why="it was made with --rm (AutoRemove): a stop removes it, and nothing could start it "
            "again",
            todo="Make it anew without --rm (`docker run --detach --restart unless-stopped …`), or "
            "run it under compose and set backend.compose; then run again. It was not stopped.",
        )


def check_unpaused(state: ContainerState) -> None:
    """Raise `BackendUnavailable` for a container that runs, but is frozen: it answers nobody."""
    if state.paused:
        raise BackendUnavailable(
            f"{state.name} is paused",
            why="somebody has frozen it (`docker pause`), and a start does not wake it",
            todo=f"`docker unpause {state.name}`, then call again.",
            passing=False,
        )


def under_way(lines: Iterable[tuple[float, str]], now: float) -> bool | None:
    """Return whether a bulk reprocess was asked for and is not done, by the backend's log.

    `lines` are times in seconds since the epoch, as `now` is, and texts. None where they do not
    tell: without any access line, although the driver itself has just asked for the health, the
    log is not kept there; and a reprocess that is done without having been asked for is of a log
    that was rotated, which may have lost others.
    """
    answered = rotated = False
    asked: list[float] = []
    for at, text in lines:
        answered = answered or _ANSWERED.search(text) is not None
        if _REPROCESS_ASKED.search(text):
            asked.append(at)
        elif _REPROCESS_DONE in text and asked:
            asked.pop()  # the latest: an older one may have had nothing to do
        elif _REPROCESS_DONE in text:
            rotated = True
    if any(now - at < _LONGEST_REPROCESS_S for at in asked):
        return True
    return False if answered and not rotated else None


class ContainerService:
    """A container by its name."""

    def __init__(self, name: str, engine: ContainerHost) -> None:
        self._containers = engine
        self._name = name

    def name(self) -> str:
        """Return the name or id by which the engine knows the container."""
        return self._name

    def state(self, container_id: str = "") -> ContainerState:
        """Return its container, or that very one, as it is now."""
        return self._containers.state(container_id or self.name())

    def reprocessing(self) -> bool | None:
        """Tell by the log, as `under_way` does."""
        try:
            state = self.state()
            since = datetime.fromisoformat(state.started_at).timestamp()
            return under_way(self._containers.log_lines(state.id, since), time.time())
        except BackendUnavailable:  # renamed, or `docker logs` is not for its log driver
            return None

    def stop(self, container_id: str, timeout_s: int) -> Stopped:
        """Stop that very container of it."""
        return self._containers.stop(container_id, timeout_s)

    def start(self, container_id: str) -> str:
        """Start the container that has the name, or the one of that id if none has it by now.

        One that was made anew has taken the name; the old one may still be there, renamed.
        """
        name = self.name()
        known = next((n for n in (name, container_id) if n and self._containers.exists(n)), name)
        self._containers.start(known)
        return known

    def renew(self, container_id: str) -> str:
        """Start it; a plain container keeps the settings it was made with."""
        return self.start(container_id)


class ComposeService(ContainerService):
    """A service of a compose project, which may have to be made anew for a new environment."""

    def __init__(
        self, settings: ComposeSettings, engine: ContainerHost, stop_timeout_s: int = 10
    ) -> None:
        """`stop_timeout_s` is what one that runs gets to end when it is made anew."""
        super().__init__(settings.service, engine)
        self._settings = settings
        self._stop_timeout_s = stop_timeout_s

    def name(self) -> str:
        """Return the id of the service's container; `BackendUnavailable` where it has none.

        One that runs comes first: an `up` that was killed leaves the one before it beside it.
        """
        ids: list[str] = []
        for which in ([], ["--all"]):
            ids = ids or self._compose("ps", *which, "--quiet", self._settings.service).split()
        if not ids:
            raise BackendUnavailable(
                f"the compose service {self._settings.service} has no container",
                why=f"in {self._settings.folder}",
                todo="Check backend.compose, and start it once (`docker compose up -d`).",
                passing=False,
            )
        return ids[0]

    def start(self, container_id: str) -> str:
        """Start the container by its id; without one, let compose make it.

        The id is enough: at a boot, variables that the compose files demand may be missing.
        """
        if not self._containers.exists(container_id):
            return self._up()
        self._containers.start(container_id)
        return container_id

    def renew(self, container_id: str) -> str:  # noqa: ARG002  # compose knows which one it is
        """Let compose start it, with the environment of the settings; it replaces a changed one."""
        return self._up()

    def environment(self) -> dict[str, str]:
        """Return the environment that compose gives its container the next time."""
        service = self._settings.service  # named, since one with a profile is left out else
        made = json.loads(self._compose("config", "--format=json", service))
        given = made["services"][service].get("environment") or {}
        return {name: str(value) for name, value in given.items() if value is not None}

    def _up(self) -> str:
        patience = f"--timeout={self._stop_timeout_s}"
        self._compose("up", "--detach", "--no-deps", patience, self._settings.service)
        return self.name()

    def _compose(self, *arguments: str) -> str:
        """Call compose; again, where the engine was restarted meanwhile."""
        while True:
            self._containers.wait()
            try:
                return self._call(arguments)
            except BackendUnavailable:
                if self._containers.answers():
                    raise

    def _call(self, arguments: Sequence[str]) -> str:
        settings = self._settings
        engine = ["--host", self._containers.host]  # whatever `docker context` is in use
        files = [part for file in settings.files for part in ("--file", file)]
        command = ["docker", *engine, "compose", "--project-directory", str(settings.folder)]
        try:
            done = subprocess.run(
                [*command, *files, *arguments],
                cwd=settings.folder,
                env={**self._containers.environment(), **settings.environment},
                capture_output=True,
                text=True,
                check=True,
                timeout=locks.CHILD_S + self._stop_timeout_s,
                start_new_session=True,  # a Ctrl-C in our terminal is not meant for it
                # Killed in between, we leave it at work: `recover` waits for it by these.
                pass_fds=locks.descriptors() if arguments[0] == "up" else (),
            )
        except subprocess.CalledProcessError as error:
            raise BackendUnavailable(
                f"`docker compose {arguments[0]}` failed for {settings.service}",
                why=error.stderr.strip()[-500:],
                todo="Check backend.compose.",
                passing=False,  # the engine answers: see _compose
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendUnavailable(
                f"`docker compose` does not run for {settings.service}",
                why=str(error),
                passing=isinstance(error, subprocess.TimeoutExpired),
            ) from error
        return done.stdout
