"""What the commands of `python -m driver` take from their parsed arguments: settings, a session."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import SettingsInvalid

if TYPE_CHECKING:
    from driver.session import Session
    from driver.settings import Settings


def settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings in effect; `--workspace` wins over them."""
    from driver.settings import load

    loaded = load(arguments.config, arguments.set)
    if arguments.workspace:
        loaded = loaded.model_copy(update={"workspace": arguments.workspace})
    _check_name(loaded.workspace)
    return loaded


def workspace(arguments: argparse.Namespace) -> Path:
    """Return the workspace; one that is named needs no settings."""
    found = Path(arguments.workspace or settings(arguments).workspace)
    _check_name(found)
    return found


def _check_name(workspace: Path) -> None:
    """Raise `SettingsInvalid` for a workspace that no record could name: they are all UTF-8."""
    try:
        str(workspace.resolve()).encode()
    except UnicodeEncodeError as error:
        raise SettingsInvalid(
            f"the name of the workspace {str(workspace)!a} is not UTF-8",
            why=str(error),
            todo="Rename the folder, or name another one: --workspace DIR.",
        ) from error


def session(arguments: argparse.Namespace) -> Session:
    """Return a session of the settings; refused where they name no task, or one that is none."""
    opened = session_of_any_task(arguments)
    _ = opened.task
    return opened


def session_of_any_task(arguments: argparse.Namespace) -> Session:
    """Return one for what has to work though somebody is in the middle of an edit of the task."""
    from driver.report.display import Display
    from driver.session import Session

    return Session(settings(arguments), Display())


@contextmanager
def at_work(arguments: argparse.Namespace) -> Iterator[Session]:
    """Hold what only one run may have; whatever happens inside, the service comes back."""
    from driver import locks
    from driver.takeover import take_over

    opened = session(arguments)
    with ExitStack() as held:
        held.enter_context(locks.workspace(opened.workspace))
        wants_gpu = opened.settings.backend or opened.settings.train.device == "cuda"
        if wants_gpu or opened.window.is_open:  # a dead run's, which is brought back
            held.enter_context(locks.host(opened.workspace))
        held.callback(opened.close)
        try:
            take_over(opened)
            yield opened
        finally:
            opened.bring_back()
