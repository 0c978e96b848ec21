"""`driver recover`: the service back, from nothing but the workspace."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from contracts.errors import (
    DockerUnavailable,
    FileUnusable,
    InputMissing,
    RunUnreadable,
    WindowOpen,
    without_userinfo,
)
from driver import candidates, damaged, locks, promotion, recent, records, verification
from driver.docker_tls import Tls
from driver.outside import World
from driver.signals import SIGNALS
from driver.store import STATE_FILE, Run, RunState
from driver.window import Window
from serving import connect

_STAGES_S = 40.0
"""How long an engine may take over the stages, a stop's ten seconds included: the service waits."""
_OLD_ENGINE = (
    "A stage of the run that died may be at work still, and hold the GPU: its container could not "
    "be asked for.\nwhy: {0.what}: {0.why}\n"
    "do:  start that engine, or set DOCKER_HOST as it was in the run; then call recover again."
)
_UNKNOWN_ENGINE = (
    "A stage of the run that died may be at work still, and hold the GPU: which Docker engine it "
    "is on is not known; asked: {1}.\nwhy: {0.what}: {0.why}\n"
    "do:  if it was another engine, set DOCKER_HOST as it was in the run, and call recover again."
)


def recover(workspace: Path, say: Callable[[str], None]) -> None:
    """Bring back what a driver that died has left stopped; `say` is told what was done.

    A stage of it that still runs in a container is stopped first: it holds the GPU that the
    service needs, and goes on from its last checkpoint in the next run. Raises `WorkspaceBusy`
    while a driver is at work, `BackendUnavailable` if the service does not become healthy,
    `EngineUnavailable` where a record of the served model is damaged and it is not certain yet that
    a good one is live, and `FileUnusable`, when all is done, for such a record.
    """
    if not workspace.is_dir():
        stopped = stop_stages(workspace, say)
        locks.forget(workspace)
        if stopped:  # the folder is gone, but its stage went on
            return
        raise InputMissing(
            f"there is no workspace {workspace}", todo="Name the one of the run: --workspace DIR."
        )
    # A signal waits for the end of it: this is what it would ask for.
    with locks.workspace(workspace, recovers=True), SIGNALS.shield():
        try:
            stop_stages(workspace, say)
        except Exception as error:  # noqa: BLE001  # whatever it is: the service comes first
            say(f"Whether a stage is at work still cannot be told: {type(error).__name__}: {error}")
        try:
            _restore(workspace, say)
        finally:  # a service that does not come back must find no bad model when it does
            _settle(workspace, say)
        _drop_candidates(workspace, say)
        damaged.require_secured(workspace)  # a boot tries that again, and not what is next
        records.require_whole(workspace)


def _settle(workspace: Path, say: Callable[[str], None]) -> None:
    """Let the served name name a model that is known to be good, as far as the engine answers."""
    damaged.settle(workspace, say)
    if said := promotion.settle(workspace):
        say(said)
    verification.settle(workspace, say, unfinished=True)


def _restore(workspace: Path, say: Callable[[str], None]) -> None:
    """Bring the backend and the others back, if they were left stopped."""
    window = Window(workspace, backend=None, shield=SIGNALS.shield)
    if not window.is_open:
        locks.forget(workspace)
        say(f"Nothing to recover in {workspace}: no service was left stopped.")
        return
    away = window.record().backend is not None
    back = "The service is back and healthy; it was away for {:.0f} s."
    try:
        with locks.host(workspace, recovers=True):  # not into another run's training
            window.close()
    except (WindowOpen, FileUnusable):  # one of the others is not, or the record stays
        if window.away:
            say(back.format(window.away_s))
        raise
    finally:
        for warning in window.warnings:
            say(warning)
    say(back.format(window.away_s) if away else "What was stopped for the GPU runs again.")


def _drop_candidates(workspace: Path, say: Callable[[str], None]) -> None:
    """Remove what a killed evaluation has left in the serving engine of the last run."""
    engine = connect(recent.engine_environment(recent.settings(workspace)), workspace)
    try:
        candidates.drop(workspace, engine, partial(_at_work, workspace), say)
    finally:
        engine.close()


def _at_work(workspace: Path) -> list[str]:
    """Return the stages that could not be stopped.

    Raises `DockerUnavailable` or `RunUnreadable` where nobody knows.
    """
    noted, tls = _engine(workspace)
    if noted == "":
        return []  # they were processes

    from driver.adapters.containers import within
    from driver.runners.leftovers import StageContainers

    def ask() -> list[str]:
        return StageContainers(workspace, host=noted or "", tls=tls).at_work()

    return within(_STAGES_S, ask)


def stop_stages(
    workspace: Path, say: Callable[[str], None], *, but: str | None = None
) -> list[str]:
    """Stop what a driver that died has left running, and return the stages.

    On the engine of its run and on the one of now, without `but`, as far as these answer. One that
    does not keeps nobody from what comes next: the service comes first.
    """
    from driver.adapters.containers import LOCAL, within

    unknown, stopped = None, list[str]()
    try:
        noted, tls = _engine(workspace)
        known = {noted: tls} if noted else {}
    except RunUnreadable as error:
        unknown, noted, known = error, None, _engines_of_window(workspace)
    hosts = dict.fromkeys(host for host in (*known, os.environ.get("DOCKER_HOST")) if host)
    for host in hosts or ("",):
        if (host or LOCAL) == but:
            continue
        try:
            dropped = within(_STAGES_S, partial(_drop, workspace, host, known.get(host)))
        except DockerUnavailable as error:
            if noted != "":  # else its stages are processes, and no engine has to be here
                say(_OLD_ENGINE.format(error))
            continue
        for name in dropped:
            say(f"Stopped {name}, which a driver that died has left running.")
        stopped += dropped
    if unknown and not stopped:
        say(_UNKNOWN_ENGINE.format(unknown, without_userinfo(", ".join(hosts))))
    return stopped


def _drop(workspace: Path, host: str, tls: Tls | None) -> list[str]:
    from driver.runners.leftovers import StageContainers

    return StageContainers(workspace, host=host, tls=tls).drop()


def _engine(workspace: Path) -> tuple[str | None, Tls | None]:
    """Return the engine of the last run's stages, "" for none, None where that was not noted; and
    its certificates. Raises `RunUnreadable`."""
    try:
        run = Run.last(workspace, having=STATE_FILE) or Run.last(workspace)
    except OSError as error:
        raise RunUnreadable(f"the runs of {workspace} cannot be read", why=str(error)) from error
    noted = run.read_state() if run else RunState(run="", docker_host="")
    return noted.docker_host, noted.docker_tls


def _engines_of_window(workspace: Path) -> dict[str, Tls | None]:
    """Return the engine of now and those that an open window names, with their certificates.

    The run has most likely had its stages on one of them.
    """
    found: dict[str, Tls | None] = {World().default_engine(): None}
    with suppress(FileUnusable):  # none, or a damaged one
        record = Window(workspace, None).record()
        found |= {other.host: other.tls for other in record.others}
        if record.backend:
            found[record.backend.docker_host] = record.backend.docker_tls
    return found
