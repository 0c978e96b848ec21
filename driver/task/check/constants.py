"""What the constants of TypeScript code stand for: lists of texts, and zod's enums and objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tree_sitter import Node

from driver.task.check.checkout import SourceFile
from driver.task.check.finding import Edit
from driver.task.check.syntax import (
    called,
    decoded,
    entries_of,
    name_of,
    pairs_of,
    text_of,
    without_type,
)

_OF_ARGUMENT = frozenset(
    {"enum", "nativeEnum", "array", "freeze", "optional", "nullable", "nullish"}
)
"""Calls that allow what their argument does: `z.enum([…])`, `Object.freeze([…])`."""
_SAME = frozenset(
    {"optional", "nullable", "nullish", "default", "catch", "describe", "readonly", "brand"}
    | {"array", "min", "max", "length", "nonempty", "strict", "strip", "passthrough", "loose"}
    | {"refine", "superRefine", "partial", "required", "meta"}
)
"""Calls of a schema that change no value and no field that it knows."""
_OBJECTS = frozenset({"object", "strictObject", "looseObject", "extend", "safeExtend"})
_KEYS = frozenset({"property_identifier", "string"})
_DEPTH = 20


@dataclass(frozen=True)
class Part:
    """A piece of TypeScript: a file of it, or a script or an expression within a page."""

    file: SourceFile
    base: int
    """Where it begins in the file."""
    root: Node

    def place(self, node: Node) -> str:
        """Return where a node stands."""
        return self.file.at(self.file.line_of(self.base + node.start_byte))

    def after(self, node: Node, text: str) -> Edit:
        """Return the insertion of a text right behind a node."""
        end = self.base + node.end_byte
        return Edit(self.file.path, end, end, text)

    def below(self, node: Node, line: str) -> Edit:
        """Return the insertion of a line below a node, indented as it is."""
        place = self.file.line_end(self.base + node.end_byte)
        indent = self.file.indent(self.base + node.start_byte)
        return Edit(self.file.path, place, place, f"{self.file.newline}{indent}{line}")


@dataclass(frozen=True)
class Values:
    """Texts that a type allows: of a union, of an enum, or of a constant."""

    part: Part
    name: str
    node: Node
    texts: tuple[Node, ...]
    kind: str = "union"
    """`union`, `enum`, `array`: a list that a type is made of, or `other`: no text can be added."""

    @property
    def values(self) -> tuple[str, ...]:
        """The texts."""
        return tuple(
            text_of(each) if each.type == "string" else decoded(each) for each in self.texts
        )


@dataclass(frozen=True)
class Schema:
    """An object of zod's: its own fields, the schemas that it extends."""

    pairs: dict[Node, Node]
    bases: tuple[str, ...]
    is_whole: bool
    """Whether no field can come from elsewhere, or was left out on purpose."""


