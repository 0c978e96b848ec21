"""TypeScript and Vue files of a checkout, parsed by tree-sitter: types, and which fields are used.

A package that cannot be imported raises ImportError; the caller says what is then not compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import tree_sitter_html
import tree_sitter_typescript
from tree_sitter import Language, Node, Parser

from driver.task.check.checkout import Checkout, SourceFile
from driver.task.check.constants import Constants, Part, Values, fields_of, schema_of
from driver.task.check.syntax import (
    ELSEWHERE,
    decoded,
    entries_of,
    name_of,
    strings_in,
    text_of,
    walk,
)
from driver.task.check.type_nodes import Base, Table, base_of, named_in, table_of

_HTML = Parser(Language(tree_sitter_html.language()))
_TS = Parser(Language(tree_sitter_typescript.language_typescript()))
_TSX = Parser(Language(tree_sitter_typescript.language_tsx()))
_MUSTACHE = re.compile(rb"\{\{(.*?)\}\}", re.DOTALL)
_BOUND = (b":", b"v-", b"@", b"#")
"""How attributes begin whose values are expressions."""
_DECLARES = frozenset(
    {"import_specifier", "type_alias_declaration", "enum_declaration"}
    | {"interface_declaration", "class_declaration"}
)
_TAKEN = frozenset(
    {"variable_declarator", "enum_declaration"}
    | {"interface_declaration", "type_alias_declaration"}
)
_COMPOSED = frozenset({"object_type", "intersection_type"})
_HELD = frozenset({"type_annotation", "union_type", "array_type", "parenthesized_type"})
"""What may stand between a field and the type that it has written out."""
_OTHERS = frozenset({"type_identifier", "template_literal_type"})
"""What a union has beside its texts: of these it is not known what they allow."""
_EVERY = frozenset({"predefined_type", "index_type_query"})
"""What a list or a table is looked up with, of which every entry is meant."""
_COMPARES = frozenset({"==", "===", "!=", "!=="})
_COMPUTED = frozenset({"identifier", "member_expression"})
_LOOKED_UP = frozenset({"property_identifier", "shorthand_property_identifier_pattern"})


@dataclass(frozen=True)
class Member:
    """A field of an interface, of an object type, or of a schema of zod's."""

    part: Part
    name: str
    node: Node
    type: Node | None
    """What it may be: a type, or of a schema an expression."""

    @property
    def is_of_schema(self) -> bool:
        """Whether it is of a schema."""
        return self.node.type == "pair"


@dataclass(frozen=True)
class Shape:
    """An interface or object type, or a schema of zod's."""

    part: Part
    name: str
    node: Node
    members: tuple[Member, ...]
    bases: tuple[Base, ...] = ()
    is_whole: bool = True
    """Whether no field was left out on purpose, or comes from a type that is not followed."""
    is_schema: bool = False


