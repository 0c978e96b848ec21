"""How Python code parses JSON, and the classes that it makes of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeGuard

from driver.task.check.python_code import last_name
from driver.task.check.walked import walked

_PARSERS = frozenset({"raw_decode", "model_validate_json", "validate_json", "parse_raw"})
_MAKES = frozenset({"model_validate", "parse_obj"})
"""Methods of a class that make one of it of what is parsed."""
_TAKES_CLASS = frozenset({"TypeAdapter", "structure", "with_structured_output"})
_TYPES = frozenset({"type", "pydantic_object", "format", "response_format", "response_model"})
"""How a parser, or a client that parses, is told the class of an answer."""


def parses(tree: ast.Module) -> bool:
    """Return whether a module parses JSON."""
    return any(is_parser(node) for node in walked(tree))


def is_parser(node: ast.AST) -> TypeGuard[ast.Call]:
    """Return whether a node is a call that parses JSON, or makes a class of it."""
    match node:
        case ast.Call(func=ast.Attribute(attr="decode"), args=[given, *_]):
            return not isinstance(given, ast.Constant)  # msgspec's: that of bytes has a constant
        case ast.Call(func=ast.Attribute(attr="structure"), args=[_, _, *_]):  # cattrs
            return True
        case ast.Call(func=ast.Attribute(attr="parse"), keywords=named):  # openai's client
            return any(each.arg in _TYPES for each in named)
        case ast.Call():
            name = last_name(node)
            return name in _PARSERS or name.endswith("loads")
    return False


def classes_made(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the names of classes that parsed JSON is made into, or that a client answers in."""
    names = {name for node in walked(tree) for name in _assigned_json(node)}
    for node in walked(tree):
        if not isinstance(node, ast.Call):
            continue
        match node:
            case ast.Call(func=ast.Attribute(value=made, attr=name)) if name in _PARSERS:
                yield made
            case ast.Call(func=ast.Attribute(value=made, attr=name), args=[given, *_]) if (
                name in _MAKES and _is_json(given, names)
            ):
                yield made
            case ast.Call(func=made, args=[], keywords=[ast.keyword(arg=None, value=given)]) if (
                _is_json(given, names)
            ):
                yield made
        if last_name(node) in _TAKES_CLASS:
            yield from node.args
        if is_parser(node) or _is_of_a_client(node):
            yield from (_made(each.value) for each in node.keywords if each.arg in _TYPES)


def _is_of_a_client(call: ast.Call) -> bool:
    """Return whether a call asks a model, or makes a parser of its answers: no route does."""
    named = {each.arg for each in call.keywords}
    return not named.isdisjoint({"messages", "prompt", "pydantic_object"}) or "model" in named


def _made(node: ast.expr) -> ast.expr:
    """Return the class of `Answer.model_json_schema()`, or what else is given for one."""
    match node:
        case ast.Call(func=ast.Attribute(value=made, attr="model_json_schema" | "schema")):
            return made
    return node


def _assigned_json(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_json(value, set()):
            yield name
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if _is_json(
            value, set()
        ):
            yield name


def _is_json(node: ast.expr, names: set[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in names
        case ast.Call(func=ast.Attribute(attr="json"), args=[]):  # a response's
            return True
    return is_parser(node)
