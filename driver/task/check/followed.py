"""Following a value of code back to what it is of: an entry of an answer, and the answer itself.

Through variables, parameters and functions, as far as each step leaves the value what it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from driver.task.check.checkout import SourceFile
from driver.task.check.python_code import Function, given, last_name, parameters
from driver.task.check.values import may_be_stored
from driver.task.check.walked import walked
from driver.task.shape import Field

if TYPE_CHECKING:
    from driver.task.check.stored import Stored

_SAME = frozenset({"strip", "lstrip", "rstrip", "lower", "casefold", "copy"})
"""Methods that make no text shorter, nor another word of one: values are in small letters."""
_PARSES = frozenset(
    {"loads", "load", "safe_load", "raw_decode", "json", "decode", "parse", "parse_raw"}
    | {"model_validate_json", "validate_json"}
)
"""Functions and methods that make an answer of text."""
_ASKS = frozenset({"invoke", "ainvoke", "create", "chat", "generate", "run"})
"""Methods that may ask for an answer, and parse it."""
_MAKES = frozenset({"model_validate", "validate_python", "parse_obj", "model_construct"})
"""Those that make an answer of one that is parsed already."""
_WHOLE = frozenset(
    {"copy", "deepcopy", "dict", "asdict", "_asdict", "items", "model_dump", "model_copy"}
)
"""Those that give back the entries that they are given."""
_PLAIN = frozenset(
    {"staticmethod", "classmethod", "property", "override", "abstractmethod", "cache", "lru_cache"}
    | {"retry", "on_exception", "task", "shared_task", "traced", "observe", "validate_call"}
)
"""Decorators of functions that give back what these do."""
_DEPTH = 4
"""How many functions and loops deep a value is followed."""


@dataclass(frozen=True, eq=False)
class Scope:
    """What an expression stands in: a function, or a module."""

    file: SourceFile
    within: ast.AST
    given: Mapping[str, tuple[Scope, ast.expr]] = field(default_factory=dict)
    """What variables stand for, by their names."""
    depth: int = 0
    is_whole: bool = False
    """Whether the expression is what an entry is read of, not the entry."""

    @cached_property
    def whole(self) -> Scope:
        """The same for what an entry is read of."""
        return self if self.is_whole else replace(self, is_whole=True)

    def of(self, other: Scope) -> Scope:
        """Return this one for such an expression as the other's."""
        return self.whole if other.is_whole else self


Value = tuple[Scope, ast.expr]


@dataclass
class Following:
    """Follows what goes by one of some names; each expression is looked at once in a scope."""

    kept: Stored
    of: Field
    names: frozenset[str]
    has_own: bool = False
    """Whether an entry of an answer was come to."""
    has_parsed: bool = False
    """Whether an answer that is parsed or asked for was come to."""
    deep: int = 0
    """How many of these were made to look at what a call is given."""
    _known: set[tuple[ast.expr, Scope]] = field(default_factory=set)

    def others(self, scope: Scope, node: ast.expr) -> Iterator[str]:
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
            case ast.Attribute(attr=name, value=of) if name in self.names and not scope.is_whole:
                self.has_own, scope, parts = True, scope.whole, [of]
            case ast.Attribute() | ast.Dict() | ast.DictComp() | ast.GeneratorExp() if (
                scope.is_whole
            ):
                parts = [*self._in_whole(node)]
            case ast.Attribute(attr="value", value=ast.Call() | ast.Name() | ast.Attribute() as of):
                parts = [of]
            case _:
                yield from self._followed(scope, node)
                return
        for part in parts:
            yield from self.others(scope, part)

    def _in_whole(self, node: ast.expr) -> Iterator[ast.expr]:
        """Yield what an object has its entries of; what it sets itself is looked at elsewhere."""
        match node:
            case ast.Attribute(attr=name, value=of):
                yield unclear(node) if name in self.kept.said else of
            case ast.Dict(keys=keys, values=values):
                yield from (each for key, each in zip(keys, values, strict=True) if key is None)

    def _followed(self, scope: Scope, node: ast.expr) -> Iterator[str]:
        found: list[Value] | None = []
        match node:
            case ast.Constant(value=said):
                fits = not isinstance(said, str) or may_be_stored(self.kept.source, self.of, said)
                found = [] if fits else None
            case ast.Attribute(attr=name, value=of) if name.isupper() or is_class(of):
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

    def _named(self, scope: Scope, node: ast.Name) -> list[Value] | None:
        """Return a variable's values, also those that callers give a parameter; None if unclear."""
        values = [(scope, each) for each in assigned(scope.within, node.id)]
        is_taken = isinstance(scope.within, Function) and node.id in parameters(scope.within)
        if node.id in scope.given:
            by, value = scope.given[node.id]
            values.append((by.of(scope), value))
        elif isinstance(scope.within, Function):
            calls = self.kept.calls.get(scope.within.name, [])
            rest = scope.within.args.kwarg
            if rest is not None and rest.arg == node.id:  # their keywords are looked at themselves
                is_taken = True
                spread = [(by, each) for by, call in calls for each in call.keywords]
                values += [(by.of(scope), each.value) for by, each in spread if each.arg is None]
            told = [(by, given(scope.within, call)) for by, call in calls]
            values += [(by.of(scope), each[node.id]) for by, each in told if node.id in each]
        constant = self.kept.code.constant(scope.file, node)
        if not values and (scope.is_whole or isinstance(constant, ast.Constant)):
            values += [(scope, constant)] if constant is not None else []
        if not values and scope.is_whole:
            values = [(scope, each) for each in loops(scope.within, node.id)]
            is_taken = is_taken or node.id in {"self", "cls"} or is_class(node)
        return values if values or is_taken else None

    def _looked_up(self, scope: Scope, of: ast.expr, key: ast.expr) -> list[Value] | None:
        """Return what an entry is of: nothing more where it is the answer's own, by its name.

        A member of an enum is what it is looked up by, in capitals maybe.
        """
        match key:
            case ast.Call(func=ast.Attribute(value=inner, attr="upper")):
                key = inner
        enum = self.kept.code.only(of, scope.file)
        by = scope
        while isinstance(key, ast.Name | ast.Attribute) and ast.unparse(key) in by.given:
            by, key = by.given[ast.unparse(key)]
        if scope.is_whole:
            is_place = isinstance(key, ast.Constant) and not text_of(key)
            return [(scope, of)] if is_place else None
        if text_of(key) in self.names:
            self.has_own = True
            return [(scope.whole, of)]
        return [(by, key)] if enum is not None and enum.is_enum else None

    def _called(self, scope: Scope, node: ast.Call) -> list[Value] | None:
        """Return what a call gives back; None where that is not followed."""
        name, args = last_name(node), [*node.args]
        cls = self.kept.code.only(node.func, scope.file)
        is_read = name in {"get", "pop", "getattr"} and bool(args)
        if is_read and (not scope.is_whole or text_of(args[0])):
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
            return self._made(scope, node) if scope.is_whole and not functions else None
        file, function = functions[0]
        if scope.is_whole and not _PLAIN.issuperset(map(last_name, function.decorator_list)):
            self.has_parsed = True  # for all that is known
            return None
        told = {key: (scope, each) for key, each in given(function, node).items()}
        inside = Scope(file, function, told, scope.depth + 1, scope.is_whole)
        return [(inside, each) for each in returned(function)]

    def _made(self, scope: Scope, node: ast.Call) -> list[Value] | None:
        """Return what an answer is made of by what is not in the checkout.

        Nothing where it is parsed or asked for; None where a parsed one may be changed.
        """
        name, by = last_name(node), node.func
        makes = name[:1].isupper() or name == "cls"
        spread = [each.value for each in node.keywords if each.arg is None]
        others = [*node.args]
        if not makes:
            others += [each.value for each in node.keywords]
            others += [by.value] if isinstance(by, ast.Attribute) else []
        if name in _PARSES:
            self.has_parsed = True
            told = {each.arg for each in ast.walk(node) if isinstance(each, ast.keyword)}
            return [] if told.isdisjoint({"object_hook", "object_pairs_hook", "cls"}) else None
        self.has_parsed |= name in _ASKS | _MAKES
        if name in _WHOLE | _MAKES:
            wholes = node.args[:1] or (others[-1:] if name in _WHOLE else [])
            return [(scope, each) for each in (*wholes, *spread)]
        for each in others:
            one = Following(self.kept, self.of, self.names, deep=self.deep + 1)
            if one.deep > _DEPTH or one.comes_to_parsed(scope, each):
                self.has_parsed = True
                return None
        return [(scope, each) for each in spread if makes]

    def comes_to_parsed(self, scope: Scope, node: ast.expr) -> bool:
        """Return whether an object comes of an answer that is parsed or asked for."""
        _ = [*self.others(scope, node)]
        return self.has_parsed


