"""What the code does to a text before it is stored: only what is the answer's own breaks for sure.

By names: what a column's name is given anywhere in the programs that ask the model is followed back
through variables and functions, until an entry of that name is read, and from there what it is an
entry of, until that is parsed or asked for. Every other step counts as one that may store something
else, and so does what changes entries or columns by other names than literal ones.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from driver.task.check.followed import (
    Following,
    Scope,
    Value,
    assigned,
    entry,
    is_class,
    loops,
    pairs_of,
    returned,
    text_of,
    unclear,
)
from driver.task.check.python_code import Code, Function, is_table, last_name, parameters, texts_in
from driver.task.check.walked import walked
from driver.task.shape import Field
from driver.task.source import Source

_STORES = frozenset({"values", "create", "model_copy"})
"""Calls that store what they are told by the names of columns, as those do that update."""
_EVENTS = frozenset(
    {"before_flush", "before_insert", "before_update", "attribute_instrument", "set", "append"}
    | {"before_execute", "before_cursor_execute", "do_orm_execute"}
)
"""What SQLAlchemy's listeners may change rows at."""
_HOOKS = frozenset({"__setattr__", "__setitem__", "__getattribute__"})
_OF_MODELS = frozenset({"model_validator", "root_validator", "model_serializer"})
_SETS = frozenset({"setattr", "set_attribute", "set_committed_value", "setitem"})
"""Functions that set what they are told last but one."""
_OF_PAIRS = frozenset({"dict", "update"})
"""Those that take entries in pairs."""
_SAYS = frozenset(
    {"Field", "StringConstraints", "constr", "conlist", "conset", "Len", "MinLen", "MaxLen", "Ge"}
    | {"Le", "Gt", "Lt", "Strict", "Doc", "mapped_column", "Column", "String", "Enum", "SAEnum"}
)
"""Calls in an annotation that change no value: any other one may stand for a validator."""
_TELLING = frozenset({"print", "setattr"})
"""Functions of no checkout that leave objects of their arguments what they are."""


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
            Following(self, of, frozenset({of.name, attribute or of.name})) for _ in range(2)
        )
        setting = _Setting(self, stored.names)
        places = [
            place
            for scope, node in self.nodes
            for following in [stored if self._is_store(node) else beside]
            for value in setting.set_by(scope, node)
            for place in following.others(*value)
        ]
        return places[0] if places else None if stored.has_own else ""

    def _is_store(self, node: ast.AST) -> bool:
        """Return whether a node changes an object or a row, not only makes one or tells of it."""
        if isinstance(node, ast.Assign):
            return not isinstance(node.targets[0], ast.Subscript)
        return isinstance(node, ast.Call) and (last_name(node) == "setattr" or self.stores(node))

    @cached_property
    def nodes(self) -> list[tuple[Scope, ast.AST]]:
        """All that the programs have, each with the innermost function that it stands in."""
        found = list[tuple[Scope, ast.AST]]()
        for file, tree in self.code.modules:
            if file.path in self.paths:
                scopes = dict.fromkeys(walked(tree), Scope(file, tree))
                for node in walked(tree):
                    if isinstance(node, Function):
                        scopes |= dict.fromkeys(ast.walk(node), Scope(file, node))
                found += ((scope, node) for node, scope in scopes.items())
        return found

    @cached_property
    def calls(self) -> dict[str, list[tuple[Scope, ast.Call]]]:
        """The programs' calls by the names of what is called."""
        found: dict[str, list[tuple[Scope, ast.Call]]] = {}
        for scope, node in self.nodes:
            if isinstance(node, ast.Call):
                found.setdefault(last_name(node), []).append((scope, node))
        return found

    @cached_property
    def said(self) -> set[str]:
        """What the programs themselves give objects and functions by name, and their functions."""
        nodes = [node for _, node in self.nodes]
        stored = [
            n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
        ]
        told = [n.arg for n in nodes if isinstance(n, ast.keyword) and n.arg]
        return {*stored, *told, *(n.name for n in nodes if isinstance(n, Function))}

    def stores(self, call: ast.Call) -> bool:
        """Return whether a call makes a row, or changes one."""
        name = last_name(call)
        return name in {*_STORES, *self.table} or "update" in name

    def has_most(self, keys: Iterable[str | None]) -> bool:
        """Return whether more than half of the columns are among these."""
        columns = self.source.storage.columns.keys()
        return 2 * len(columns & {*keys}) > len(columns)


