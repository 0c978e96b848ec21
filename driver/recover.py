"""`driver recover`: the service back, from nothing but the workspace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contracts.errors import DockerUnavailable, InputMissing
from driver import locks, promotion
from driver.signals import SIGNALS
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
        for name in _stop_stages(workspace):
            say(f"Stopped {name}, which a driver that died has left running.")
        _restore(workspace, say)
        if said := promotion.settle(workspace):
            say(said)


def _restore(workspace: Path, say: Callable[[str], None]) -> None:
    """Bring the backend and the others back, if they were left stopped."""
    window = Window(workspace, backend=None, shield=SIGNALS.shield)
    if not window.is_open:
        say(f"Nothing to recover in {workspace}: no service was left stopped.")
        return
    away = window.record().backend is not None
    window.close()
    for warning in window.warnings:
        say(warning)
    say(
        f"The service is back and healthy; it was away for {window.away_s:.0f} s."
        if away
        else "What was stopped for the GPU runs again."
    )


def _stop_stages(workspace: Path) -> list[str]:
    from driver.runners.leftovers import StageContainers

    try:
        return StageContainers(workspace).drop()
    except DockerUnavailable:
        return []  # stages ran as processes, or the engine is down: the service comes first