@dataclass
class Constants:
    """The variables and enums of all code, where they are declared."""

    found: dict[str, list[tuple[Part, Node]]] = field(default_factory=dict)
    enums: dict[str, list[Values]] = field(default_factory=dict)

    def add(self, part: Part, declarator: Node) -> None:
        """Take a variable."""
        self.found.setdefault(name_of(declarator), []).append((part, declarator))

    def only(self, part: Part, name: str) -> tuple[Part, Node] | None:
        """Return the variable that a name stands for in a file: its own, or the only one."""
        same = self.found.get(name, [])
        own = [each for each in same if each[0].file is part.file]
        found = own or same
        return found[0] if len(found) == 1 else None

    def values(self, part: Part, name: str, depth: int = 0) -> Values | None:
        """Return the texts that a variable or an enum allows; None where that is not sure."""
        declared, enums = self.only(part, name), self.enums.get(name, [])
        if declared is None:
            return enums[0] if len(enums) == 1 else None
        where, node = declared
        found = self.allowed(where, node.child_by_field_name("value"), depth + 1)
        return replace(found, node=node, name=name) if found and found.part is where else found

    def keys(self, part: Part, name: str) -> Values | None:
        """Return the keys of the object that a name stands for: `keyof typeof NAME`."""
        declared = self.only(part, name)
        value = without_type(declared[1].child_by_field_name("value")) if declared else None
        pairs = pairs_of(value) if value is not None and value.type == "object" else None
        if declared is None or not pairs or any(each.type not in _KEYS for each in pairs):
            return None
        return Values(declared[0], name, declared[1], tuple(pairs), "other")

    def entries(self, part: Part, name: str, key: str) -> Values | None:
        """Return what the objects of a list have for a key: `(typeof NAME)[number]["key"]`."""
        declared = self.only(part, name)
        value = without_type(declared[1].child_by_field_name("value")) if declared else None
        if declared is None or value is None or value.type != "array":
            return None
        entries, found = entries_of(value), list[Node]()
        for each in entries:
            pairs = pairs_of(each) if each.type == "object" else None
            found += [v for k, v in (pairs or {}).items() if decoded(k).strip("'\"") == key]
        texts = _all_texts(declared[0], declared[1], found, "other")
        return texts if len(found) == len(entries) else None

    def words(self, part: Part, table: Node) -> list[str] | None:
        """Return the keys of an object as texts, `[Colour.RED]` by its enum; None if unclear."""
        found = list[str | None]()
        for key in pairs_of(table) or {}:
            if key.type != "computed_property_name":
                found.append(decoded(key).strip("'\""))
                continue
            name, _, member = decoded(key).strip("[ ]").partition(".")
            known = self.values(part, name)
            texts = known.texts if known is not None else ()
            named = {_called(each): text_of(each) for each in texts if each.type == "string"}
            found.append(named.get(member))
        known_words = [each for each in found if each is not None]
        return known_words if found and len(known_words) == len(found) else None

    def allowed(self, part: Part, node: Node | None, depth: int = 0) -> Values | None:
        """Return the texts that an expression allows: a list's, an object's values, a schema's."""
        node = without_type(node)
        if node is None or depth > _DEPTH:
            return None
        if node.type == "identifier":
            return self.values(part, decoded(node), depth)
        if node.type == "array":
            return _all_texts(part, node, entries_of(node), "array")
        if node.type == "object":
            return _all_texts(part, node, [*(pairs_of(node) or {}).values()], "other")
        return self._called(part, node, depth + 1)

    def _called(self, part: Part, node: Node, depth: int) -> Values | None:
        of, name, arguments = called(node) or (None, "", [])
        found = None
        if name in _OF_ARGUMENT and arguments:
            found = self.allowed(part, arguments[0], depth)
        elif name == "literal":
            found = _all_texts(part, node, arguments, "other")
        elif name == "union" and arguments:
            inner = [self.allowed(part, each, depth) for each in entries_of(arguments[0])]
            texts = tuple(text for each in inner if each is not None for text in each.texts)
            found = None if None in inner else Values(part, "", node, texts, "other")
        elif name in _SAME:
            found = self.allowed(part, of, depth)
        return found


def _called(text: Node) -> str:
    """Return the name that an enum or an object has for a text."""
    key = text.parent.child_by_field_name("key") if text.parent is not None else None
    return decoded(key) or (name_of(text.parent) if text.parent is not None else "")


def schema_of(node: Node | None) -> Schema | None:
    """Return what object of zod's an expression makes: `z.object({…}).strict()`, or None."""
    pairs, bases, is_whole = dict[Node, Node](), list[str](), True
    is_object, at = False, without_type(node)
    while (call := called(at)) is not None:
        at, name, arguments = call
        if name in _OBJECTS and arguments and arguments[0].type == "object":
            own = pairs_of(arguments[0])
            pairs = {**(own or {}), **pairs}
            is_object, is_whole = True, is_whole and own is not None
        elif name == "merge" and arguments:
            bases.append(decoded(arguments[0]))
        elif name not in _SAME:
            is_whole = False
    root = decoded(at)
    if root in {"z", "zod"}:
        return Schema(pairs, tuple(bases), is_whole) if is_object else None
    return Schema(pairs, (*bases, root), is_whole) if pairs and root.isidentifier() else None


def fields_of(schema: Schema) -> Iterator[tuple[str, Node, Node]]:
    """Yield each field of a schema with its pair and what it allows."""
    for key, value in schema.pairs.items():
        if key.type in _KEYS and key.parent is not None:
            yield decoded(key).strip("'\""), key.parent, value


def _all_texts(part: Part, node: Node, entries: list[Node], kind: str) -> Values | None:
    """Return texts, where each entry is one."""
    if not entries or any(each.type != "string" for each in entries):
        return None
    return Values(part, "", node, tuple(entries), kind)
