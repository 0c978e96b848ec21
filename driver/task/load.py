"""The task that the settings name."""

from __future__ import annotations

from contracts.errors import SettingsInvalid
from driver.task.trial import try_out
from tasks import Task, UnknownTask, load_task


def load_named(name: str) -> Task:
    """Return the task of that name, its functions tried out, and all that is made of it.

    Raises `SettingsInvalid` where this checkout has none, `TaskInvalid` for one that is unsound or
    cannot be rendered.
    """
    from driver.task.render import render  # which loads tasks by this module
    from driver.task.source import Source

    try:
        task = load_task(name)
    except UnknownTask as error:
        raise SettingsInvalid(
            "the settings name no task of this checkout", why=str(error)
        ) from error
    try_out(task)
    render(Source(task))
    return task
