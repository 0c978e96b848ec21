"""What the code does to a text before it is stored: only what is the answer's own breaks for sure.

By names: what a column's name is given anywhere in the programs that ask the model is followed back
through variables and functions, until an entry of that name is read. Every other step counts as one
that may store something else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property

from driver.task.check.checkout import SourceFile
from driver.task.check.python_code import Code, Function, given, last_name, parameters, texts_in
from driver.task.check.tied import Tied
from driver.task.check.walked import walked

_UPDATES = frozenset({"values", "update", "update_or_create", "create"})
"""Calls that store what they are told by the names of columns."""
_SAME = frozenset({"strip", "lstrip", "rstrip", "lower", "casefold", "upper", "title", "copy"})
"""Methods that make no text fit, nor another word of one."""
_DEPTH = 4
"""How many functions deep a value is followed."""


class Way(Enum):
    """How a text comes into a column."""

    OWN = auto()
    """As the answer has it."""
    CUT = auto()
    """Made as short as the column is."""
    OTHER = auto()
    """By a step that is not followed, or that keeps something else for it."""


@dataclass(frozen=True, eq=False)
class _Scope:
    """What an expression stands in: a function, or a module."""

    file: SourceFile
    within: ast.AST
    given: Mapping[str, tuple[_Scope, ast.expr]] = field(default_factory=dict)
    """What variables stand for, by their names."""
    depth: int = 0

    def at(self, node: ast.AST) -> str:
        return self.file.at(getattr(node, "lineno", 1))

    def taken(self) -> list[str]:
        return parameters(self.within) if isinstance(self.within, Function) else []


_Value = tuple[_Scope, ast.expr]


@dataclass(frozen=True)
class Stored:
    """How the programs that ask the model fill the columns of a table."""

    code: Code
    tied: Tied
    table: frozenset[str]
    """What the table's classes are called."""
    columns: frozenset[str]
    """All columns of the task's."""

    def ways(self, names: frozenset[str], length: int | None) -> dict[Way, str]:
        """Return the ways into what goes by these names, each with its first place.

        `length`: what is no more than this is cut; None: it is of values, not of their length.
        """
        found: dict[Way, str] = {}
        following = _Following(self, names, length)
        for scope, node in self.nodes:
            for value in following.set_by(scope, node):
                for way, place in following.steps(*value):
                    found.setdefault(way, place)
        return found

    @cached_property
    def nodes(self) -> list[tuple[_Scope, ast.AST]]:
        """All that the programs have, each with the innermost function that it stands in."""
        found = list[tuple[_Scope, ast.AST]]()
        for file, tree in self.code.modules:
            if file.path in self.tied.program:
                scopes = dict.fromkeys(walked(tree), _Scope(file, tree))
                for node in walked(tree):
                    if isinstance(node, Function):
                        scopes |= dict.fromkeys(ast.walk(node), _Scope(file, node))
                found += ((scope, node) for node, scope in scopes.items())
        return found

    def stores(self, call: ast.Call) -> bool:
        """Return whether a call makes a row, or changes one."""
        return last_name(call) in {*_UPDATES, *self.table}

    def has_most(self, keys: Iterable[str | None]) -> bool:
        """Return whether more than half of the columns are among these."""
        return 2 * len(self.columns.intersection(keys)) > len(self.columns)


