"""The service window: what is stopped for the GPU, and gets restored whatever happens.

What is about to be touched is on the disk before it is touched, and the record goes only when the
backend is healthy again. So a driver that dies in between leaves all that the next start, or
`driver recover`, needs: nothing but the workspace. Every step can be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from contracts import files
from contracts.errors import BackendUnavailable, EngineUnavailable, FileUnusable, RetrainError
from driver import users
from driver.docker_tls import in_effect
from driver.outside import World
from driver.settings import BackendSettings
from driver.window_record import RECORD_FILE, Other, Record
from driver.window_return import (
    Return,
    finish_stop,
    is_stopping,
    llm_enabled,
    running,
    stopping,
    wait_until_idle,
)

if TYPE_CHECKING:  # the Docker SDK takes 0.2 s to import, and requests too
    from driver.adapters.containers import ContainerState, Stopped
    from serving.engine import Resident

_CLEAN_EXITS = (0, 143)
"""0, and 128 + SIGTERM for a program without a handler of its own."""
_SLOW_STOP_S = 30
"""Longer than an idle backend takes. Gunicorn gives up on busy workers after 60 s, and then
exits with 0 all the same."""


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
        self._return = Return(self._world, self._path, self.warnings, self._write)
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
        except FileUnusable:  # told by whoever has to close it
            since = None
        return self.away if since is None else [*self.away, (since, time.time())]

    @property
    def is_open(self) -> bool:
        """Whether something is stopped or switched that has to come back."""
        return self._path.is_symlink() or self._path.exists()  # a loop of links does not "exist"

    def record(self) -> Record:
        """Return what has to come back; `FileUnusable` for a record that cannot be read.

        Only a person can mend that, so it is no `WindowOpen`, which may well pass by itself.
        """
        try:
            return Record.model_validate_json(files.read_bytes(self._path))
        except PermissionError as error:
            owner = users.owner_of(self._path)
            raise FileUnusable(
                f"cannot read {self._path}",
                why=f"it is {owner}'s, and this is {users.me()}",
                todo=f"Call recover as {owner} (`sudo -u {owner} python -m driver recover …`).",
            ) from error
        except (OSError, ValidationError) as error:
            why = str(error)
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False)[0]
                why = ".".join(map(str, first["loc"])) + f": {first['msg']}"
            raise FileUnusable(
                f"cannot read {self._path}",
                why=why.removeprefix(": "),
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
        # One whose switch is not known has only been written down, for a renewal: look again.
        known = before and before.backend and (before.stop or before.llm_enabled is not None)
        record = before if known else self._survey(self._settings)
        if record is None or record.backend is None:
            return
        if not stop and not record.stop and record.llm_enabled is None:
            raise BackendUnavailable(
                f"{record.container_name} does not say whether its LLM is switched on, so that it "
                "is not switched off",
                why="nobody could put the switch back as it was",
                todo="Look at its /api/admin/health, or set window.policy to gpu.",
            )
        if not known or (stop and not record.stop):
            others = before.others if before else ()
            self._tell_unknown_switch(record)
            record = record.model_copy(update={"stop": stop, "others": others})
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
        begun = stopping(engine.state(container.id), timeout_s)
        other = Other(
            id=container.id, name=container.name, host=host, tls=in_effect(host), stopping=begun
        )
        known = [each for each in record.others if (each.id, each.host) != (other.id, other.host)]
        self._write(record.model_copy(update={"others": (*known, other)}))
        ended = engine.stop(container.id, timeout_s)
        self.warnings.append(
            f"{container.name} held the GPU and was stopped, as gpu.may_stop allows "
            f"(exit {ended.exit_code} after {ended.seconds:.0f} s); it comes back with the service"
        )

    def _survey(self, settings: BackendSettings) -> Record | None:
        """Return what runs now; None where the backend does not run, and is to be left alone."""
        from driver.service import check_returns

        engine = settings.docker_host or self._world.default_engine()
        tls = in_effect(engine) if settings.docker_tls is None else settings.docker_tls
        known = {"docker_host": engine, "docker_tls": tls}
        settings = settings.model_copy(update=known)
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
            return llm_enabled(self._world.backend(settings))
        except BackendUnavailable:
            return None

    def _tell_unknown_switch(self, record: Record) -> None:
        if record.llm_enabled is None:
            self.warnings.append(
                f"{record.container_name} does not say whether its LLM is switched on: look after "
                "its return whether it is as it should be"
            )

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
        try:
            state = service.state()
        except BackendUnavailable:  # renamed since
            state = service.state(record.container_id)
        if not state.running:
            return
        if is_stopping(record.stopping, state):  # a driver that died has begun it
            finish_stop(record.stopping, service)
            return
        if state.id != record.container_id:  # somebody made it anew: that one has to come back
            check_returns(state)
        busy = wait_until_idle(settings, service)
        update = {
            "container_id": state.id,
            "stopping": stopping(state, settings.stop_timeout_s),
            "stopped_at": record.stopped_at or time.time(),
        }
        self._write(record.model_copy(update=update))
        ended = service.stop(state.id, settings.stop_timeout_s)
        self._tell(state, ended, busy=busy)

    def _tell(self, state: ContainerState, ended: Stopped, *, busy: bool | None) -> None:
        how = f"exit {ended.exit_code} after {ended.seconds:.0f} s"
        if busy is None:
            self.warnings.append(
                f"whether {state.name} was in the middle of a bulk reprocess cannot be told, since "
                f"its log does not say; it was stopped ({how})"
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
        others, and keeps the record of it, when something does not come back; `FileUnusable` for a
        record that cannot be read, or removed when all is back.
        """
        busy = self._reprocess_before_renewal() if renew else False
        back: tuple[Record, list[tuple[Other, RetrainError]]] | None = None
        try:
            with self._shield():
                if renew:
                    self._record_for_renewal()
                if self.is_open:
                    record = self.record()
                    back = record, self._restore(record, renew=renew, busy=busy)
            if back:  # the service is up: what follows is a courtesy, and may be interrupted
                self._return.load_again(back[0])
                self._forget(*back)
        except KeyboardInterrupt:
            if back:
                self._forget(*back)
                self.warnings += [str(error) for _, error in back[1]]
                if back[0].models:
                    self.warnings.append("a signal ended the loading of Ollama's models again")
            raise
        if back and back[1]:
            (_, first), *more = back[1]
            self.warnings += [str(error) for _, error in more]
            raise first

    def _restore(
        self, record: Record, *, renew: bool, busy: bool | None
    ) -> list[tuple[Other, RetrainError]]:
        """Bring back what can be, the backend first; return which others are not, and why.

        Raises what keeps the backend away, when all the others have been started.
        """
        began, broken = record.stopped_at, None
        if record.backend is not None:
            asked = time.time()
            try:
                if self._return.start(record, renew=renew, busy=busy):
                    began = began or asked
                self._return.switch_back(record)
            except (RetrainError, OSError) as error:
                broken = error
        failed = self._return.start_others(record)
        if broken:
            self.warnings += [str(error) for _, error in failed]
            raise broken
        if began is not None:
            self.away.append((began, time.time()))
        return failed

    def _forget(self, record: Record, failed: list[tuple[Other, RetrainError]]) -> None:
        """Remove the record, or leave on it only the others that are not back.

        Raises `FileUnusable` where it stays.
        """
        if failed:
            others = tuple(other for other, _ in failed)
            with suppress(OSError):  # a full disk: then all of it is looked at once more
                self._write(Record(opened_at=record.opened_at, others=others))
            return
        try:
            files.remove(self._path)
        except OSError as error:  # a file system that has gone read-only, for one
            raise FileUnusable(
                f"what was stopped is back, but its record could not be removed: {self._path}",
                why=str(error.strerror),
                todo="Remove that file: as long as it is there, it counts as stopped.",
            ) from error

    def _reprocess_before_renewal(self) -> bool | None:
        """Wait for a bulk reprocess that a renewal would end; return whether it is under way still.

        Nothing is touched yet, so that a signal may end it.
        """
        before = self.record().backend if self.is_open else None
        settings = before or self._settings
        if settings is None or settings.compose is None or self._left_alone:
            return False
        service = self._world.service(settings)
        return wait_until_idle(settings, service) if running(service, "") else False

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
            self._tell_unknown_switch(record)
            self._write(record.model_copy(update={"others": others}))

    def _write(self, record: Record) -> None:
        place = record.workspace or str(self._path.parent.resolve())
        facts = record.model_dump(mode="json") | {"workspace": place}
        # Compose's variables are in it, and may hold secrets.
        files.write_json(self._path, facts, files.PRIVATE)
