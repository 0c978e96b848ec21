"""What is wrong with a task's definition, told when it is loaded: before anything is started."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import linecache
import traceback
from collections.abc import Iterator
from enum import Enum
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError, create_model

from contracts.errors import TaskInvalid
from tasks.definition import OnlyFor, Task, walk
from tasks.schema import DATE
from tasks.storage import Column

_PROMPTS = {
    "system_prompt": "prompts/system.md",
    "label_prompt": "prompts/label.md",
    "correction_prompt": "prompts/correction.md",
}
_OF_A_FLAG = ("", ".precision", ".recall", ".f1")
_OF_A_LIST = ("", ".macro_f1", ".exact")


class Fault(NamedTuple):
    """One thing that is wrong."""

    what: str
    """With the file it stands in."""
    todo: str


def require_sound(task: Task) -> None:
    """Raise `TaskInvalid` for a task that contradicts itself, or that no engine could serve."""
    found = [*_of_output(task)] or [
        *_of_code(task),
        *_of_prompts(task),
        *_of_only_for(task),
        *_of_matters(task),
        *_of_storage(task),
    ]
    if found:
        raise TaskInvalid(
            f"tasks/{task.name} contradicts itself, or cannot be served",
            why="; ".join(each.what for each in found),
            todo=" ".join(dict.fromkeys(each.todo for each in found)),
        )


def from_error(name: str, error: Exception) -> TaskInvalid:
    """Return the failure that an error in a task's own code stands for, with file and line."""
    found, said = importlib.util.find_spec(f"tasks.{name}"), f"{type(error).__name__}: {error}"
    folder = Path((found and found.origin) or __file__).parent
    place, line = f"tasks/{name}/__init__.py", 0
    if isinstance(error, SyntaxError) and error.filename:
        place, line = error.filename, error.lineno or 0
    elif isinstance(error, ImportError) and error.path:
        place = error.path
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).is_relative_to(folder):
                place, line = frame.filename, frame.lineno or 0
    text = linecache.getline(place, line).strip()
    shown = Path(place)
    if shown.is_relative_to(folder.parent.parent):
        shown = shown.relative_to(folder.parent.parent)
    where = f"{shown}, line {line}" if line else str(shown)
    return TaskInvalid(
        f"tasks/{name} defines no task: {where}",
        why=f"{said}, at: {text}" if text else said,
        todo=_todo(error),
    )


def _todo(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return "Correct that line: it is no Python."
    if isinstance(error, ImportError):
        return "Define that name there, or take it out of what imports it."
    if isinstance(error, json.JSONDecodeError | ValidationError):
        return "Let the file that this line reads hold one JSON object with the item's fields."
    return "Correct that line; docs/reference/task.md says what a definition may hold."


# --- the answer ----------------------------------------------------------------------------------
def _of_output(task: Task) -> Iterator[Fault]:
    where = _file(task.output)
    for each in sorted(_classes(task.output), key=lambda each: each.__name__):
        if issubclass(each, Enum):
            for alias in (name for name, one in each.__members__.items() if one.name != name):
                value = each[alias].value
                yield Fault(
                    f"{where}: {each.__name__}.{alias} has the value {value!r} of another member",
                    "Give each member of an enum a value of its own.",
                )
    for name in _twice(task.output):
        yield Fault(
            f"{where}: the field {name} is defined twice", "Take one of the two definitions out."
        )
    try:
        task.schema()
    except Exception as error:  # noqa: BLE001  # pydantic's, and that it cannot be served
        yield Fault(
            f"{where}: {error}",
            "Give that field a type and limits that docs/reference/task.md lists, in pydantic's "
            "spelling.",
        )


def _file(model: type) -> str:
    return f"{model.__module__.replace('.', '/')}.py"


def _classes(annotation: Any) -> set[type]:
    """Return the enums and models that an annotation is made of, or a model with its fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [field.annotation for field in annotation.model_fields.values()]
        return {annotation}.union(*map(_classes, inner))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {annotation}
    return set().union(*map(_classes, get_args(annotation)))


def _twice(model: type[BaseModel]) -> list[str]:
    """Return the fields that a class's source defines more than once; Python takes the last."""
    try:
        tree = ast.parse(inspect.getsource(model))
    except (OSError, TypeError, SyntaxError):  # made by a call, say
        return []
    body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
    names = [
        each.target.id
        for each in body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]
    return sorted({name for name in names if names.count(name) > 1})


def _of_code(task: Task) -> Iterator[Fault]:
    """Yield what the package's functions read of an answer that it does not have."""
    found = walk(resources.files(f"tasks.{task.name}"), f"tasks/{task.name}/")
    trees = {path: ast.parse(file.read_bytes()) for path, file in found if path.endswith(".py")}
    answer = task.output.__name__
    kept = {
        each.target.id
        for tree in trees.values()
        for each in ast.walk(tree)
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.target, ast.Name)
        and _named(each.annotation) == answer
    }
    for path, tree in trees.items():
        for line, read, name in sorted(_read_of_answers(tree, answer, kept)):
            if name not in task.output.model_fields and not hasattr(task.output, name):
                yield Fault(
                    f"{path}, line {line}: {read}, and the answer has no such field",
                    "Name a field of the answer there, or take that out.",
                )


