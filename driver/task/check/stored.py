"""What the code does to a text before it is stored: only what is the answer's own breaks for sure.

By names: what a column's name is given anywhere in the programs that ask the model is followed back
through variables and functions, until an entry of that name is read. Every other step counts as one
that may store something else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from driver.task.check.checkout import SourceFile
from driver.task.check.python_code import (
    Code,
    Function,
    given,
    is_table,
    last_name,
    parameters,
    texts_in,
)
from driver.task.check.values import may_be_stored
from driver.task.check.walked import walked
from driver.task.shape import Field
from driver.task.source import Source

_STORES = frozenset({"values", "create", "model_copy"})
"""Calls that store what they are told by the names of columns, as those do that update."""
_SAME = frozenset({"strip", "lstrip", "rstrip", "lower", "casefold", "copy"})
"""Methods that make no text shorter, nor another word of one: values are in small letters."""
_DEPTH = 4
"""How many functions and loops deep a value is followed."""


@dataclass(frozen=True, eq=False)
class _Scope:
    """What an expression stands in: a function, or a module."""

    file: SourceFile
    within: ast.AST
    given: Mapping[str, tuple[_Scope, ast.expr]] = field(default_factory=dict)
    """What variables stand for, by their names."""
    depth: int = 0


_Value = tuple[_Scope, ast.expr]


@dataclass(frozen=True)
class Stored:
    """How the programs that ask the model fill the columns of a table."""

    source: Source
    code: Code
    paths: frozenset[str]
    """The modules of the programs that ask, and those that import the table's classes."""
    table: frozenset[str]
    """What the table's classes are called."""

    def doubt(self, of: Field, attribute: str = "") -> str | None:
        """Return where something else than the answer's own may come into what a field goes by.

        That is its name, and an attribute for its column. "": nothing is seen to come there; None:
        only an answer's own, unchanged.
        """
        stored, beside = (
            _Following(self, of, frozenset({of.name, attribute or of.name})) for _ in range(2)
        )
        places = [
            place
            for scope, node in self.nodes
            for following in [stored if self._is_store(node) else beside]
            for value in following.set_by(scope, node)
            for place in following.others(*value)
        ]
        return places[0] if places else None if stored.has_own else ""

    def _is_store(self, node: ast.AST) -> bool:
        """Return whether a node changes an object or a row, not only makes one or tells of it."""
        if isinstance(node, ast.Assign):
            return not isinstance(node.targets[0], ast.Subscript)
        return isinstance(node, ast.Call) and (last_name(node) == "setattr" or self.stores(node))

    @cached_property
    def nodes(self) -> list[tuple[_Scope, ast.AST]]:
        """All that the programs have, each with the innermost function that it stands in."""
        found = list[tuple[_Scope, ast.AST]]()
        for file, tree in self.code.modules:
            if file.path in self.paths:
                scopes = dict.fromkeys(walked(tree), _Scope(file, tree))
                for node in walked(tree):
                    if isinstance(node, Function):
                        scopes |= dict.fromkeys(ast.walk(node), _Scope(file, node))
                found += ((scope, node) for node, scope in scopes.items())
        return found

    @cached_property
    def calls(self) -> dict[str, list[tuple[_Scope, ast.Call]]]:
        """The programs' calls by the names of what is called."""
        found: dict[str, list[tuple[_Scope, ast.Call]]] = {}
        for scope, node in self.nodes:
            if isinstance(node, ast.Call):
                found.setdefault(last_name(node), []).append((scope, node))
        return found

    def stores(self, call: ast.Call) -> bool:
        """Return whether a call makes a row, or changes one."""
        name = last_name(call)
        return name in {*_STORES, *self.table} or "update" in name

    def has_most(self, keys: Iterable[str | None]) -> bool:
        """Return whether more than half of the columns are among these."""
        columns = self.source.storage.columns.keys()
        return 2 * len(columns & {*keys}) > len(columns)


