"""The task that the settings name."""

from __future__ import annotations

from contracts.errors import SettingsInvalid
from tasks import Task, UnknownTask, load_task


def load_named(name: str) -> Task:
    """Return the task of that name; raises `SettingsInvalid` where this checkout has none."""
    try:
        return load_task(name)
    except UnknownTask as error:
        raise SettingsInvalid(
            "the settings name no task of this checkout", why=str(error)
        ) from error
