"""The tasks a model can be retrained for: each is a package here that holds one `TASK`."""

import importlib
import pkgutil

from contracts.errors import TaskInvalid
from tasks import faults
from tasks.chat import QWEN3, ChatFormat
from tasks.definition import (
    InvalidAnswer,
    Item,
    LabelRule,
    Modelfile,
    OnlyFor,
    Serving,
    Task,
    UnservableSchema,
    Violation,
)
from tasks.storage import Column, Storage

__all__ = [
    "QWEN3",
    "ChatFormat",
    "Column",
    "InvalidAnswer",
    "Item",
    "LabelRule",
    "Modelfile",
    "OnlyFor",
    "Serving",
    "Storage",
    "Task",
    "UnknownTask",
    "UnservableSchema",
    "Violation",
    "known_tasks",
    "load_task",
]


class UnknownTask(ValueError):
    """No package of that name defines a task."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown task {name!r}; known: {', '.join(known_tasks())}")


def known_tasks() -> list[str]:
    """Return the names that `load_task` accepts, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def load_task(name: str) -> Task:
    """Return `TASK` of the package `tasks.<name>`.

    Raises `UnknownTask` for any other name, `TaskInvalid` where the package defines no task, or
    one that contradicts itself.
    """
    # Looked up in the list first, so that a name from a settings file can never import
    # something else, and an import error inside a task is not mistaken for an unknown one.
    if name not in known_tasks():
        raise UnknownTask(name)
    try:
        task = getattr(importlib.import_module(f"tasks.{name}"), "TASK", None)
        if not isinstance(task, Task):
            raise TaskInvalid(
                f"tasks/{name}/__init__.py defines no TASK",
                why=f"TASK there is a {type(task).__name__}" if task is not None else "",
                todo="Write TASK = Task(…) there.",
            )
        if task.name != name:
            raise TaskInvalid(
                f"tasks/{name}/__init__.py: name is {task.name!r}",
                why="a task is found by the name of its folder, and says the same one",
                todo=f'Write name="{name}" there, or rename the folder.',
            )
        faults.require_sound(task)
    except TaskInvalid:
        raise
    except (Exception, SystemExit) as error:  # whatever a package's own code may raise
        raise faults.from_error(name, error) from error
    return task
