"""What the code does to a text before it is stored: it may cut it, or keep another word for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from driver.task.check.checkout import SourceFile
from driver.task.check.python_code import Code, last_name
from driver.task.check.tied import Tied

_UPDATES = frozenset({"values", "update", "update_or_create", "create"})
"""Calls that store what they are told by the names of columns."""
_DEPTH = 3
"""How far a value is followed, through a variable and a function."""


def fits(code: Code, tied: Tied, table: frozenset[str], column: str, length: int) -> str | None:
    """Return where a program that asks the model makes a column's value short enough; or None.

    It is cut at `length` characters or less, or looked up in an enum or table of words.
    `table`: what the classes of the column's table are called.
    """
    for file, tree in code.modules:
        if file.path in tied.program:
            for value in _stored(tree, table, column):
                if _is_changed(code, file, tree, value, length, _DEPTH):
                    return file.at(value.lineno)
    return None


def _stored(tree: ast.Module, table: frozenset[str], column: str) -> Iterator[ast.expr]:
    """Yield what a column of an item is set to, and what its validator returns."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if name == column:
                yield value
            case ast.Call(args=[_, ast.Constant(value=name), value]) if (
                name == column and last_name(node) == "setattr"
            ):
                yield value
            case ast.Call(keywords=keywords) if last_name(node) in {*_UPDATES, *table}:
                yield from (each.value for each in keywords if each.arg == column)
            case ast.FunctionDef(decorator_list=[ast.Call(args=args)]):
                if column in {each.value for each in args if isinstance(each, ast.Constant)}:
                    yield from _returned(node)


def _is_changed(
    code: Code, file: SourceFile, tree: ast.Module, value: ast.expr, length: int, depth: int
) -> bool:
    """Return whether an expression cuts or looks up, or a variable or function in it does."""
    for node in ast.walk(value) if depth else ():
        match node:
            case ast.Subscript(slice=ast.Slice(lower=None, upper=ast.expr() as upper)):
                if _is_short(code, file, upper, length):
                    return True
            case ast.Subscript(value=of) | ast.Call(func=ast.Attribute(value=of, attr="get")):
                if isinstance(of, ast.Name | ast.Attribute) and _is_table(code, file, of):
                    return True
            case ast.Call(args=[_, *limits], keywords=named):  # shorten(text, 500)
                limits = [*limits, *(each.value for each in named)]
                if any(_is_short(code, file, each, length, known=True) for each in limits):
                    return True
        inner = [*_assigned(tree, node), *_called(code, file, node)]
        if any(_is_changed(code, file, tree, each, length, depth - 1) for each in inner):
            return True
    return False


def _is_short(
    code: Code, file: SourceFile, node: ast.expr, length: int, *, known: bool = False
) -> bool:
    """Return whether a number is no more than `length`; `known`: one that is computed is not."""
    if isinstance(node, ast.Name | ast.Attribute):
        node = code.constant(file, node) or node
    if isinstance(node, ast.Constant):
        return type(node.value) is int and 0 < node.value <= length
    return not known


def _is_table(code: Code, file: SourceFile, node: ast.Name | ast.Attribute) -> bool:
    enum = code.only(node, file)
    return (enum is not None and enum.is_enum) or isinstance(code.constant(file, node), ast.Dict)


def _assigned(tree: ast.Module, node: ast.AST) -> Iterator[ast.expr]:
    """Yield what a variable is set to anywhere in its module."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for each in ast.walk(tree):
            match each:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name == node.id:
                    yield value


def _called(code: Code, file: SourceFile, node: ast.AST) -> Iterator[ast.expr]:
    """Yield what the function returns that a call is of: of its own module, or an imported one."""
    if not isinstance(node, ast.Call):
        return
    where, name = code.imports.origin(file.path, node) or (file.path, last_name(node))
    for other, tree in code.modules:
        if other.path == where:
            for each in tree.body:
                if isinstance(each, ast.FunctionDef) and each.name == name:
                    yield from _returned(each)


def _returned(function: ast.FunctionDef) -> Iterator[ast.expr]:
    for each in ast.walk(function):
        if isinstance(each, ast.Return) and each.value is not None:
            yield each.value
