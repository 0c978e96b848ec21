"""What a module does with the object that an answer is parsed into: what it reads, and what leaves.

By names, not by the flow of values. What is not followed counts as leaving, so that no loss is told
that the code does not prove.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TypeGuard

from driver.task.check.parsing import is_parser
from driver.task.check.python_code import Function, given, last_name, texts_in
from driver.task.check.walked import walked

_LOOKS_UP = frozenset({"get", "pop", "setdefault"})
_KEEPS_NOTHING = frozenset(
    {"isinstance", "bool", "len", "type", "getattr", "hasattr", "print"}
    | {"debug", "info", "warning", "error", "exception"}
)
"""Calls that are told an object and do not hand it on: built-in ones, and those of a log."""
_DUMPS = frozenset({"model_dump", "dict"})


@dataclass(frozen=True)
class AnswerObject:
    """The objects of a module that JSON is parsed into, or that fields of an answer are read of."""

    tree: ast.Module
    fields: frozenset[str]
    """The answer's fields."""
    typed: frozenset[str] = frozenset()
    """The classes of an answer, and functions that give one: what is of them is an object too."""

    def read(self) -> dict[str, int]:
        """Return the fields that are looked up, or named beside others, with their first lines.

        A name in an object that is made (`{"summary": …}`) is not read, but written.
        """
        found: dict[str, int] = {}
        for node in walked(self.tree):
            if isinstance(node, ast.expr):
                for name in self.fields.intersection(self._read_by(node)):
                    found[name] = min(found.get(name, node.lineno), node.lineno)
        return found

    def leaves(self) -> int | None:
        """Return the first line where such an object as a whole goes where it is not followed.

        It is given to a call, spread, copied, iterated, returned, stored, or asked for a key that
        no text names; so is its JSON. None: what the module reads by name is all that it has of it.
        """
        lines = [
            node.lineno
            for node in walked(self.tree)
            if isinstance(node, ast.expr | ast.stmt)
            if self._hands_json_on(node)
            or (self._is_ours(node) and not self._stays(self._made_of(node)))
        ]
        return min(lines, default=None)

    def keeps_json(self) -> bool:
        """Return whether a text, or what `loads` gives of one, is handed on or kept beside."""
        loaded = {
            name
            for node in walked(self.tree)
            if is_parser(node) and last_name(node).endswith("loads")
            for name in _assigned(self._above[node])
        }
        return any(
            self._hands_json_on(node)
            or (
                isinstance(node, ast.Name)
                and node.id in loaded
                and isinstance(above := self._above[node], ast.Dict | ast.Assign)
                and not _assigned(above)
            )
            for node in walked(self.tree)
        )

    def _hands_json_on(self, node: ast.AST) -> bool:
        """Return whether a text that is parsed here is given to another call, or kept as it is.

        What a call gives back of it may be parsed in turn: then it was only made ready.
        """
        if not isinstance(node, ast.Name) or node.id not in self._json:
            return False
        match above := self._above[node]:
            case ast.Assign() | ast.AnnAssign():
                return not _assigned(above)
            case ast.Dict(keys=keys):
                return not any(
                    isinstance(key, ast.Constant) and key.value == "role" for key in keys
                )
            case ast.keyword():
                above = self._above[above]
        if not isinstance(above, ast.Call) or is_parser(above) or self._is_made_ready(above):
            return False
        name = last_name(above)  # of a function here that parses it in turn, maybe
        return name not in _KEEPS_NOTHING and self._json.isdisjoint(self._parameters.get(name, ()))

    def _is_made_ready(self, call: ast.AST) -> bool:
        """Return whether what a call gives is parsed here, or only tells something of a text."""
        while isinstance(above := self._above[call], ast.expr | ast.keyword):
            if is_parser(above):
                return True
            call = above
        return bool(_assigned(above) & self._parsed) or isinstance(above, ast.If | ast.Raise)

    def _read_by(self, node: ast.expr) -> list[str]:
        match node:
            case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=ast.Load()):
                return [key]
            case ast.Call(args=[ast.Constant(value=str(key)), *_]) if _looks_up(node):
                return [key]
            case ast.Call(args=args) if any(isinstance(each, ast.Name) for each in args):
                return _texts(args)  # as_list(data, "tags")
            case ast.Attribute(value=ast.Name(id=name), attr=key) if name in self._names:
                return [key]
            case ast.Tuple() | ast.List() | ast.Set():
                named = [str(each.value) for each in texts_in(node)]
                return named if len(self.fields.intersection(named)) >= 2 else []
        return []

    def _is_parsed_by_name(self, node: ast.AST) -> TypeGuard[ast.Call]:
        """Return whether a parser, or a client that parses, is called which a variable holds."""
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=called)):
                return called in {"parse", "invoke", "ainvoke"} and name in self._parsers
        return False

    @cached_property
    def _parsers(self) -> frozenset[str]:
        """What parsers of answers are called: LangChain's make the class that they are told."""
        return frozenset(
            name
            for node in walked(self.tree)
            if isinstance(node, ast.Call)
            and last_name(node) in {"PydanticOutputParser", "with_structured_output"}
            for name in _assigned(self._above[node])
        )

    def _is_ours(self, node: ast.AST) -> TypeGuard[ast.expr]:
        if isinstance(node, ast.Name):
            return node.id in self._names and isinstance(node.ctx, ast.Load)
        return is_parser(node)

    @cached_property
    def _above(self) -> dict[ast.AST, ast.AST]:
        """What each node stands in."""
        return {inner: node for node in walked(self.tree) for inner in ast.iter_child_nodes(node)}

    @cached_property
    def _json(self) -> frozenset[str]:
        """What the texts are called that are parsed."""
        return frozenset(
            each.id
            for node in walked(self.tree)
            if is_parser(node)
            for each in node.args
            if isinstance(each, ast.Name)
        )

    @cached_property
    def _parsed(self) -> frozenset[str]:
        """All names in what is parsed."""
        return frozenset(
            each.id
            for node in walked(self.tree)
            if is_parser(node)
            for given in node.args
            for each in ast.walk(given)
            if isinstance(each, ast.Name)
        )

    @cached_property
    def _names(self) -> frozenset[str]:
        """What the objects are called: by what they are assigned to, and what is looked up."""
        found = set[str]()
        for node in walked(self.tree):
            if is_parser(node) or self._is_parsed_by_name(node):
                found |= _assigned(self._above[self._made_of(node)])
            if isinstance(node, ast.Call) and last_name(node) in self.typed:
                found |= _assigned(self._above[self._made_of(node)])
            if isinstance(node, ast.arg) and last_name(node.annotation) in self.typed:
                found.add(node.arg)
            if is_parser(node) and (handed := self._handed(self._made_of(node))):
                found.add(handed)
            match node:
                case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)) | (
                    ast.Call(
                        func=ast.Attribute(attr="get" | "pop", value=ast.Name(id=name)),
                        args=[ast.Constant(value=key), *_],
                    )
                ) if key in self.fields:
                    found.add(name)
                case ast.Call(func=ast.Attribute(attr=method, value=ast.Name(id=name))) if (
                    method in _DUMPS and len(self.fields.intersection(_included(node))) >= 2
                ):
                    found.add(name)
        return frozenset(found)

    def _made_of(self, node: ast.expr) -> ast.expr:
        """Return the expression that is the same object still: a model made of it, or its dump."""
        above = self._above[node]
        if isinstance(above, ast.Attribute) and (above.attr not in _DUMPS or self._is_part(above)):
            return node
        if isinstance(above, ast.keyword | ast.Attribute):
            above = self._above[above]
        if isinstance(above, ast.Await | ast.BoolOp):
            return self._made_of(above)
        if isinstance(above, ast.Call) and (
            last_name(above) in _DUMPS or last_name(above)[:1].isupper()
        ):
            return self._made_of(above)
        return node

    def _stays(self, node: ast.AST) -> bool:
        """Return whether what surrounds an object takes only what it names, or its truth."""
        above = self._above[node]
        match above:
            case ast.Subscript(value=value) if value is node:
                return isinstance(above.slice, ast.Constant) or isinstance(above.ctx, ast.Store)
            case ast.Attribute():
                return self._is_part(above)
            case ast.Call() | ast.keyword(arg=str()):
                return self._is_told(above, node)
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                return test is node
            case ast.Compare() | ast.UnaryOp() | ast.Assert():
                return True
        return bool(names := _assigned(above)) and names <= self._names

    def _is_part(self, of: ast.Attribute) -> bool:
        """Return whether an attribute of an object, or the call of it, gives what it names only."""
        call = self._above[of]
        if not isinstance(call, ast.Call) or call.func is not of:
            return of.attr in self.fields
        if of.attr in _DUMPS:
            return bool(_included(call))
        return of.attr == "keys" or bool(of.attr in _LOOKS_UP and _texts(call.args[:1]))

    def _is_told(self, above: ast.AST, node: ast.AST) -> bool:
        """Return whether a call is known to keep nothing, or is of a function of this module.

        In that one the object is followed where it has the same name.
        """
        call = above if isinstance(above, ast.Call) else self._above[above]
        if not isinstance(call, ast.Call):
            return False
        name = last_name(call)
        if name == "getattr":
            return bool(_texts(call.args[1:2]))
        if name in _KEEPS_NOTHING or self._handed(node) in self._names:
            return True
        return isinstance(node, ast.Name) and node.id in self._parameters.get(name, ())

    def _handed(self, node: ast.AST) -> str | None:
        """Return what a function of this module calls an object that it is given right here.

        None where there is not exactly one of its name, or its place is not sure.
        """
        above = self._above[node]
        call = self._above[above] if isinstance(above, ast.keyword) else above
        match call:
            case (
                ast.Call(func=ast.Name(id=name))
                | ast.Call(func=ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name))
            ):
                pass
            case _:
                return None
        functions = self._functions.get(name, [])
        told = given(functions[0], call) if len(functions) == 1 else {}
        return next((name for name, each in told.items() if each is node), None)

    @cached_property
    def _functions(self) -> dict[str, list[Function]]:
        """The module's functions and methods by their names."""
        found: dict[str, list[Function]] = {}
        for node in walked(self.tree):
            if isinstance(node, Function):
                found.setdefault(node.name, []).append(node)
        return found

    @cached_property
    def _parameters(self) -> dict[str, set[str]]:
        """The names of what the module's functions take."""
        return {
            node.name: {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
            for node in walked(self.tree)
            if isinstance(node, Function)
        }


def _included(dump: ast.Call) -> list[str]:
    """Return the fields that a dump of a model is told to have alone."""
    told = [each.value for each in dump.keywords if each.arg == "include"]
    return [str(text.value) for each in told for text in texts_in(each)]


def _looks_up(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr in _LOOKS_UP


def _texts(nodes: list[ast.expr]) -> list[str]:
    return [
        each.value
        for each in nodes
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]


def _assigned(node: ast.AST) -> set[str]:
    """Return the names that a statement assigns its value to; none where it is kept elsewhere."""
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=targets)]) | ast.Assign(targets=targets):
            pass
        case ast.AnnAssign(target=target) | ast.NamedExpr(target=target):
            targets = [target]
        case _:
            return set()
    names = {each.id for each in targets if isinstance(each, ast.Name)}
    return names if len(names) == len(targets) else set()
