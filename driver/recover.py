"""`driver recover`: the service back, from nothing but the workspace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from contracts.errors import DockerUnavailable, InputMissing, RunUnreadable
from driver import locks, promotion, verification
from driver.signals import SIGNALS
from driver.store import Run
from driver.window import Window


def recover(workspace: Path, say: Callable[[str], None]) -> None:
    """Bring back what a driver that died has left stopped; `say` is told what was done.

    A stage of it that still runs in a container is stopped first: it holds the GPU that the
    service needs, and goes on from its last checkpoint in the next run. Raises `WorkspaceBusy`
    while a driver is at work, `BackendUnavailable` if the service does not become healthy.
    """
    if not workspace.is_dir():
        raise InputMissing(
            f"there is no workspace {workspace}", todo="Name the one of the run: --workspace DIR."
        )
    with locks.workspace(workspace):
        _stop_stages(workspace, say)
        _restore(workspace, say)
        if said := promotion.settle(workspace):
            say(said)
        verification.settle(workspace, say, unfinished=True)


def _restore(workspace: Path, say: Callable[[str], None]) -> None:
    """Bring the backend and the others back, if they were left stopped."""
    window = Window(workspace, backend=None, shield=SIGNALS.shield)
    if not window.is_open:
        say(f"Nothing to recover in {workspace}: no service was left stopped.")
        return
    away = window.record().backend is not None
    with locks.host(workspace, recovers=True):  # not into another run's training
        window.close()
    for warning in window.warnings:
        say(warning)
    say(
        f"The service is back and healthy; it was away for {window.away_s:.0f} s."
        if away
        else "What was stopped for the GPU runs again."
    )


def _stop_stages(workspace: Path, say: Callable[[str], None]) -> None:
    """Stop them on the engine of the run and on the one of now, as far as these answer.

    One that does not keeps nobody from what comes next: the service comes first.
    """
    from driver.runners.leftovers import StageContainers

    noted = _docker_host(workspace)
    hosts = dict.fromkeys(host for host in (noted, os.environ.get("DOCKER_HOST")) if host)
    for host in hosts or ("",):
        try:
            for name in StageContainers(workspace, host=host).drop():
                say(f"Stopped {name}, which a driver that died has left running.")
        except DockerUnavailable as error:
            if noted != "":  # else its stages are processes, and no engine has to be here
                say(
                    "A stage of the run that died may be at work still, and hold the GPU: its "
                    f"container could not be asked for.\nwhy: {error.what}: {error.why}\n"
                    "do:  start that engine, or set DOCKER_HOST as it was in the run; then call "
                    "recover again."
                )


def _docker_host(workspace: Path) -> str | None:
    """Return the engine of the last run's stages; "" for none, None where that is not known."""
    run = Run.last(workspace)
    if run is None:
        return ""
    try:
        return run.read_state().docker_host
    except RunUnreadable:
        return None