@dataclass
class _Following:
    """Follows what goes by one of some names; each expression is looked at once in a scope."""

    kept: Stored
    of: Field
    names: frozenset[str]
    has_own: bool = False
    """Whether an entry of an answer was come to."""
    _known: set[tuple[ast.expr, _Scope]] = field(default_factory=set)

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
                names = [each for each in ast.walk(told) if isinstance(each, ast.Name)]
                aliases = [self.kept.code.constant(scope.file, each) for each in names]
                parts = [part for each in (told, *aliases) if each for part in ast.walk(each)]
                calls = (each for each in parts if isinstance(each, ast.Call))
                yield from ((scope, v) for v in calls if last_name(v).endswith("Validator"))
            case ast.FunctionDef(decorator_list=made):
                told_of = [a for each in made if isinstance(each, ast.Call) for a in each.args]
                if not self.names.isdisjoint(_text(each) or last_name(each) for each in told_of):
                    yield from ((scope, each) for each in _returned(node))

    def _told(self, scope: _Scope, call: ast.Call) -> Iterator[_Value]:
        """Yield what a call stores, gives a function, or makes an object of most columns of.

        What it stores as a whole has entries of these names.
        """
        told = {each.arg: each.value for each in call.keywords}
        cls = self.kept.code.only(call.func, scope.file)
        is_other = cls is not None and (
            is_table(cls) or any(each.name == "__tablename__" for each in cls.attributes)
        )
        makes = last_name(call)[:1].isupper() and not self.kept.stores(call)
        if not makes or (self.kept.has_most(told) and not is_other):
            yield from ((scope, value) for key, value in told.items() if key in self.names)
        if self.kept.stores(call):
            spread = [each.value for each in call.keywords if each.arg is None]
            wholes = call.args if last_name(call) == "values" else []
            for each in (*call.args, *told.values(), *spread):
                if isinstance(each, ast.Dict):
                    pairs = zip(each.keys, each.values, strict=True)
                    yield from ((scope, v) for k, v in pairs if _text(k) in self.names)
                elif isinstance(each, ast.DictComp):
                    yield from self._by_key(scope, each.key, each.value)
                elif each in [*wholes, *spread]:
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
        """Return the texts that a variable goes through in loops; None where they are not known."""
        found = set[str]()
        for node in walked(scope.within):
            if isinstance(node, ast.For | ast.comprehension) and last_name(node.target) == name:
                told: ast.expr | None = node.iter
                if isinstance(told, ast.Name | ast.Attribute):
                    told = self.kept.code.constant(scope.file, told)
                if not (texts := texts_in(told)):
                    return None
                found |= {str(each.value) for each in texts}
        return found or None

    def others(self, scope: _Scope, node: ast.expr) -> Iterator[str]:
        """Yield the places of what a value came by that is not followed, or not the answer's."""
        if (node, scope) in self._known:
            return
        self._known.add((node, scope))
        match node:
            case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
                pass
            case ast.IfExp(body=body, orelse=orelse):
                parts = [body, orelse]
            case ast.Await(value=inner) | ast.NamedExpr(value=inner) | ast.Starred(value=inner):
                parts = [inner]
            case ast.ListComp(elt=inner, generators=[ast.comprehension(ifs=[]) as each]) if (
                scope.depth < _DEPTH
            ):
                bound = {**scope.given, last_name(each.target): (scope, each.iter)}
                scope, parts = replace(scope, given=bound, depth=scope.depth + 1), [inner]
            case ast.Attribute(attr=name) if name in self.names:
                self.has_own, parts = True, []
            case ast.Attribute(attr="value", value=ast.Call() | ast.Name() | ast.Attribute() as of):
                parts = [of]
            case _:
                yield from self._followed(scope, node)
                return
        for part in parts:
            yield from self.others(scope, part)

    def _followed(self, scope: _Scope, node: ast.expr) -> Iterator[str]:
        found: list[_Value] | None = []
        match node:
            case ast.Constant(value=said):
                fits = not isinstance(said, str) or may_be_stored(self.kept.source, self.of, said)
                found = [] if fits else None
            case ast.Attribute(attr=name, value=of) if name.isupper() or _is_class(of):
                enum = self.kept.code.only(of, scope.file)  # of a constant, maybe
                members = enum.attributes if enum is not None else ()
                found = [
                    (scope, each.value) for each in members if each.name == name and each.value
                ]
            case ast.Name():
                found = self._named(scope, node)
            case ast.Subscript(value=of, slice=key):
                found = self._looked_up(scope, of, key)
            case ast.Call():
                found = self._called(scope, node)
            case _:
                found = None
        if found is None:
            yield scope.file.at(node.lineno)
        for value in found or ():
            yield from self.others(*value)

    def _named(self, scope: _Scope, node: ast.Name) -> list[_Value] | None:
        """Return a variable's values, also those that callers give a parameter; None if unclear."""
        values = [(scope, each) for each in _assigned(scope.within, node.id)]
        is_taken = isinstance(scope.within, Function) and node.id in parameters(scope.within)
        if node.id in scope.given:
            values.append(scope.given[node.id])
        elif is_taken and isinstance(scope.within, Function):
            calls = self.kept.calls.get(scope.within.name, [])
            told = [(by, given(scope.within, call)) for by, call in calls]
            values += [(by, each[node.id]) for by, each in told if node.id in each]
        constant = self.kept.code.constant(scope.file, node)
        if not values and isinstance(constant, ast.Constant):
            values.append((scope, constant))
        return values if values or is_taken else None

    def _looked_up(self, scope: _Scope, of: ast.expr, key: ast.expr) -> list[_Value] | None:
        """Return what an entry is of: nothing more where it is the answer's own, by its name.

        A member of an enum is what it is looked up by, in capitals maybe.
        """
        match key:
            case ast.Call(func=ast.Attribute(value=inner, attr="upper")):
                key = inner
        enum = self.kept.code.only(of, scope.file)
        while isinstance(key, ast.Name) and key.id in scope.given:
            scope, key = scope.given[key.id]
        if _text(key) in self.names:
            self.has_own = True
            return []
        return [(scope, key)] if enum is not None and enum.is_enum else None

    def _called(self, scope: _Scope, node: ast.Call) -> list[_Value] | None:
        """Return what a call gives back; None where that is not followed."""
        name, args = last_name(node), [*node.args]
        cls = self.kept.code.only(node.func, scope.file)
        if name in {"get", "pop", "getattr"} and args:
            of = node.func.value if isinstance(node.func, ast.Attribute) else args.pop(0)
            found = self._looked_up(scope, of, args[0])
            return None if found is None else found + [(scope, each) for each in args[1:]]
        if isinstance(node.func, ast.Attribute) and name in _SAME:
            return [(scope, node.func.value)]
        if args and (name in {"str", "list", "cast"} or (cls is not None and cls.is_enum)):
            return [(scope, args[-1])]
        own = scope.file.path, name
        path, name = self.kept.code.imports.origin(scope.file.path, node) or own
        functions = [
            (file, each)
            for file, tree in self.kept.code.modules
            for each in (walked(tree) if file.path == path else ())
            if isinstance(each, Function) and each.name == name
        ]
        if len(functions) != 1 or scope.depth == _DEPTH:
            return None
        file, function = functions[0]
        told = {key: (scope, each) for key, each in given(function, node).items()}
        inside = _Scope(file, function, told, scope.depth + 1)
        return [(inside, each) for each in _returned(function)]


def _is_class(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id[:1].isupper()


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