def _read_of_answers(tree: ast.AST, answer: str, kept: set[str]) -> set[tuple[int, str, str]]:
    """Return what is read of answers, with its line and the attribute's name.

    An answer is an argument of its class, that of a function written into the task's `stratum` or
    `positive`, and an attribute that some class has declared so (`kept`).
    """
    found: set[tuple[int, str, str]] = set()
    for node in ast.walk(tree):
        args: list[ast.arg] = []
        if isinstance(node, ast.FunctionDef):
            args = [x for x in node.args.args if x.annotation and _named(x.annotation) == answer]
        elif isinstance(node, ast.keyword) and node.arg in {"stratum", "positive"}:
            args = node.value.args.args if isinstance(node.value, ast.Lambda) else []
        given = {each.arg for each in args}
        for each in ast.walk(node) if given or isinstance(node, ast.Module) else ():
            if isinstance(each, ast.Attribute) and (
                (isinstance(each.value, ast.Name) and each.value.id in given)
                or (isinstance(each.value, ast.Attribute) and each.value.attr in kept)
            ):
                found.add((each.lineno, ast.unparse(each), each.attr))
    return found


def _named(annotation: ast.expr) -> str:
    return ast.unparse(annotation).rpartition(".")[2].strip("\"'")


# --- what is said of its fields ------------------------------------------------------------------
def _of_prompts(task: Task) -> Iterator[Fault]:
    for name, file in _PROMPTS.items():
        if not getattr(task, name).strip():
            yield Fault(f"the {name} is empty (tasks/{task.name}/{file})", "Write that prompt.")
    for name, slot in (("correction_prompt", "reasons"), ("backfill_prompt", "fields")):
        try:
            Template(getattr(task, name)).substitute({slot: ""})
        except (KeyError, ValueError) as error:
            yield Fault(
                f"the {name} of tasks/{task.name}/ cannot be filled in: "
                f"{type(error).__name__}: {error}",
                f"Write $$ for a dollar sign; the one slot there is ${slot}.",
            )


def _of_only_for(task: Task) -> Iterator[Fault]:
    where, fields = f"tasks/{task.name}/__init__.py: only_for", task.output.model_fields
    for name, only in task.only_for.items():
        if not isinstance(only, OnlyFor):
            yield Fault(f"{where} has {only!r} for {name}", "Give it OnlyFor(where={…}).")
            continue
        for key in [each for each in (name, *only.where) if each not in fields]:
            yield Fault(f"{where} names {key}, which is no field", _of(fields))
        for key, value in [*only.where.items(), (name, only.otherwise)]:
            if key in fields and not _can_be(task.output, key, value):
                yield Fault(
                    f"{where}[{name!r}]: the field {key} cannot be {json.dumps(value)}",
                    "Give a value, as JSON, that the field can have; `otherwise` is null if not "
                    "given.",
                )


def _can_be(model: type[BaseModel], name: str, value: Any) -> bool:
    field = model.model_fields[name]
    fields: dict[str, Any] = {name: (field.annotation, field)}
    alone: type[BaseModel] = create_model("Alone", **fields)
    try:
        alone.model_validate_json(json.dumps({name: value}), strict=True)
    except (ValidationError, TypeError):
        return False
    return True


def _of(names: Any) -> str:
    return f"Name one of: {', '.join(names)}."


def _of_matters(task: Task) -> Iterator[Fault]:
    known = measure_names(task)
    for name in (each for each in task.matters if each not in known):
        yield Fault(
            f"tasks/{task.name}/__init__.py: matters names {name}, which is no measure", _of(known)
        )


def measure_names(task: Task) -> list[str]:
    """Return the names that images/labeler/measures.py gives its measures for a task."""
    found = ["valid", "rules", "rules.positive"]
    for name, schema in task.schema()["properties"].items():
        found += [f"{name}{suffix}" for suffix in _suffixes(schema)]
        found += [f"{name}.kappa"] if task.ordinal.get(name) else []
    return [*found, *(f"{name}{each}" for name in task.calibrated for each in (".brier", ".ece"))]


def _suffixes(schema: dict[str, Any]) -> tuple[str, ...]:
    options = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    only = options[0] if len(options) == 1 else {}
    if "enum" in only or "const" in only:
        return ("", ".macro_f1")
    if only.get("type") == "array" and only["items"].keys() & {"enum", "const"}:
        return _OF_A_LIST
    return _OF_A_FLAG if only.get("type") == "boolean" else ("",)


def _of_storage(task: Task) -> Iterator[Fault]:
    if task.storage is None:
        return
    where, schemas = f"tasks/{task.name}/__init__.py: storage", task.schema()["properties"]
    kept = task.storage
    for name in dict.fromkeys([*kept.columns, *kept.answered, *kept.textless]):
        if name not in schemas:
            yield Fault(f"{where} names {name}: the answer has no such field", _of(schemas))
    for name, column in kept.columns.items():
        if name in schemas and (why := _lacks_room(column, schemas[name])):
            yield Fault(
                f"{where}, column {name}: {why}", "Give the column more length, or the field less."
            )


def _lacks_room(column: Column, schema: dict[str, Any]) -> str:
    """Return why a column cannot hold every value of its field, "" if it can."""
    if (length := column.length) is None:
        return ""
    most = [len(column.null or "")]
    for option in schema.get("anyOf", [schema]):
        texts = [each for each in option.get("enum", [option.get("const")]) if each is not None]
        if texts:
            most += [len(str(each)) for each in texts]
        elif option.get("type") == "string" and option.get("pattern") != DATE:
            most.append(option["maxLength"])
        elif option.get("type") != "null":
            return "a length is for texts, and the field is none"
    return (
        ""
        if max(most) <= length
        else (f"it holds {length} characters, and the field may have {max(most)} characters")
    )