@dataclass
class Scripts:
    """All of it that could be parsed."""

    shapes: dict[str, list[Shape]] = field(default_factory=dict)
    """By name: a checkout may have several of one."""
    constants: Constants = field(default_factory=Constants)
    values: dict[str, list[Values]] = field(default_factory=dict)
    """Named unions and enums."""
    tables: list[Table] = field(default_factory=list)
    pages: list[tuple[SourceFile, int, list[Part]]] = field(default_factory=list)
    """Vue files with the line of their template, and all code within."""
    parts: list[Part] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    _declared: list[tuple[Part, list[Node]]] = field(default_factory=list)
    """What the pieces declare."""

    @classmethod
    def read(cls, checkout: Checkout) -> Scripts:
        """Parse every file; one that cannot be is named in `unclear`, and left out."""
        found = cls()
        for file in checkout.of(".ts", ".tsx"):
            parser = _TSX if file.path.endswith(".tsx") else _TS
            found._take(Part(file, 0, parser.parse(file.content).root_node))
        for file in checkout.of(".vue"):
            found._take_page(file)
        for part, nodes in found._declared:
            found._take_types(part, nodes)
        return found

    def only(self, name: str) -> Values | None:
        """Return the enum or union of a name; None where there is not exactly one."""
        same = self.values.get(name, [])
        return same[0] if len(same) == 1 else None

    def names_in(self, file: SourceFile) -> set[str]:
        """Return the types that a file declares or imports, as it calls them."""
        return {
            decoded(node.child_by_field_name("alias") or name)
            for part in self.parts
            if part.file is file
            for node in walk(part.root)
            if node.type in _DECLARES and (name := node.child_by_field_name("name")) is not None
        }

    def each_shape(self) -> Iterator[Shape]:
        """Yield every interface and object type."""
        return (each for same in self.shapes.values() for each in same)

    def bases(self, shape: Shape) -> Iterator[Shape]:
        """Yield the types of the names that a type extends."""
        return (each for base in shape.bases for each in self.shapes.get(base.name, ()))

    def inherited(self, shape: Shape, known: set[int] | None = None) -> dict[str, Member]:
        """Return the members of a type and of all that it extends, its own before theirs.

        Each type is looked at once: they may extend each other in a circle. `known`: which were.
        """
        found, known = dict[str, Member](), {id(shape)} if known is None else known
        for base in reversed(shape.bases):
            for each in self._new(base, known):
                found |= {
                    name: member
                    for name, member in self.inherited(each, known).items()
                    if name not in base.without and (base.only is None or name in base.only)
                }
        return found | {each.name: each for each in shape.members}

    def is_whole(self, shape: Shape) -> bool:
        """Return whether a type should have all fields: none is left out."""
        lineage = self._lineage(shape)
        bases = [base for each in lineage for base in each.bases]
        return all(each.is_whole for each in lineage) and not any(
            base.only is not None or base.without for base in bases
        )

    def unknown(self, shape: Shape) -> list[str]:
        """Return the names that a type is of, or what it is of, and no file declares."""
        bases = [base.name for each in self._lineage(shape) for base in each.bases]
        return [name for name in dict.fromkeys(bases) if name not in self.shapes]

    def _lineage(self, shape: Shape) -> list[Shape]:
        found, known = [shape], {id(shape)}
        for each in found:  # which grows
            found += [new for base in each.bases for new in self._new(base, known)]
        return found

    def _new(self, base: Base, known: set[int]) -> list[Shape]:
        """Return the types of a base's name that are not known yet, and know them."""
        found = [each for each in self.shapes.get(base.name, ()) if id(each) not in known]
        known.update(map(id, found))
        return found

    def allowed(self, part: Part, told: Node) -> Iterator[Values]:
        """Yield the values of the names in a type: of types, and of what constants are made of."""
        for node in named_in(told):
            names = [decoded(each) for each in walk(node) if each.type == "identifier"]
            index = node.named_children[-1] if node.named_children else node
            found = None
            if node.type == "type_identifier":
                found = self.only(decoded(node))
            elif node.type == "index_type_query" and names:  # keyof typeof LABELS
                found = self.constants.keys(part, names[-1])
            elif node.type == "lookup_type" and index.type == "literal_type" and names:
                found = self.constants.entries(part, names[-1], decoded(index).strip("'\""))
            elif node.type == "generic_type" or index.type in _EVERY:
                found = self.constants.values(part, names[-1]) if names else None
            if found is not None:
                yield found

    def _take(self, part: Part) -> bool:
        """Take what a piece declares but types; return whether it can be read."""
        if part.root.has_error:
            self.unclear.append(f"{part.file.path}: not TypeScript that is understood here")
            return False
        self.parts.append(part)
        nodes = [*_declared(part.root)]
        self._declared.append((part, nodes))
        for node in nodes:
            if node.type == "variable_declarator":
                self.constants.add(part, node)
                self.tables += table_of(part, node)
            elif node.type == "enum_declaration":
                members = [n for n in walk(node) if n.type == "enum_assignment"]
                texts = tuple(text for each in members for text in _value_of(each))
                if texts and len(texts) == len(members):
                    found = Values(part, name_of(node), node, texts, "enum")
                    self.constants.enums.setdefault(found.name, []).append(found)
                    self._take_values(found)
        return True

    def _take_types(self, part: Part, nodes: list[Node]) -> None:
        for node in nodes:
            value = node.child_by_field_name("value")
            if node.type == "interface_declaration":
                body = node.child_by_field_name("body")
                clauses = [each for each in node.children if each.type == "extends_type_clause"]
                self._take_shape(part, node, [*([body] if body else []), *clauses])
                self._take_inner(part, node)
            elif node.type == "type_alias_declaration" and value is not None:
                if value.type in _COMPOSED or base_of(value) is not None:
                    self._take_shape(part, node, [value])
                    self._take_inner(part, node)
                if value.type not in _COMPOSED:
                    self._take_alias(part, node, value)
            elif node.type == "variable_declarator" and (schema := schema_of(value)) is not None:
                members = tuple(Member(part, *each) for each in fields_of(schema))
                bases = tuple(Base(name) for name in schema.bases)
                found = Shape(part, name_of(node), node, members, bases, schema.is_whole, True)
                self.shapes.setdefault(found.name, []).append(found)

    def _take_inner(self, part: Part, node: Node) -> None:
        """Take the types that fields have written out: `analysis: { tags: string[] } | null`."""
        for inner in walk(node):
            above = inner.parent
            while above is not None and above.type in _HELD:
                above = above.parent
            if inner.type == "object_type" and above and above.type == "property_signature":
                self._take_shape(part, above, [inner], f"{name_of(node)}.{name_of(above)}")

    def _take_shape(
        self, part: Part, node: Node, pieces: list[Node], name: str | None = None
    ) -> None:
        """Take a type that is put together of pieces: bodies, names, picks of others."""
        members, bases, is_whole = list[Member](), list[Base](), True
        waiting = [*pieces]
        while waiting:
            piece = waiting.pop(0)
            if piece.type in {"object_type", "interface_body"}:
                members += [
                    Member(part, name_of(each), each, each.child_by_field_name("type"))
                    for each in piece.named_children
                    if each.type == "property_signature"
                ]
            elif piece.type in {"intersection_type", "parenthesized_type", "extends_type_clause"}:
                waiting = [*entries_of(piece), *waiting]
            elif (base := base_of(piece)) is not None:
                bases.append(base)
            else:
                is_whole = False
        found = Shape(part, name or name_of(node), node, tuple(members), tuple(bases), is_whole)
        self.shapes.setdefault(found.name, []).append(found)

    def _take_alias(self, part: Part, node: Node, value: Node) -> None:
        """Take a union of texts, or a type made of a constant: `(typeof COLOURS)[number]`."""
        beside = {each.type for each in walk(value, ELSEWHERE)} & _OTHERS
        texts = strings_in(value)
        if texts and "template_literal_type" in beside:
            self.unclear.append(f"{part.place(node)}: {name_of(node)} has a template")
        if texts and not beside:
            self._take_values(Values(part, name_of(node), node, texts))
            return
        if any(each.type == "type_query" for each in walk(value)):
            for found in self.allowed(part, value):
                self._take_values(replace(found, name=name_of(node)))

    def _take_values(self, found: Values) -> None:
        self.values.setdefault(found.name, []).append(found)

    def _take_page(self, file: SourceFile) -> None:
        document = _HTML.parse(file.content).root_node
        parts, line = list[Part](), 1
        for node in document.children:
            if node.type == "script_element":
                for raw in node.children:
                    if raw.type == "raw_text":
                        text = file.content[raw.start_byte : raw.end_byte]
                        part = Part(file, raw.start_byte, _TS.parse(text).root_node)
                        if self._take(part):
                            parts.append(part)
            elif node.type == "element" and _tag(node) == b"template":
                line = file.line_of(node.start_byte)
                if node.has_error:
                    self.unclear.append(f"{file.at(line)}: a template that is not understood here")
                parts += _expressions(file, node)
        self.pages.append((file, line, parts))


