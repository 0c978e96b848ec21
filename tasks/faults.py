"""What is wrong with a task's definition, told when it is loaded: before anything is started.

Nothing of the task is run here; what its functions do with answers, the driver tries out
(driver/task/trial.py).
"""

from __future__ import annotations

import importlib.util
import json
import linecache
import re
import traceback
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import SchemaError

from contracts.errors import TaskInvalid
from tasks.answer_faults import file_of, of_code, of_output
from tasks.definition import Task
from tasks.part_faults import of_parts
from tasks.wiring_faults import measure_names, of_wiring

__all__ = ["file_of", "from_error", "measure_names", "require_sound"]

_JSON = re.compile(r"""["']([\w./-]+\.json)["']""")
"""A file that the package's code reads."""


def require_sound(task: Task) -> None:
    """Raise `TaskInvalid` for a task that contradicts itself, or that no engine could serve."""
    # Each looks into what the one before has found to be as it should.
    found = list(of_parts(task)) or list(of_output(task)) or [*of_code(task), *of_wiring(task)]
    if found:
        raise TaskInvalid(
            f"tasks/{task.name} contradicts itself, or cannot be served",
            why="; ".join(each.what for each in found),
            todo=" ".join(dict.fromkeys(each.todo for each in found)),
        )


def from_error(
    name: str, error: BaseException, what: str = "defines no task", on: str = "", todo: str = ""
) -> TaskInvalid:
    """Return the failure that an error in a task's own code stands for, with file and line."""
    found = importlib.util.find_spec(f"tasks.{name}")
    folder = Path((found and found.origin) or __file__).parent
    place, line, end = f"tasks/{name}/__init__.py", 0, 0
    if isinstance(error, SyntaxError) and error.filename:
        place, line = error.filename, error.lineno or 0
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).is_relative_to(folder):
                place, line, end = frame.filename, frame.lineno or 0, frame.end_lineno or 0
    text, said = linecache.getline(place, line).strip(), _said(error)
    call = "".join(linecache.getline(place, each) for each in range(line, end + 1))
    if isinstance(error, json.JSONDecodeError | ValidationError) and (file := _JSON.search(call)):
        place, line, text = str(folder / file[1]), getattr(error, "lineno", 0), ""
    shown = Path(place)
    if shown.is_relative_to(folder.parent.parent):
        shown = shown.relative_to(folder.parent.parent)
    where = f"{shown}, line {line}" if line else str(shown)
    return TaskInvalid(
        f"tasks/{name} {what}: {where}",
        why=f"{said}{f', at: {text}' if text else ''}{f'; on {on}' if on else ''}",
        todo=todo or _todo(error, "that line" if line else "that file"),
    )


def _said(error: BaseException) -> str:
    """Return an error in words; of pydantic's on a value, each field with what is wrong with it; of
    its on a schema, whose lines are mostly its own classes, the fields and the last line."""
    text = str(error).strip()
    if isinstance(error, SchemaError):
        fields = "".join(f"{name}: " for name in re.findall(r'Field "(\w+)"', text))
        return f"{fields}{text.splitlines()[-1]}"
    if isinstance(error, ValidationError):
        text = "; ".join(
            ": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"])))
            for each in error.errors(include_url=False, include_input=False)
        )
        return f"{error.title} does not take it: {text}"
    return f"{type(error).__name__}: {text}"


def _todo(error: BaseException, place: str) -> str:
    match error:
        case SystemExit():
            return "Take the call that ends the process out of what is run on import."
        case SyntaxError():
            return "Correct that line: it is no Python."
        case ModuleNotFoundError():
            return "Correct that name, or install what it names wherever the task is used."
        case ImportError():
            return "Correct that name, or define it in the module that it is taken from."
        case json.JSONDecodeError() | ValidationError():
            return "Let that file hold one JSON object with the item's fields."
    return f"Correct {place}; docs/reference/task.md says what a definition may hold."