@dataclass
class _Following:
    """Follows what goes by one of some names; each expression is looked at once in a scope."""

    kept: Stored
    names: frozenset[str]
    length: int | None
    _known: set[tuple[int, int]] = field(default_factory=set)

    def set_by(self, scope: _Scope, node: ast.AST) -> Iterator[_Value]:
        """Yield what the names are given: in an object, an entry, a call, or by a validator."""
        match node:
            case ast.Assign(targets=targets, value=value):
                pairs = (pair for each in targets for pair in _pairs(each, value))
                yield from ((scope, v) for t, v in pairs if _target(t) in self.names)
            case ast.Dict():
                entries = {_text(k): v for k, v in zip(node.keys, node.values, strict=True)}
                if self.kept.has_most(entries):
                    yield from ((scope, v) for k, v in entries.items() if k in self.names)
            case ast.DictComp(key=key, value=value):
                yield from self._by_key(scope, key, value)
            case ast.Call(func=ast.Name(id="setattr"), args=[_, ast.expr() as key, value]):
                yield from self._by_key(scope, key, value)
            case ast.Call():
                yield from self._told(scope, node)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=told) if name in self.names:
                calls = (each for each in ast.walk(told) if isinstance(each, ast.Call))
                yield from ((scope, v) for v in calls if last_name(v).endswith("Validator"))
            case ast.FunctionDef(decorator_list=made):
                told_of = [a for each in made if isinstance(each, ast.Call) for a in each.args]
                if not self.names.isdisjoint(_text(each) or last_name(each) for each in told_of):
                    yield from ((scope, each) for each in _returned(node))

    def _told(self, scope: _Scope, call: ast.Call) -> Iterator[_Value]:
        """Yield what a call stores, gives a function, or makes an object of most columns of.

        What it stores as a whole has entries of these names, where it is not written out here.
        """
        told = {each.arg: each.value for each in call.keywords}
        cls = self.kept.code.only(call.func, scope.file)
        is_table = cls is not None and any(a.name == "__tablename__" for a in cls.attributes)
        makes = last_name(call)[:1].isupper() and not self.kept.stores(call)
        if not makes or (self.kept.has_most(told) and not is_table):
            yield from ((scope, value) for key, value in told.items() if key in self.names)
        if self.kept.stores(call):
            wholes = [each.value for each in call.keywords if each.arg is None]
            for each in [*wholes, *(call.args if last_name(call) == "values" else [])]:
                if not isinstance(each, ast.Dict | ast.DictComp):
                    yield from ((scope, _entry(each, name)) for name in self.names)

    def _by_key(self, scope: _Scope, key: ast.expr, value: ast.expr) -> Iterator[_Value]:
        """Yield a value that goes by a key: by one of the names, or a variable that may be one."""
        if not isinstance(key, ast.Name):
            yield from [(scope, value)] if _text(key) in self.names else []
            return
        over = self._looped(scope, key.id)
        for name in self.names if over is None else self.names & over:
            if isinstance(value, ast.Name) and not [*_assigned(scope.within, value.id)]:
                value = _entry(value, name)  # of `for key, value in data.items()`
            yield replace(scope, given={key.id: (scope, ast.Constant(name))}), value

    def _looped(self, scope: _Scope, name: str) -> set[str] | None:
        """Return the texts that a variable goes through; None where they are not known."""
        for node in walked(scope.within):
            if isinstance(node, ast.For | ast.comprehension) and last_name(node.target) == name:
                told: ast.expr | None = node.iter
                if isinstance(told, ast.Name | ast.Attribute):
                    told = self.kept.code.constant(scope.file, told)
                if texts := texts_in(told):
                    return {str(each.value) for each in texts}
        return None

    def steps(self, scope: _Scope, node: ast.expr) -> Iterator[tuple[Way, str]]:
        """Yield how a value came, with the places; nothing of a constant."""
        if (id(node), id(scope)) in self._known:
            return
        self._known.add((id(node), id(scope)))
        match node:
            case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
                pass
            case ast.IfExp(body=body, orelse=orelse):
                parts = [body, orelse]
            case ast.Await(value=inner) | ast.NamedExpr(value=inner) | ast.Starred(value=inner):
                parts = [inner]
            case ast.ListComp(elt=inner, generators=[ast.comprehension(ifs=[]) as each]):
                bound = {last_name(each.target): (scope, each.iter)}
                scope, parts = replace(scope, given={**scope.given, **bound}), [inner]
            case ast.Constant():
                return
            case _:
                yield from self._read(scope, node)
                return
        for part in parts:
            yield from self.steps(scope, part)

    def _read(self, scope: _Scope, node: ast.expr) -> Iterator[tuple[Way, str]]:
        match node:
            case ast.Name():
                yield from self._named(scope, node)
            case ast.Attribute(attr=name) if name in self.names:
                yield Way.OWN, scope.at(node)
            case ast.Attribute(attr="value", value=of):
                yield from self.steps(scope, of)
            case ast.Attribute(value=ast.Name(id=name)) if name[:1].isupper():
                pass  # a constant, such as a member of an enum
            case ast.Subscript(slice=ast.Slice(lower=None, upper=ast.expr() as upper), value=of):
                if self._is_short(scope, upper, computed=True):
                    yield Way.CUT, scope.at(node)
                yield from self.steps(scope, of)
            case ast.Subscript(value=of, slice=key):
                yield from self._looked_up(scope, node, of, key)
            case ast.Call():
                yield from self._called(scope, node)
            case _:
                yield from self._made(scope, node)

    def _made(self, scope: _Scope, node: ast.expr) -> Iterator[tuple[Way, str]]:
        """Yield that a value is made otherwise, and where something in it is cut."""
        for each in ast.iter_child_nodes(node):
            if isinstance(each, ast.expr):
                yield from (step for step in self.steps(scope, each) if step[0] is Way.CUT)
        yield Way.OTHER, scope.at(node)

    def _named(self, scope: _Scope, node: ast.Name) -> Iterator[tuple[Way, str]]:
        """Yield how a variable's values came, and those that callers give a parameter."""
        values = [(scope, each) for each in _assigned(scope.within, node.id)]
        is_taken = node.id in scope.taken()
        if node.id in scope.given:
            values.append(scope.given[node.id])
        elif is_taken and isinstance(scope.within, Function):
            calls = [(s, n) for s, n in self.kept.nodes if isinstance(n, ast.Call)]
            same = [(s, n) for s, n in calls if last_name(n) == scope.within.name]
            told = [(by, given(scope.within, call)) for by, call in same]
            values += [(by, each[node.id]) for by, each in told if node.id in each]
        for value in values:
            yield from self.steps(*value)
        constant = self.kept.code.constant(scope.file, node)
        if not values and not is_taken and not isinstance(constant, ast.Constant):
            yield Way.OTHER, scope.at(node)

    def _looked_up(
        self, scope: _Scope, node: ast.expr, of: ast.expr, key: ast.expr
    ) -> Iterator[tuple[Way, str]]:
        """Yield how an entry came: by one of the names it is the answer's.

        A member of an enum that is looked up by an answer is that one, but not as long.
        """
        enum, by = self.kept.code.only(of, scope.file), scope
        while isinstance(key, ast.Name) and key.id in by.given:
            by, key = by.given[key.id]
        if _text(key) in self.names:
            yield Way.OWN, scope.at(node)
        elif self.length is None and enum is not None and enum.is_enum:
            yield from self.steps(by, key)
        else:
            yield Way.OTHER, scope.at(node)

    def _called(self, scope: _Scope, node: ast.Call) -> Iterator[tuple[Way, str]]:
        name, args = last_name(node), [*node.args]
        cls = self.kept.code.only(node.func, scope.file)
        if name in {"get", "pop", "getattr"} and args:
            of = node.func.value if isinstance(node.func, ast.Attribute) else args.pop(0)
            yield from self._looked_up(scope, node, of, args[0])
            for default in args[1:]:
                yield from self.steps(scope, default)
        elif isinstance(node.func, ast.Attribute) and name in _SAME:
            yield from self.steps(scope, node.func.value)
        elif args and (name in {"str", "list", "cast"} or (cls is not None and cls.is_enum)):
            yield from self.steps(scope, args[-1])
        elif (found := self._function(scope, node)) is not None and scope.depth < _DEPTH:
            for each in _returned(found.within):
                yield from self.steps(found, each)
        else:  # shorten(text, 500)
            limits = [*args[1:], *(each.value for each in node.keywords)]
            if args and any(self._is_short(scope, each, computed=False) for each in limits):
                yield Way.CUT, scope.at(node)
            yield from self._made(scope, node)

    def _function(self, scope: _Scope, call: ast.Call) -> _Scope | None:
        """Return the function that a call is of, of its own module or imported, with its values."""
        own = scope.file.path, last_name(call)
        path, name = self.kept.code.imports.origin(scope.file.path, call) or own
        found = [
            (file, each)
            for file, tree in self.kept.code.modules
            for each in (walked(tree) if file.path == path else ())
            if isinstance(each, Function) and each.name == name
        ]
        if len(found) != 1:
            return None
        told = {name: (scope, each) for name, each in given(found[0][1], call).items()}
        return _Scope(*found[0], told, scope.depth + 1)

    def _is_short(self, scope: _Scope, node: ast.expr, *, computed: bool) -> bool:
        """Return whether a number is no more than the length; `computed`: one may be, not known."""
        if isinstance(node, ast.Name | ast.Attribute):
            node = self.kept.code.constant(scope.file, node) or node
        if not isinstance(node, ast.Constant):
            return computed
        most = self.length
        return most is not None and type(node.value) is int and 0 < node.value <= most