def used(part: Part) -> set[str]:
    """Return the names that a piece of code looks up in an object, or uses as they are."""
    found = set[str]()
    for node in walk(part.root):
        if node.type in _LOOKED_UP or node.type == "identifier":
            found.add(decoded(node))
        elif node.type == "subscript_expression":
            index = node.child_by_field_name("index")
            if index is not None and index.type == "string":
                found.add(text_of(index))
    return found


def listed(parts: list[Part]) -> set[str]:
    """Return the texts in a page's lists, where one may be looked up by them: `item[row.key]`."""
    nodes = [node for part in parts for node in walk(part.root)]
    indexes = [node.child_by_field_name("index") for node in nodes]
    if all(each is None or each.type not in _COMPUTED for each in indexes):
        return set()
    lists = [node for node in nodes if node.type == "array"]
    return {text_of(each) for one in lists for each in walk(one) if each.type == "string"}


def compared(part: Part) -> Iterator[tuple[str, Node]]:
    """Yield each field that is compared with a text, and that text: `item.state === "open"`."""
    for node in walk(part.root):
        operator = decoded(node.child_by_field_name("operator"))
        if operator not in _COMPARES or len(node.named_children) != 2:
            continue
        for one, other in (node.named_children, node.named_children[::-1]):
            name = one.child_by_field_name("property")
            if one.type == "member_expression" and name is not None and other.type == "string":
                yield decoded(name), other


def _expressions(file: SourceFile, template: Node) -> Iterator[Part]:
    """Yield the expressions of a template that can be parsed; the others are no use of a field."""
    for node in walk(template):
        spans: list[tuple[int, int]] = []
        if node.type in {"text", "ERROR"}:
            text = file.content[node.start_byte : node.end_byte]
            spans = [(m.start(1), m.end(1)) for m in _MUSTACHE.finditer(text)]
            spans = [(node.start_byte + start, node.start_byte + end) for start, end in spans]
        elif node.type == "attribute":
            name = node.children[0].text or b""
            values = [n for n in walk(node) if n.type == "attribute_value"]
            if name.startswith(_BOUND):
                spans = [(each.start_byte, each.end_byte) for each in values]
        for start, end in spans:
            yield Part(file, start, _TS.parse(file.content[start:end]).root_node)


def _declared(root: Node) -> Iterator[Node]:
    """Yield the types, enums and variables that are declared in a piece, in their order."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.type in _TAKEN:
            yield node
        waiting.extend(reversed(node.named_children))


def _tag(element: Node) -> bytes:
    for node in walk(element):
        if node.type == "tag_name":
            return node.text or b""
    return b""


def _value_of(member: Node) -> Iterator[Node]:
    value = member.child_by_field_name("value")
    if value is not None and value.type == "string":
        yield value
