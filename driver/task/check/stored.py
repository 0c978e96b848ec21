"""What the code does to a text before it is stored: it may cut it, or keep another word for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from driver.task.check.checkout import SourceFile
from driver.task.check.python_code import Code, last_name
from driver.task.check.tied import Tied
from driver.task.check.walked import walked

_UPDATES = frozenset({"values", "update", "update_or_create", "create"})
"""Calls that store what they are told by the names of columns."""
_DEPTH = 3
"""How far a value is followed, through variables and functions."""


@dataclass(frozen=True)
class Stored:
    """How the programs that ask the model fill the columns of a table."""

    code: Code
    tied: Tied
    table: frozenset[str]
    """What the table's classes are called."""

    def shortened(self, column: str, length: int) -> str:
        """Return where a text is cut at `length` characters or less, or looked up; or ""."""
        for file, node in self._parts(column):
            match node:
                case ast.Subscript(slice=ast.Slice(lower=None, upper=ast.expr() as upper)):
                    limits, computed = [upper], True
                case ast.Call(args=[_, *limits], keywords=named):  # shorten(text, 500)
                    limits, computed = [*limits, *(each.value for each in named)], False
                case _:
                    limits, computed = [], False
            if self._looks_up(file, node, enums=True) or any(
                self._is_short(file, each, length, computed=computed) for each in limits
            ):
                return file.at(getattr(node, "lineno", 1))
        return ""

    def is_looked_up(self, column: str) -> bool:
        """Return whether another word than the answer's is stored, out of a dict."""
        return any(self._looks_up(file, node, enums=False) for file, node in self._parts(column))

    def _parts(self, column: str) -> Iterator[tuple[SourceFile, ast.AST]]:
        """Yield all nodes of what a column is set to, of variables and functions in it as well."""
        for file, tree in self.code.modules:
            if file.path in self.tied.program:
                for value in self._set(tree, column):
                    yield from self._within(file, tree, value, _DEPTH)

    def _set(self, tree: ast.Module, column: str) -> Iterator[ast.expr]:
        """Yield what a column of an item is set to, and what its validator returns."""
        for node in walked(tree):
            match node:
                case ast.Assign(targets=[ast.Tuple(elts=to)], value=ast.Tuple(elts=values)):
                    yield from (v for t, v in zip(to, values, strict=False) if _is(t, column))
                case ast.Assign(targets=[to], value=value) if _is(to, column):
                    yield value
                case ast.Call(args=[_, ast.Constant(value=name), value]) if name == column:
                    yield value  # setattr
                case ast.Call(keywords=keywords) if last_name(node) in {*_UPDATES, *self.table}:
                    yield from (each.value for each in keywords if each.arg == column)
                case ast.FunctionDef(decorator_list=[ast.Call(args=args)]):
                    if column in {each.value for each in args if isinstance(each, ast.Constant)}:
                        yield from _returned(node)

    def _within(
        self, file: SourceFile, tree: ast.Module, value: ast.expr, depth: int
    ) -> Iterator[tuple[SourceFile, ast.AST]]:
        for node in ast.walk(value) if depth else ():
            yield file, node
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                for each in walked(tree):
                    match each:
                        case ast.Assign(targets=[ast.Name(id=name)], value=inner):
                            if name == node.id:
                                yield from self._within(file, tree, inner, depth - 1)
            elif isinstance(node, ast.Call):
                for where, module, inner in self._called(file, node):
                    yield from self._within(where, module, inner, depth - 1)

    def _called(
        self, file: SourceFile, call: ast.Call
    ) -> Iterator[tuple[SourceFile, ast.Module, ast.expr]]:
        """Yield what the function returns that a call is of: of its own module, or imported."""
        path, name = self.code.imports.origin(file.path, call) or (file.path, last_name(call))
        for other, tree in self.code.modules:
            for each in tree.body if other.path == path else ():
                if isinstance(each, ast.FunctionDef) and each.name == name:
                    yield from ((other, tree, value) for value in _returned(each))

    def _is_short(self, file: SourceFile, node: ast.expr, length: int, *, computed: bool) -> bool:
        """Return whether a number is no more than `length`; `computed`: one may be, not known."""
        if isinstance(node, ast.Name | ast.Attribute):
            node = self.code.constant(file, node) or node
        if isinstance(node, ast.Constant):
            return type(node.value) is int and 0 < node.value <= length
        return computed

    def _looks_up(self, file: SourceFile, node: ast.AST, *, enums: bool) -> bool:
        """Return whether a node is an entry of a dict, or of an enum, by its name."""
        match node:
            case ast.Subscript(value=of) | ast.Call(func=ast.Attribute(value=of, attr="get")):
                pass
            case _:
                return False
        if isinstance(of, ast.Name | ast.Attribute):
            enum = self.code.only(of, file)
            if enum is not None and enum.is_enum:
                return enums
            return isinstance(self.code.constant(file, of), ast.Dict | ast.DictComp)
        return isinstance(of, ast.Dict)


def _is(target: ast.expr, column: str) -> bool:
    return isinstance(target, ast.Attribute) and target.attr == column


def _returned(function: ast.FunctionDef) -> Iterator[ast.expr]:
    for each in ast.walk(function):
        if isinstance(each, ast.Return) and each.value is not None:
            yield each.value
