"""How many characters a column holds: by its type, an alias of it, or its declarative base."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from driver.task.check.python_code import Attribute, Class, Code, last_name

CALLS = frozenset({"Column", "mapped_column"})
_TEXTS = frozenset({"String", "VARCHAR", "Unicode", "CHAR", "NVARCHAR", "AutoString"})
_NO_TYPES = frozenset(
    {"ForeignKey", "CheckConstraint", "Computed", "Identity", "Index", "Sequence"}
    | {"UniqueConstraint", "FetchedValue"}
)
"""What a column's call is told without a name that is no type."""
_MAP = "type_annotation_map"


@dataclass(frozen=True)
class Limit:
    """A length that a column's texts must keep."""

    argument: ast.expr
    """As it is written: a number, or a name of one."""
    type: ast.Call | None
    """The call that has it; None for one that is no type."""
    is_own: bool = True
    """Whether no other column has it too, as those of an alias may."""


def limits(code: Code, model: Class, column: Attribute) -> Iterator[Limit]:
    """Yield the lengths of a column of texts: of its own type, or else of its annotation's.

    SQLAlchemy goes in this order: what the column's call is told, what an alias in the annotation
    is (`Annotated[str, mapped_column(String(50))]`), what the base maps the annotation to.
    """
    named = aliases(code, column)
    for each in (column.value, column.annotation, *named.values()):
        is_own = each in (column.value, column.annotation)
        for node in ast.walk(each) if each is not None else ():
            if (found := type_of(node)) is not None:
                yield from _in(code, column, found, is_own=is_own)
                return
            if (length := _max_length(node)) is not None:
                yield Limit(length, None, is_own)
                return
    mapped = _mapped(code, model)
    keys = [*named, *map(ast.unparse, named.values())]
    keys += [name.id for each in (column.annotation, *named.values()) for name in _names(each)]
    for found in [mapped[key] for key in keys if key in mapped][:1]:
        yield from _in(code, column, found, is_own=False)


def type_of(node: ast.AST | None) -> ast.expr | None:
    """Return the type that a call of Column, mapped_column or SQLModel's Field is told."""
    if not isinstance(node, ast.Call):
        return None
    named = {each.arg: each.value for each in node.keywords}
    if last_name(node) == "Field":
        return type_of(named["sa_column"]) if "sa_column" in named else named.get("sa_type")
    if last_name(node) not in CALLS:  # `deferred(mapped_column(…))`
        return type_of(node.args[0]) if node.args else None
    told = [each for each in node.args if not isinstance(each, ast.Constant)]
    types = [each for each in told if last_name(each) not in _NO_TYPES]
    return types[0] if types else named.get("type_")


def _in(code: Code, column: Attribute, told: ast.expr, *, is_own: bool) -> Iterator[Limit]:
    """Yield the lengths in a type, or in the one that a name stands for, which others may share."""
    named = code.constant(column.file, told) if isinstance(told, ast.Name) else None
    for node in ast.walk(told if named is None else named):
        if isinstance(node, ast.Call) and last_name(node) in _TEXTS:
            lengths = [each.value for each in node.keywords if each.arg == "length"]
            for argument in [*lengths, *node.args][:1]:
                yield Limit(argument, node, is_own and named is None)


def _max_length(node: ast.AST) -> ast.expr | None:
    """Return the length of a column that SQLModel makes of a field without a type of its own."""
    if not isinstance(node, ast.Call) or last_name(node) != "Field":
        return None
    named = {each.arg: each.value for each in node.keywords}
    return None if "sa_column" in named else named.get("max_length")


def _names(annotation: ast.expr | None) -> list[ast.Name]:
    nodes = ast.walk(annotation) if annotation is not None else ()
    return [each for each in nodes if isinstance(each, ast.Name)]


def aliases(code: Code, column: Attribute) -> dict[str, ast.expr]:
    """Return the names in an annotation that stand for `Annotated[…]`."""
    known = {each.id: code.constant(column.file, each) for each in _names(column.annotation)}
    return {
        name: value
        for name, value in known.items()
        if isinstance(value, ast.Subscript) and last_name(value) == "Annotated"
    }


def _mapped(code: Code, model: Class) -> dict[str, ast.expr]:
    """Return what a model's base maps annotations to, as they are written.

    The base says so itself, by its registry, or in the call that makes it.
    """
    attributes = code.inherited(model)
    bases = {base for each in code.lineage(model) for base in each.bases}
    made = [value for (_, name), value in code.constants.items() if name in bases]
    told = [attributes[name].value for name in (_MAP, "registry") if name in attributes]
    dicts = [
        next((k.value for k in each.keywords if k.arg == _MAP), None)
        if isinstance(each, ast.Call)
        else each
        for each in (*told, *made)
    ]
    return {
        ast.unparse(key): value
        for each in dicts
        if isinstance(each, ast.Dict)
        for key, value in zip(each.keys, each.values, strict=True)
        if key is not None
    }
