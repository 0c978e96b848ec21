"""The pydantic models of a checkout: which are surely of an answer, or of an item as a whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from driver.task.check import enums
from driver.task.check.lengths import aliases
from driver.task.check.python_code import (
    CHANGING,
    ROOTS,
    Attribute,
    Class,
    Code,
    is_table,
    last_name,
)
from driver.task.check.tied import Tied, made
from driver.task.check.values import QUERIES, SHOWN, UPDATES, is_named, missing_fields
from driver.task.shape import Field, Kind
from driver.task.source import Source

_BASES = frozenset({*ROOTS, "Generic", "ABC", "Protocol", "object"})
_ALIASES = frozenset({"alias", "validation_alias"})
_LISTS = frozenset({"list", "sequence", "set", "tuple"})
"""How types of several values are called, in small letters."""
_CHANGES = frozenset({"'allow'", "Extra.allow", "'before'", "'wrap'", "'plain'"} | CHANGING)
"""What a model's `extra` and the modes of its validators are called, and validators themselves."""


@dataclass
class Models:
    """Every pydantic model that shares fields with the answer, by what it is for.

    Of two kinds a difference breaks: models that answers are parsed into, with most of their
    fields, and those that the API gives of an item, but for limits: a route may cut texts. Any
    other may be narrower on purpose, and so may one of these kinds beside a wider one. A class
    that is a table is compared as one.
    """

    source: Source
    code: Code
    tied: Tied
    all: list[Class] = field(default_factory=list)
    read: list[Class] = field(default_factory=list)
    """Parsed of answers."""
    given: list[Class] = field(default_factory=list)
    """Given by the API, by their names."""
    items: list[Class] = field(default_factory=list)
    """These, and others of an item."""
    gaining: set[Class] = field(default_factory=set)
    """What is to have every field: an answer's fullest, an item's of ours, or a base of one."""

    def __post_init__(self) -> None:
        """Sort them."""
        self.all = [
            each
            for each in self.code.each_class()
            if len(self._fields(each)) >= 2
            and not is_named(each.name, QUERIES)
            and self.code.descends(each, *ROOTS)
            and not is_table(each)
        ]
        firm = [each for each in self.all if not self._changes(each)]
        most = [each for each in firm if 2 * len(self._fields(each)) > len(self.source.fields)]
        if not self.tied.parsed_otherwise:
            self.read = [each for each in most if each in self.tied.parsed]
        self.items = [each for each in self.all if self._is_item(each)]
        paths = {file.path for file, _ in self.code.modules if self.items}
        foreign = made(self.code, paths)  # another server's items, say
        own = [each for each in self.items if each not in foreign]
        self.given = [each for each in own if each in firm and is_named(each.name, SHOWN)]
        whole = [*own, *filter(self._is_fullest, self.read)]
        self.gaining = {base for each in whole for base in self.code.lineage(each)}

    def missing(self, model: Class) -> list[Field]:
        """Return the fields that a model lacks, and none of its bases: those are named themselves.

        A base lacks nothing that a class has which is made of it, or that answers are parsed into.
        """
        own = self._missing(model)
        if model in self.read:
            return own
        bases = [self._missing(each) for each in self.code.lineage(model)[1:]]
        return [each for each in own if not any(each in base for base in bases)]

    def drops(self, model: Class, name: str) -> bool:
        """Return whether a field of answers is lost that a model lacks: nothing else takes it."""
        kept = any(name in self.filled(each) for each in self.tied.parsed)
        return self._is_fullest(model) and not kept and not self.tied.keeps_json

    def is_parsed(self, model: Class) -> bool:
        """Return whether answers are parsed into a model, or into one that it is a base of."""
        return any(model in self.code.lineage(each) for each in self.tied.parsed)

    def _is_fullest(self, model: Class) -> bool:
        fullest = max((len(self._fields(each)) for each in self.read), default=0)
        return model in self.read and len(self._fields(model)) == fullest

    def is_widest(self, of: Field, attribute: Attribute, *, by_limit: bool) -> bool:
        """Return whether what an attribute refuses is refused by every model of its kind.

        By a limit: of those that answers are parsed into.
        """

        def narrow(each: Attribute) -> float:
            if by_limit:
                return -min((limit for _, limit, _ in limits(self.code, of, each)), default=inf)
            return enums.missed(of, enums.named_by(self.code, of, each))

        given = [] if by_limit else self.given
        for kind, beside in ((self.read, self.read), (given, self.items)):
            firm = [each for each in kind if not self._changes(each, of.name)]
            if attribute in self._counting(of, firm):
                least = min(narrow(each) for each in self._counting(of, beside))
                if narrow(attribute) <= least:
                    return True
        return False

    def filled(self, model: Class) -> set[str]:
        """Return the names that a model's fields are filled by: their own, and their aliases."""
        attributes = self.code.inherited(model)
        return {*attributes} | {
            inner.value
            for each in attributes.values()
            for node in _keywords(each.annotation, each.value)
            if node.arg in _ALIASES
            for inner in ast.walk(node.value)
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
        }

    def _fields(self, model: Class) -> set[str]:
        return {each.name for each in self.source.fields} & self.filled(model)

    def _counting(self, of: Field, kind: Sequence[Class]) -> list[Attribute]:
        found = (self.code.inherited(each).get(of.name) for each in kind)
        return [each for each in found if each is not None]

    def _missing(self, model: Class) -> list[Field]:
        tables = filter(is_table, self.code.each_class())
        made = [each for each in (*self.all, *tables) if model in self.code.lineage(each)]
        if model not in self.read and any(each in self.read for each in made):
            return []
        there = {name for each in made for name in self.filled(each)}
        own = missing_fields(self.source, self.filled(model), model.name)
        return [each for each in own if each.name not in there]

    def _is_item(self, model: Class) -> bool:
        """Return whether a model has most columns and the JSON value beside them."""
        there, columns = self.filled(model), {*self.source.storage.columns}
        whole = not self.source.analysed or self.source.storage.analysis[0] in there
        mostly = 2 * len(columns & there) > len(columns)
        return whole and mostly and not is_named(model.name, UPDATES)

    def _changes(self, model: Class, of: str = "") -> bool:
        """Return whether a model keeps what it has no field for, or changes values before.

        So may one with a base that is not in the checkout. `of`: only what is said of that field,
        which is left out otherwise.
        """
        lineage = self.code.lineage(model)
        bases = [(base, each.file) for each in lineage for base in each.node.bases]
        if any(last_name(b) not in _BASES and not self.code.named(b, file) for b, file in bases):
            return True
        said = [said for each in lineage for said in (*each.node.keywords, *each.node.body)]
        return any(
            (of in about if of else not about) and any(map(_is_change, ast.walk(node)))
            for node in said
            for about in [_about(node)]
        )