def is_class(node: ast.expr) -> bool:
    """Return whether a name is written as those of classes are."""
    return isinstance(node, ast.Name) and node.id[:1].isupper()


def unclear(node: ast.expr | ast.stmt) -> ast.expr:
    """Return what is not followed, in the place of a node."""
    return ast.copy_location(ast.Slice(), node)


def _bound(target: ast.expr) -> set[str]:
    """Return the variables that a target gives something to."""
    parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
    return {each.id for each in parts if isinstance(each, ast.Name)}


def loops(within: ast.AST, name: str) -> Iterator[ast.expr]:
    """Yield what a variable goes through in loops."""
    for node in walked(within):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension) and name in _bound(
            node.target
        ):
            yield node.iter


def entry(of: ast.expr, name: str) -> ast.expr:
    """Return the entry of a name, as if it was read where the object stands."""
    return ast.copy_location(ast.Subscript(of, ast.Constant(name), ast.Load()), of)


def text_of(node: ast.expr | None) -> str | None:
    """Return the text that a literal stands for."""
    match node:
        case ast.Constant(value=str(text)):
            return text
    return None


def pairs_of(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield each target with what it is given, where a tuple is given another."""
    match target, value:
        case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
            yield from zip(targets, values, strict=True)
        case _:
            yield target, value


def assigned(within: ast.AST, name: str) -> Iterator[ast.expr]:
    """Yield what a variable is given in a function or a module."""
    for node in walked(within):
        match node:
            case ast.Assign(targets=targets, value=value):
                pairs = (pair for each in targets for pair in pairs_of(each, value))
                yield from (v for t, v in pairs if name in _bound(t))
            case ast.AnnAssign(target=ast.Name(id=other), value=ast.expr() as value) | (
                ast.NamedExpr(target=ast.Name(id=other), value=value)
            ):
                yield from [value] if other == name else []
            case ast.AugAssign(target=ast.Name(id=other) as target, value=value) if other == name:
                yield ast.copy_location(ast.BinOp(target, node.op, value), target)
            case ast.Match(subject=of, cases=cases):
                inner = (each for case in cases for each in ast.walk(case.pattern))
                for each in (each for each in inner if isinstance(each, ast.MatchMapping)):
                    for key, pattern in zip(each.keys, each.patterns, strict=True):
                        if any(getattr(one, "name", None) == name for one in ast.walk(pattern)):
                            yield entry(of, text_of(key) or "")


def returned(function: ast.AST) -> Iterator[ast.expr]:
    """Yield what a function gives back."""
    for each in walked(function):
        if isinstance(each, ast.Return) and each.value is not None:
            yield each.value
