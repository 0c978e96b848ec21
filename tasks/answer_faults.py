"""What is wrong with a task's answer: with its model, and with what the package reads of it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from tasks.definition import Task, walk

_CHANGES = ("strip_whitespace", "to_lower", "to_upper")
"""Constraints that change a text; in a model's configuration they begin with `str_`."""
_BOUNDS = (
    ("minLength", "maxLength", "min_length", "max_length"),
    ("minItems", "maxItems", "min_length", "max_length"),
    ("minimum", "maximum", "ge", "le"),
)
"""What bounds a value from below and above: in a schema, and as pydantic calls it."""
_ATTEMPTS = 3


class Fault(NamedTuple):
    """One thing that is wrong."""

    what: str
    """With the file it stands in."""
    todo: str


def of_output(task: Task) -> Iterator[Fault]:
    """Yield what makes the output model one that cannot be served, or parsed as it is served."""
    where = file_of(task.output)
    if inner := _holds_itself(task.output):
        yield Fault(
            f"{file_of(inner)}: {inner.__name__} holds itself, at whatever depth",
            "Give that field a class that does not: no schema without an end can be served.",
        )
        return
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
    yield from _of_fields(task.output)
    for name, field in task.output.model_fields.items():
        if lacking := [each for each in ("title", "description") if not getattr(field, each)]:
            yield Fault(
                f"{where}: {task.output.__name__}.{name} has no {' and no '.join(lacking)}",
                'Write Field(title="…", description="…"): pages show the one, and prompts the '
                "other.",
            )
    try:
        schema = task.schema()
    except Exception as error:  # noqa: BLE001  # pydantic's, and that it cannot be served
        yield Fault(
            f"{where}: {str(error).splitlines()[0]}",
            "Give that field a type and limits that docs/reference/task.md lists, in pydantic's "
            "spelling.",
        )
        return
    yield from _of_limits(schema, f"{where}: {task.output.__name__}")


def _of_fields(output: type[BaseModel]) -> Iterator[Fault]:
    """Yield what lets an answer, once parsed, be another than the text that was parsed."""
    models = [each for each in _classes(output) if issubclass(each, BaseModel)]
    for model in sorted(models, key=lambda each: each.__name__):
        where = f"{file_of(model)}: {model.__name__}"
        if model.model_config.get("extra") != "forbid":
            yield Fault(
                f'{where} has no extra="forbid" in its configuration, and takes unknown fields',
                "Write in that class: model_config = "
                'ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False).',
            )
        for change in _CHANGES:
            if model.model_config.get(f"str_{change}"):
                yield Fault(f"{where} has str_{change} in its configuration", _KEPT)
        for name in model.model_computed_fields:
            yield Fault(
                f"{where}.{name} is a computed field, and the parser refuses it in an answer",
                "Make it a plain property or a field.",
            )
        for name, field in model.model_fields.items():
            if not field.is_required():
                yield Fault(
                    f"{where}.{name} has a default, which would fill in what an answer lacks",
                    "Take the default out, default=None too: a model writes every field, and null "
                    "where it has no value, as `… | None` allows.",
                )
            if field.alias or field.validation_alias or field.serialization_alias:
                yield Fault(
                    f"{where}.{name} has an alias",
                    "Name the field as the answer has it; `title` is what people read.",
                )
            said = [*field.metadata, *_within(field.annotation)]
            for change in [x for x in _CHANGES if any(getattr(y, x, None) is True for y in said)]:
                yield Fault(f"{where}.{name} has {change}", _KEPT)


_KEPT = (
    "Take it out, as its limits are not those of the text that a model writes: nothing is ever "
    "repaired, and a validator may refuse what is blank."
)


def _within(annotation: Any) -> Iterator[Any]:
    """Yield all that an annotation is put together from."""
    for each in get_args(annotation):
        yield each
        yield from _within(each)


def _of_limits(node: dict[str, Any], where: str) -> Iterator[Fault]:
    for least, most, lower, upper in _BOUNDS:
        if node.keys() >= {least, most} and node[least] > node[most]:
            yield Fault(
                f"{where} has {lower}={node[least]} and {upper}={node[most]}: no answer keeps both",
                f"Let {lower} be {upper} at most.",
            )
    for each in node.get("anyOf", ()):
        yield from _of_limits(each, where)
    if "items" in node:
        yield from _of_limits(node["items"], f"{where}[]")
    for name, child in node.get("properties", {}).items():
        yield from _of_limits(child, f"{where}.{name}")


def file_of(model: type) -> str:
    """Return the file of the checkout that a class stands in."""
    return f"{model.__module__.replace('.', '/')}.py"


def _classes(annotation: Any) -> set[type]:
    """Return the enums and models that an annotation is made of, or a model with its fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [field.annotation for field in annotation.model_fields.values()]
        return {annotation}.union(*map(_classes, inner))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {annotation}
    return set().union(*map(_classes, get_args(annotation)))


def _holds_itself(annotation: Any, above: tuple[type, ...] = ()) -> type | None:
    """Return a model that stands inside of itself."""
    inner: list[Any] = [*get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in above:
            return annotation
        above = (*above, annotation)
        inner = [field.annotation for field in annotation.model_fields.values()]
    return next((found for each in inner if (found := _holds_itself(each, above))), None)


def _twice(model: type[BaseModel]) -> list[str]:
    """Return the fields that a class's source defines more than once; Python takes the last."""
    try:
        tree = _parsed(inspect.getsource(model))
    except (OSError, TypeError, SyntaxError):  # made by a call, say
        return []
    body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
    names = [
        each.target.id
        for each in body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]
    return sorted({name for name in names if names.count(name) > 1})


@cache
def _parsed(source: str | bytes) -> ast.Module:
    """Return the tree of a source, which nobody may change.

    CPython 3.11 keeps one count of depths for all threads, so that an `ast.parse` which another
    thread comes into raises a SystemError (its issue 106905); the next one does not.
    """
    for _ in range(_ATTEMPTS - 1):
        with suppress(SystemError):
            return ast.parse(source)
    return ast.parse(source)


def of_code(task: Task) -> Iterator[Fault]:
    """Yield what the package's functions read of an answer that it does not have."""
    found = walk(resources.files(f"tasks.{task.name}"), f"tasks/{task.name}/")
    trees = {path: _parsed(file.read_bytes()) for path, file in found if path.endswith(".py")}
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