def _about(node: ast.AST) -> set[str]:
    """Return the fields that a statement of a model is about; none where it is of the whole."""
    match node:
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name} - {"model_config"}
        case ast.FunctionDef(decorator_list=made):
            told = [arg for each in made if isinstance(each, ast.Call) for arg in each.args]
            names = {each.value for each in told if isinstance(each, ast.Constant)}
            return {str(each) for each in names} if "*" not in names else set()
    return set()


def _is_change(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant | ast.Name | ast.Attribute):
        return ast.unparse(node) in _CHANGES
    return isinstance(node, ast.keyword) and node.arg == "pre"  # of pydantic 1


def limits(code: Code, of: Field, attribute: Attribute) -> Iterator[tuple[ast.expr, int, bool]]:
    """Yield the most characters that a field takes, wherever it says so, and whether that is its
    own: an alias of its type is others' too. Of a list the most entries, or of its texts (`of` is
    `entry_of` the field) their characters."""
    told = attribute.annotation or ast.Constant(None)
    lists = [
        n for n in ast.walk(told) if isinstance(n, ast.expr) and last_name(n).lower() in _LISTS
    ]
    held = [n.slice if isinstance(n, ast.Subscript) else ast.Constant(None) for n in lists]
    within, shared = [*_keywords(*held)], dict[str, ast.expr]()
    if of.shape.kind is Kind.LIST:
        own = [each for each in _keywords(told, attribute.value) if each not in within]
    else:
        own = within if held else [*_keywords(told, attribute.value)]
        shared = aliases(code, replace(attribute, annotation=held[0]) if held else attribute)
    for node in (*own, *_keywords(*shared.values())):
        match node:
            case ast.keyword(
                arg="max_length" | "max_items", value=ast.Constant(value=int(limit)) as value
            ):
                yield value, limit, node in own


def _keywords(*expressions: ast.expr | None) -> Iterator[ast.keyword]:
    for expression in expressions:
        for node in ast.walk(expression) if expression is not None else ():
            if isinstance(node, ast.keyword):
                yield node
