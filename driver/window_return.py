"""The way back of what the service window has stopped; every step of it can be repeated.

The window (driver/window.py) decides what is to come back, and keeps the record until it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import (
    BackendUnavailable,
    EngineUnavailable,
    ModelMissing,
    RetrainError,
    WindowOpen,
)
from driver.outside import World
from driver.settings import BackendSettings
from driver.window_record import Other, Record, Stopping

if TYPE_CHECKING:  # the Docker SDK takes 0.2 s to import, and requests too
    from driver.adapters.backend import Backend
    from driver.adapters.containers import ContainerHost, ContainerState
    from driver.service import Service

_STARTS_AGAIN = 2
"""How often a backend that ends while it is waited for is started once more."""
_ROUNDS = 4
"""How often it is looked at for good answers in a row. On a fresh database its workers race for the
tables: it answers, exits, is restarted by its engine, and is well from then on."""
_POLL_S = 2.0
_ASKED = 5
_ASK_PAUSE_S = 1.0
"""How often, and with which pauses, a backend is asked for its LLM switch."""
LOAD_S = 30.0
"""How long loading Ollama's models again may take, in all: they load by themselves when asked."""


class Return:
    """Starts again what a record names."""

    def __init__(
        self, world: World, path: Path, warnings: list[str], write: Callable[[Record], None]
    ) -> None:
        """`path` is the record's, `write` publishes it; `warnings` gets what is to be told."""
        self._world = world
        self._path = path
        self._warnings = warnings
        self._write = write

    # --- the backend -----------------------------------------------------------------------------
    def start(self, record: Record, *, renew: bool, busy: bool | None) -> bool:
        """Return once it is healthy: whether it had to be started or made anew for that.

        One that was only switched off may have ended meanwhile, and ran before all the same.
        `busy`: whether it was in the middle of a bulk reprocess, which a renewal ends.
        """
        from driver.service import check_unpaused

        service = self._world.service(record.settings)
        finish_stop(record.stopping, service)
        ran = running(service, record.container_id)
        if ran:
            check_unpaused(ran)
        try:
            started = (
                self._renew(record, service, ran) if renew else service.start(record.container_id)
            )
            seen = service.state(started)
        except BackendUnavailable as error:
            name = record.container_name
            raise BackendUnavailable(
                f"{name} {'was stopped for the GPU' if record.stop else 'ran'}, and does not start "
                "again",
                why=f"{error.what}: {error.why}" if error.why else error.what,
                todo=f"`docker start {name}` says more; one that was removed has to be made again. "
                "Then `python -m driver recover`. If it is to stay away for good, remove "
                f"{self._path}.",
            ) from error
        anew = ran is None or seen.id != ran.id
        if busy and ran and anew:
            self._warnings.append(
                f"{seen.name} was made anew in the middle of a bulk reprocess, which is lost: "
                "start it again afterwards, or set backend.wait_for_reprocess_s"
            )
        self._wait_healthy(record, service, seen, started)
        return anew

    def _renew(self, record: Record, service: Service, ran: ContainerState | None) -> str:
        """Let compose make it anew; on the record while that may stop what runs."""
        if ran is None:
            return service.renew(record.container_id)
        begun = stopping(ran, record.settings.stop_timeout_s)
        self._write(record.model_copy(update={"stopping": begun}))
        started = service.renew(record.container_id)
        self._write(record.model_copy(update={"stopping": None}))
        return started

    def _wait_healthy(
        self, record: Record, service: Service, seen: ContainerState, started: str
    ) -> None:
        """Wait for good answers of the container that was started, and of no other program."""
        settings, starts = record.settings, _STARTS_AGAIN
        deadline = time.monotonic() + settings.healthy_timeout_s

        def see_that_it_runs() -> None:
            """Start it again if it has ended: an engine that is shut down takes it along."""
            nonlocal starts
            if starts and not service.state(started).running:
                starts -= 1
                service.start(record.container_id)

        for _ in range(_ROUNDS):
            self._world.backend(settings).wait_healthy(
                timeout_s=max(deadline - time.monotonic(), 5), meanwhile=see_that_it_runs
            )
            before, seen = seen, service.state(started)
            if _life(before) == _life(seen):
                break
        else:
            raise BackendUnavailable(
                f"{record.container_name} restarts again and again",
                why=f"it was restarted while it answered, {_ROUNDS} times in a row",
            )
        if is_stopping(record.stopping, seen):
            raise BackendUnavailable(
                f"{record.container_name} answers, but is about to end",
                why="it still runs since before it was told to stop",
                todo="`docker stop` it, then `python -m driver recover`.",
            )
        if not seen.running:
            raise BackendUnavailable(
                f"{record.container_name} has ended, although its address answers",
                why=f"another program answers at {settings.url}",
                todo=f"`docker logs {seen.name}` says why it ended; stop what took its address, "
                "then `python -m driver recover`.",
            )

    def switch_back(self, record: Record) -> None:
        """Leave the backend's LLM switch as it was, whatever a restart has made of it."""
        if record.llm_enabled is None:
            return
        backend = self._world.backend(record.settings)
        if llm_enabled(backend) != record.llm_enabled:
            backend.switch_llm(on=record.llm_enabled)

    # --- what else was stopped -------------------------------------------------------------------
    def start_others(self, record: Record) -> list[tuple[Other, RetrainError]]:
        """Start every other container; return those that did not, and why."""
        failed: list[tuple[Other, RetrainError]] = []
        for other in record.others:
            try:
                self._start_other(other)
            except RetrainError as error:
                failed.append((other, error))
        return failed

    def _start_other(self, other: Other) -> None:
        """Start the very container, or the one that has its name by now."""
        try:
            engine = self._world.containers(other.host, other.tls)
            finish_stop(other.stopping, engine)
            known = next((name for name in (other.id, other.name) if engine.exists(name)), None)
            if known is None:
                self._warnings.append(f"{other.name}, stopped for the GPU, has been removed since")
                return
            engine.start(known)
        except RetrainError as error:
            raise WindowOpen(
                f"{other.name}, stopped for the GPU, does not start again",
                why=f"{error.what}: {error.why}" if error.why else error.what,
                todo=f"`docker start {other.name}` says why; then `python -m driver recover`.",
            ) from error

    def load_again(self, record: Record) -> None:
        """Load the engine's models again, so that the first request does not wait for them.

        They load by themselves when they are asked, so a failure is only said, and all of it ends
        after `LOAD_S`.
        """
        deadline = time.monotonic() + LOAD_S
        for resident in record.models if record.ollama else ():
            left_s = max(deadline - time.monotonic(), 1.0)
            try:
                self._world.ollama(record.ollama).load(resident, timeout_s=left_s)
            except (EngineUnavailable, ModelMissing) as error:
                self._warnings.append(f"{resident.tag} was not loaded again: {error.what}")