def _entry(of: ast.expr, name: str) -> ast.expr:
    return ast.copy_location(ast.Subscript(of, ast.Constant(name), ast.Load()), of)


def _text(node: ast.expr | None) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
    return None


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    match target, value:
        case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
            yield from zip(targets, values, strict=True)
        case _:
            yield target, value


def _target(node: ast.expr) -> str | None:
    """Return the name of what an object is given; None for a variable."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return _text(node.slice) if isinstance(node, ast.Subscript) else None


def _assigned(within: ast.AST, name: str) -> Iterator[ast.expr]:
    """Yield what a variable is given in a function or a module."""
    for node in walked(within):
        match node:
            case ast.Assign(targets=targets, value=value):
                pairs = (pair for each in targets for pair in _pairs(each, value))
                yield from (v for t, v in pairs if isinstance(t, ast.Name) and t.id == name)
            case ast.AnnAssign(target=ast.Name(id=other), value=ast.expr() as value) | (
                ast.NamedExpr(target=ast.Name(id=other), value=value)
            ):
                yield from [value] if other == name else []
            case ast.AugAssign(target=ast.Name(id=other) as target, value=value) if other == name:
                yield ast.copy_location(ast.BinOp(target, node.op, value), target)
            case ast.MatchMapping(keys=keys, patterns=patterns):
                for key, pattern in zip(keys, patterns, strict=True):
                    if any(getattr(each, "name", None) == name for each in ast.walk(pattern)):
                        yield _entry(key, _text(key) or "")


def _returned(function: ast.AST) -> Iterator[ast.expr]:
    for each in walked(function):
        if isinstance(each, ast.Return) and each.value is not None:
            yield each.value