@dataclass(frozen=True)
class _Setting:
    """What goes by some names wherever it is set."""

    kept: Stored
    names: frozenset[str]

    def set_by(self, scope: Scope, node: ast.AST) -> Iterator[Value]:
        """Yield what the names are given: in an object, an entry, a call, or by a validator."""
        match node:
            case ast.Assign(targets=targets, value=value):
                for target, each in (pair for one in targets for pair in pairs_of(one, value)):
                    if isinstance(target, ast.Subscript):
                        yield from self._by_key(scope, target.slice, each)
                    elif _target(target) in self.names:
                        yield scope, each
            case ast.AnnAssign(target=ast.Name(id=name), annotation=told) if name in self.names:
                names = [each for each in ast.walk(told) if isinstance(each, ast.Name)]
                aliases = [self.kept.code.constant(scope.file, each) for each in names]
                parts = [part for each in (told, *aliases) if each for part in ast.walk(each)]
                calls = (each for each in parts if isinstance(each, ast.Call))
                yield from ((scope, v) for v in calls if last_name(v) not in _SAYS)
            case ast.Call():
                yield from self._called(scope, node)
                yield from self._told(scope, node)
            case ast.Expr(value=ast.Call(func=ast.Name(id=name)) as call):
                if name not in _TELLING | self.kept.said:
                    yield from ((scope, entry(call, each)) for each in self.names)
            case ast.FunctionDef():
                yield from self._hooked(scope, node)
            case _:
                yield from self._entries(scope, node)

    def _entries(self, scope: Scope, node: ast.AST) -> Iterator[Value]:
        """Yield what a dictionary has by the names, or an entry that is taken out of one."""
        match node:
            case ast.Dict(keys=keys) if None in keys or self.kept.has_most(map(text_of, keys)):
                yield from self._items(scope, node)
            case ast.AugAssign(op=ast.BitOr(), value=ast.Dict() as told):
                yield from self._items(scope, told)
            case ast.DictComp(key=key, value=value):
                yield from self._by_key(scope, key, value)
            case ast.Delete(targets=targets):
                for key in (each.slice for each in targets if isinstance(each, ast.Subscript)):
                    yield from self._by_key(scope, key, unclear(key))

    def _items(self, scope: Scope, node: ast.Dict) -> Iterator[Value]:
        for key, value in zip(node.keys, node.values, strict=True):
            yield from self._by_key(scope, key, value) if key is not None else ()

    def _called(self, scope: Scope, call: ast.Call) -> Iterator[Value]:
        """Yield what a call sets by a key, and what may refuse or change any text."""
        name = last_name(call)
        match call.args:
            case [of] if name == "len" and self._is_of_names(scope, of):
                yield scope, call
            case [of, *_] if name in {"listen", "listens_for"}:
                said = {each.value for each in ast.walk(call) if isinstance(each, ast.Constant)}
                is_others = isinstance(of, ast.Attribute) and is_class(of.value)
                if said & _EVENTS and (not is_others or last_name(of) in self.names):
                    yield scope, unclear(of)
            case [*_, key, value] if name.strip("_") in _SETS:
                yield from self._by_key(scope, key, value)
            case [
                ast.GeneratorExp(elt=ast.Tuple(elts=[key, value]))
                | ast.ListComp(elt=ast.Tuple(elts=[key, value]))
            ] if name in _OF_PAIRS:
                yield from self._by_key(scope, key, value)

    def _hooked(self, scope: Scope, function: ast.FunctionDef) -> Iterator[Value]:
        """Yield what comes back from a validator of the names, or of any."""
        made = {last_name(each) for each in function.decorator_list}
        calls = [each for each in function.decorator_list if isinstance(each, ast.Call)]
        told_of = [each for call in calls for each in call.args]
        said = {text_of(each) or last_name(each) for each in told_of}
        is_any = "*" in said or any(isinstance(each, ast.Starred) for each in told_of)
        if function.name in _HOOKS:
            yield scope, unclear(function)
        elif is_any or not self.names.isdisjoint(said):
            yield from ((scope, each) for each in returned(function))
        elif not _OF_MODELS.isdisjoint(made):
            told = {"self", *parameters(function)}
            told -= {name for name in told if [*assigned(function, name)]}
            for each in returned(function):
                parts = [each.func, *each.args] if isinstance(each, ast.Call) else [each]
                if not all(isinstance(part, ast.Name) and part.id in told for part in parts):
                    yield scope, unclear(each)

    def _is_of_names(self, scope: Scope, node: ast.expr) -> bool:
        """Return whether an expression has one of the names, or a variable that has, or any may."""
        names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
        values = [value for name in names for value in assigned(scope.within, name)]
        known = [each for value in (node, *values) for each in ast.walk(value)]
        through = [last_name(each) for name in names for each in loops(scope.within, name)]
        said = {text_of(each) or last_name(each) for each in known if isinstance(each, ast.expr)}
        return not self.names.isdisjoint(said) or not {"items", "values"}.isdisjoint(through)

    def _told(self, scope: Scope, call: ast.Call) -> Iterator[Value]:
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
            wholes = call.args if last_name(call) in {"values", "update"} else []
            if last_name(call) == "update":  # of a table, or of a digest of text, as well
                wholes = [each for each in wholes if isinstance(each, ast.Call)]
            for each in (*call.args, *told.values(), *spread):
                if isinstance(each, ast.Dict):
                    yield from self._items(scope, each)
                elif isinstance(each, ast.DictComp):
                    yield from self._by_key(scope, each.key, each.value)
                elif each in [*wholes, *spread]:
                    yield from ((scope, entry(each, name)) for name in self.names)

    def _by_key(self, scope: Scope, key: ast.expr, value: ast.expr) -> Iterator[Value]:
        """Yield a value that goes by a key: by one of the names, or a variable that may be one."""
        if isinstance(key, ast.Constant | ast.Slice) or last_name(key).endswith("id"):
            yield from [(scope, value)] if text_of(key) in self.names else []
            return
        over = self._looped(scope, key.id) if isinstance(key, ast.Name) else None
        if isinstance(key, ast.Attribute) and is_class(key.value) and not key.attr.isupper():
            over = {key.attr}  # a column, by its class
        for name in self.names if over is None else self.names & over:
            if isinstance(value, ast.Name) and not [*assigned(scope.within, value.id)]:
                value = entry(value, name)  # of `for key, value in data.items()`
            yield replace(scope, given={ast.unparse(key): (scope, ast.Constant(name))}), value

    def _looped(self, scope: Scope, name: str) -> set[str] | None:
        """Return the texts that a variable goes through in loops; None where they are not known."""
        found = set[str]()
        for node in loops(scope.within, name):
            told: ast.expr | None = node
            if isinstance(told, ast.Name | ast.Attribute):
                told = self.kept.code.constant(scope.file, told)
            if not (texts := texts_in(told)):
                return None
            found |= {str(each.value) for each in texts}
        return found or None


def _target(node: ast.expr) -> str | None:
    """Return the name of what an object is given; None for a variable."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return text_of(node.slice) if isinstance(node, ast.Subscript) else None