def stopping(state: ContainerState, timeout_s: int) -> Stopping:
    """Return what to write down before a container is told to stop."""
    return Stopping(
        id=state.id, started_at=state.started_at, asked_at=time.time(), timeout_s=timeout_s
    )


def is_stopping(begun: Stopping | None, state: ContainerState) -> bool:
    """Return whether a container that runs may be on its way to its end by a stop of ours."""
    return begun is not None and (
        state.running and (state.id, state.started_at) == (begun.id, begun.started_at)
    )


def finish_stop(begun: Stopping | None, engine: Service | ContainerHost) -> None:
    """Stop once more what may be stopping, and wait for its end; nothing where it has ended.

    An engine goes on with a stop whose caller has died. A start does nothing to a container that
    still runs, and its last good answers would be taken for those of a service that is back.
    """
    if begun is None:
        return
    try:
        state = engine.state(begun.id)
    except BackendUnavailable:  # removed since
        return
    if is_stopping(begun, state):
        engine.stop(begun.id, begun.left_s())


def running(service: Service, container_id: str) -> ContainerState | None:
    """Return the service's container if it runs."""
    for known in (container_id, ""):
        try:
            state = service.state(known)
        except BackendUnavailable:
            continue
        return state if state.running else None
    return None


def wait_until_idle(settings: BackendSettings, service: Service) -> bool | None:
    """Return whether a bulk reprocess is under way when waiting is over; None: unknown."""
    deadline = time.monotonic() + settings.wait_for_reprocess_s
    while busy := service.reprocessing():
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_S)
    return busy


def llm_enabled(backend: Backend) -> bool:
    """Return the backend's LLM switch, asked for a few times; raises `BackendUnavailable`."""
    for _ in range(_ASKED - 1):
        try:
            return backend.admin_health().llm_enabled
        except BackendUnavailable:
            time.sleep(_ASK_PAUSE_S)
    return backend.admin_health().llm_enabled


def _life(state: ContainerState) -> tuple[str, int, str]:
    """Return what differs after every start of a container, whoever has started it."""
    return state.id, state.restarts, state.started_at
