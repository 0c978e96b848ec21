"""The service window: what is stopped for the GPU, and gets restored whatever happens.

What is about to be touched is on the disk before it is touched, and the record goes only when the
backend is healthy again. So a driver that dies in between leaves all that the next start, or
`driver recover`, needs: nothing but the workspace. Every step can be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import files
from contracts.errors import BackendUnavailable, EngineUnavailable, ModelMissing, WindowOpen
from driver.outside import World
from driver.settings import BackendSettings
from driver.window_record import Other, Record

if TYPE_CHECKING:  # the Docker SDK takes 0.2 s to import, and requests too
    from driver.adapters.containers import ContainerState, Stopped
    from driver.service import Service
    from serving.engine import Resident

RECORD_FILE = "window.json"
_CLEAN_EXITS = (0, 143)
"""0, and 128 + SIGTERM for a program without a handler of its own."""
_SLOW_STOP_S = 30
"""Longer than an idle backend takes. Gunicorn gives up on busy workers after 60 s, and then
exits with 0 all the same."""
_POLL_S = 2.0
_STARTS_AGAIN = 2
"""How often a backend that ends while it is waited for is started once more."""


class Window:
    """What is stopped now, and how it comes back."""

    def __init__(
        self,
        workspace: Path,
        backend: BackendSettings | None,
        ollama: str = "",
        world: World | None = None,
        shield: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`ollama` is the address of the engine whose models are to be loaded again.

        `shield` keeps a signal from coming between the steps of a restoration.
        """
        self._path = workspace / RECORD_FILE
        self._settings = backend
        self._ollama = ollama
        self._world = world or World()
        self._shield = shield
        self._left_alone = False
        self.warnings: list[str] = []
        self.away: list[tuple[float, float]] = []
        """When the backend was away in this process's windows: from and until, in seconds since
        the epoch."""

    @property
    def away_s(self) -> float:
        """How long the backend has been away in this process's windows."""
        return sum(until - since for since, until in self.away)

    def absences(self) -> list[tuple[float, float]]:
        """Return when the backend was away: until now where it still is."""
        try:
            since = self.record().stopped_at if self.is_open else None
        except WindowOpen:  # told by whoever has to close it
            since = None
        return self.away if since is None else [*self.away, (since, time.time())]

    @property
    def is_open(self) -> bool:
        """Whether something is stopped or switched that has to come back."""
        return self._path.exists()

    def record(self) -> Record:
        """Return what has to come back; `WindowOpen` for a record that cannot be read."""
        try:
            return Record.model_validate_json(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # pydantic's errors and Unicode's are of these
            raise WindowOpen(
                f"cannot read {self._path}",
                why=str(error),
                todo="Start the backend's container by hand, then remove the file.",
            ) from error

    # --- open ------------------------------------------------------------------------------------
    def open(self, *, stop: bool = True) -> None:
        """Stop the backend, if there is one and it runs; or only switch its LLM off.

        May be called before every stage: what an open window has stopped stays stopped, even if
        somebody started it meanwhile.
        """
        if self._settings is None or self._left_alone:
            return
        before = self.record() if self.is_open else None
        fresh = before is None or before.backend is None
        record = self._survey(self._settings) if fresh else before
        if record is None or record.backend is None:
            return
        if fresh or (stop and not record.stop):
            now = time.time() if stop else None
            others = before.others if before else ()
            update = {"stop": stop, "stopped_at": now, "others": others}
            record = record.model_copy(update=update)
            self._write(record)
        if record.stop:
            self._stop(record)
        else:
            self._world.backend(record.settings).switch_llm(on=False)

    def stop_other(self, container: ContainerState, host: str, timeout_s: int) -> None:
        """Stop another container, which comes back with the service; one that ended is none.

        Raises `BackendUnavailable` when it cannot be stopped.
        """
        engine = self._world.containers(host)
        if not engine.state(container.id).running:
            return
        record = self.record() if self.is_open else Record(opened_at=time.time())
        other = Other(id=container.id, name=container.name, host=host)
        if other not in record.others:
            self._write(record.model_copy(update={"others": (*record.others, other)}))
        ended = engine.stop(container.id, timeout_s)
        self.warnings.append(
            f"{container.name} held the GPU and was stopped, as gpu.may_stop allows "
            f"(exit {ended.exit_code} after {ended.seconds:.0f} s); it comes back with the service"
        )

    def _survey(self, settings: BackendSettings) -> Record | None:
        """Return what runs now; None where the backend does not run, and is to be left alone."""
        from driver.service import check_returns

        engine = settings.docker_host or self._world.default_engine()
        settings = settings.model_copy(update={"docker_host": engine})
        state = self._world.service(settings).state()
        if not state.running:
            self._left_alone = True
            self.warnings.append(f"{state.name} was not running, and is left as it is")
            return None
        check_returns(state)
        return Record(
            backend=settings,
            container_id=state.id,
            container_name=state.name,
            restart_policy=state.restart_policy,
            stop=False,
            llm_enabled=self._llm_enabled(settings),
            ollama=self._ollama,
            models=self._loaded(),
            opened_at=time.time(),
        )

    def _llm_enabled(self, settings: BackendSettings) -> bool | None:
        try:
            return self._world.backend(settings).admin_health().llm_enabled
        except BackendUnavailable:
            return None

    def _loaded(self) -> tuple[Resident, ...]:
        if not self._ollama:
            return ()
        try:
            return tuple(self._world.ollama(self._ollama).resident())
        except EngineUnavailable:
            return ()

    def _stop(self, record: Record) -> None:
        from driver.service import check_returns

        settings = record.settings
        service = self._world.service(settings)
        state = service.state()
        if not state.running:
            return
        if state.id != record.container_id:  # somebody made it anew: that one has to come back
            check_returns(state)
            self._write(record.model_copy(update={"container_id": state.id}))
        busy = self._wait_until_idle(settings, service)
        ended = service.stop(settings.stop_timeout_s)
        self._tell(state, ended, busy=busy)

    def _wait_until_idle(self, settings: BackendSettings, service: Service) -> bool | None:
        """Return whether a bulk reprocess is under way when waiting is over; None: unknown."""
        deadline = time.monotonic() + settings.wait_for_reprocess_s
        while busy := service.reprocessing():
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
        return busy

    def _tell(self, state: ContainerState, ended: Stopped, *, busy: bool | None) -> None:
        how = f"exit {ended.exit_code} after {ended.seconds:.0f} s"
        if busy is None:
            self.warnings.append(
                f"whether {state.name} was in the middle of a bulk reprocess cannot be told, since "
                f"its log cannot be read; it was stopped ({how})"
            )
        elif busy:
            self.warnings.append(
                f"{state.name} was stopped in the middle of a bulk reprocess ({how}), which is "
                "lost: start it again afterwards, or set backend.wait_for_reprocess_s"
            )
        elif ended.exit_code not in _CLEAN_EXITS:
            self.warnings.append(
                f"{state.name} did not stop cleanly ({how}): what it was doing may be lost"
            )
        elif ended.seconds > _SLOW_STOP_S:
            self.warnings.append(
                f"{state.name} gave up on what it was doing ({how}): that may be lost"
            )

    # --- close -----------------------------------------------------------------------------------
    def close(self, *, renew: bool = False) -> None:
        """Start what was stopped and wait until it is healthy; then forget the record.

        `renew` lets compose make the container anew for a changed environment, also one that runs
        while nothing is stopped. Raises `BackendUnavailable`, or `WindowOpen` for one of the
        others, and keeps the record, when something does not come back.
        """
        with self._shield():
            if renew:
                self._record_for_renewal()
            if self.is_open:
                self._restore(self.record(), renew=renew)

    def _restore(self, record: Record, *, renew: bool) -> None:
        began = record.stopped_at
        failed = self._start_others(record)  # quick, and owed even if the backend is broken
        if record.backend is not None:
            asked = time.time()
            if self._start(record, renew=renew):
                began = began or asked
        self._switch_back(record)
        self._load_again(record)
        if failed:
            raise failed[0]
        if began is not None:
            self.away.append((began, time.time()))
        self._path.unlink()
        files.fsync_path(self._path.parent)

    def _record_for_renewal(self) -> None:
        """Write down a compose service that runs, since it may be made anew: with which settings.

        The run that has stopped it may have had others.
        """
        settings = self._settings
        if settings is None or settings.compose is None or self._left_alone:
            return
        before = self.record() if self.is_open else None
        if before and before.backend:
            was, now = before.backend.compose, settings.compose
            if was is None or was == now or (was.folder, was.service) != (now.folder, now.service):
                return
            update = {"backend": before.backend.model_copy(update={"compose": now})}
            self._write(before.model_copy(update=update))
        elif record := self._survey(settings):
            others = before.others if before else ()
            self._write(record.model_copy(update={"others": others}))

    def _start(self, record: Record, *, renew: bool) -> bool:
        """Return once it is healthy: whether it had to be started or made anew for that.

        One that was only switched off may have ended meanwhile, and ran before all the same.
        """
        settings = record.settings
        service = self._world.service(settings)
        ran = _running(service, record.container_id)
        busy = ran and renew and settings.compose and self._wait_until_idle(settings, service)
        try:
            start = service.renew if renew else service.start
            started = start(record.container_id)
            before = service.state(started)
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
        if busy and before.id != ran:
            self.warnings.append(
                f"{before.name} was made anew in the middle of a bulk reprocess, which is lost: "
                "start it again afterwards, or set backend.wait_for_reprocess_s"
            )
        self._wait_healthy(record, service, before, started)
        return before.id != ran

    def _wait_healthy(
        self, record: Record, service: Service, before: ContainerState, started: str
    ) -> None:
        """Wait for good answers of the container that was started, and of no other program."""
        settings, starts = record.settings, _STARTS_AGAIN

        def see_that_it_runs() -> None:
            """Start it again if it has ended: an engine that is shut down takes it along."""
            nonlocal starts
            if starts and not service.state(started).running:
                starts -= 1
                service.start(record.container_id)

        self._world.backend(settings).wait_healthy(
            timeout_s=settings.healthy_timeout_s, meanwhile=see_that_it_runs
        )
        after = service.state(started)
        if (after.id, after.restarts) != (before.id, before.restarts):
            raise BackendUnavailable(
                f"{record.container_name} restarts again and again",
                why="its restart count rose while it answered",
            )
        if not after.running:
            raise BackendUnavailable(
                f"{record.container_name} has ended, although its address answers",
                why=f"another program answers at {settings.url}",
                todo=f"`docker logs {after.name}` says why it ended; stop what took its address, "
                "then `python -m driver recover`.",
            )

    def _switch_back(self, record: Record) -> None:
        """Leave the backend's LLM switch as it was, whatever a restart has made of it."""
        if record.llm_enabled is None:
            return
        backend = self._world.backend(record.settings)
        if backend.admin_health().llm_enabled != record.llm_enabled:
            backend.switch_llm(on=record.llm_enabled)

    def _start_others(self, record: Record) -> list[WindowOpen]:
        """Start every other container, and return what went wrong."""
        failed = []
        for other in record.others:
            try:
                self._start_other(other)
            except WindowOpen as error:
                failed.append(error)
        return failed

    def _start_other(self, other: Other) -> None:
        """Start the very container, or the one that has its name by now."""
        engine = self._world.containers(other.host)
        known = next((name for name in (other.id, other.name) if engine.exists(name)), None)
        if known is None:
            self.warnings.append(f"{other.name}, stopped for the GPU, has been removed since")
            return
        try:
            engine.start(known)
        except BackendUnavailable as error:
            raise WindowOpen(
                f"{other.name}, stopped for the GPU, does not start again",
                why=error.why,
                todo=f"`docker start {other.name}` says why; then `python -m driver recover`.",
            ) from error

    def _load_again(self, record: Record) -> None:
        """Load the engine's models again, so that the first request does not wait for them.

        They load by themselves when they are asked, so a failure is only said.
        """
        for resident in record.models if record.ollama else ():
            try:
                self._world.ollama(record.ollama).load(resident)
            except (EngineUnavailable, ModelMissing) as error:
                self.warnings.append(f"{resident.tag} was not loaded again: {error.what}")

    def _write(self, record: Record) -> None:
        # Compose's variables are in it, and may hold secrets.
        files.write_json(self._path, record.model_dump(mode="json"), mode=0o600)


def _running(service: Service, container_id: str) -> str:
    """Return the id of the service's container if it runs, else ""."""
    for known in (container_id, ""):
        try:
            state = service.state(known)
        except BackendUnavailable:
            continue
        return state.id if state.running else ""
    return ""
