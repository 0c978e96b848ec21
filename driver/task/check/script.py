"""TypeScript and Vue files of a checkout, parsed by tree-sitter: types, and which fields are used.

A package that cannot be imported raises ImportError; the caller says what is then not compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import tree_sitter_html
import tree_sitter_typescript
from tree_sitter import Language, Node, Parser

from driver.task.check.checkout import Checkout, SourceFile
from driver.task.check.finding import Edit

_HTML = Parser(Language(tree_sitter_html.language()))
_TS = Parser(Language(tree_sitter_typescript.language_typescript()))
_TSX = Parser(Language(tree_sitter_typescript.language_tsx()))
_MUSTACHE = re.compile(rb"\{\{(.*?)\}\}", re.DOTALL)
_BOUND = (b":", b"v-", b"@", b"#")
"""How attributes begin whose values are expressions."""
ELSEWHERE = frozenset({"lookup_type", "generic_type"})
"""Types whose texts and names are keys or arguments: `Item["colour"]`, `Omit<Item, "id">`."""
_DECLARES = frozenset(
    {"import_specifier", "type_alias_declaration", "enum_declaration"}
    | {"interface_declaration", "class_declaration"}
)
_LOOKED_UP = frozenset({"property_identifier", "shorthand_property_identifier_pattern"})


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
class Member:
    """A field of an interface or of an object type."""

    name: str
    node: Node
    type: Node | None


@dataclass(frozen=True)
class Shape:
    """An interface or object type."""

    part: Part
    name: str
    node: Node
    members: tuple[Member, ...]
    bases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Values:
    """Texts that a type allows: of a union, or of an enum."""

    part: Part
    name: str
    node: Node
    texts: tuple[Node, ...]
    kind: str = "union"
    """`union`, `enum`, or `array`: a constant whose entries a type is made of."""

    @property
    def values(self) -> tuple[str, ...]:
        """The texts."""
        return tuple(text_of(each) for each in self.texts)


@dataclass
class Scripts:
    """All of it that could be parsed."""

    shapes: dict[str, list[Shape]] = field(default_factory=dict)
    """By name: a checkout may have several of one."""
    values: dict[str, list[Values]] = field(default_factory=dict)
    """Named unions and enums."""
    pages: list[tuple[SourceFile, int, list[Part]]] = field(default_factory=list)
    """Vue files with the line of their template, and all code within."""
    parts: list[Part] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, checkout: Checkout) -> Scripts:
        """Parse every file; one that cannot be is named in `unclear`, and left out."""
        found = cls()
        for file in checkout.of(".ts", ".tsx"):
            parser = _TSX if file.path.endswith(".tsx") else _TS
            found._take(Part(file, 0, parser.parse(file.content).root_node))
        for file in checkout.of(".vue"):
            found._take_page(file)
        return found

    def only(self, name: str) -> Values | None:
        """Return the enum or union of a name; None where there is not exactly one."""
        same = self.values.get(name, [])
        return same[0] if len(same) == 1 else None

    def names_in(self, file: SourceFile) -> set[str]:
        """Return the types that a file declares or imports, as it calls them."""
        return {
            _decoded(node.child_by_field_name("alias") or name)
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
        return (each for name in shape.bases for each in self.shapes.get(name, ()))

    def inherited(self, shape: Shape) -> dict[str, Member]:
        """Return the members of a type and of all that it extends, its own before theirs."""
        lineage, known, at = [shape], {id(shape)}, 0
        while at < len(lineage):
            further = [each for each in self.bases(lineage[at]) if id(each) not in known]
            known.update(map(id, further))
            lineage += further
            at += 1
        return {each.name: each for one in reversed(lineage) for each in one.members}

    def _take(self, part: Part) -> bool:
        if part.root.has_error:
            self.unclear.append(f"{part.file.path}: not TypeScript that is understood here")
            return False
        self.parts.append(part)
        declared = _declared(part)
        for node in walk(part.root):
            if node.type == "interface_declaration":
                self._take_shape(part, node, node.child_by_field_name("body"))
            elif node.type == "type_alias_declaration":
                value = node.child_by_field_name("value")
                if value is not None and value.type == "object_type":
                    self._take_shape(part, node, value)
                elif value is not None:
                    self._take_alias(part, node, value, declared)
            elif node.type == "enum_declaration":
                members = [n for n in walk(node) if n.type == "enum_assignment"]
                texts = tuple(text for each in members for text in _value_of(each))
                if texts and len(texts) == len(members):
                    self._take_values(Values(part, _name(node), node, texts, "enum"))
        return True

    def _take_shape(self, part: Part, node: Node, body: Node | None) -> None:
        if body is None:
            return
        members = tuple(
            Member(_name(each), each, each.child_by_field_name("type"))
            for each in body.named_children
            if each.type == "property_signature"
        )
        bases = tuple(
            _decoded(inner)
            for each in node.children
            if each.type == "extends_type_clause"
            for inner in each.named_children
        )
        found = Shape(part, _name(node), node, members, bases)
        self.shapes.setdefault(found.name, []).append(found)

    def _take_alias(
        self, part: Part, node: Node, value: Node, declared: dict[str, list[Node]]
    ) -> None:
        """Take a union of texts, or a type made of a constant: `(typeof PRIORITIES)[number]`."""
        if texts := strings_in(value):
            self._take_values(Values(part, _name(node), node, texts))
            return
        queried = {
            _decoded(inner)
            for each in walk(value)
            if each.type == "type_query"
            for inner in each.named_children
        }
        for name in sorted(queried):
            for each in declared.get(name, []):
                texts = tuple(
                    inner
                    for inner in walk(each)
                    if inner.type == "string" and inner.parent and inner.parent.type == "array"
                )
                if texts:
                    self._take_values(Values(part, _name(node), each, texts, "array"))

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


def _declared(part: Part) -> dict[str, list[Node]]:
    """Return where a file declares its variables, by their names."""
    found: dict[str, list[Node]] = {}
    for node in walk(part.root):
        if node.type == "variable_declarator":
            found.setdefault(_name(node), []).append(node)
    return found


def walk(node: Node, without: frozenset[str] = frozenset()) -> Iterator[Node]:
    """Yield a node and all in it, but what is of a type left out.

    Without recursion: code may be nested deeply.
    """
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each.type in without:
            continue
        yield each
        waiting.extend(reversed(each.children))


def strings_in(node: Node) -> tuple[Node, ...]:
    """Return the texts that a type allows by itself, in their order."""
    return tuple(
        inner
        for each in walk(node, ELSEWHERE)
        if each.type == "literal_type"
        for inner in each.children
        if inner.type == "string"
    )


def text_of(node: Node) -> str:
    """Return a string's text without its quotes."""
    return _decoded(node)[1:-1]


def quote_of(node: Node) -> str:
    """Return a string's quotation mark."""
    return _decoded(node)[:1]


def used(part: Part) -> set[str]:
    """Return the names that a piece of code looks up in an object, or uses as they are."""
    found = set[str]()
    for node in walk(part.root):
        if node.type in _LOOKED_UP or node.type == "identifier":
            found.add(_decoded(node))
        elif node.type == "subscript_expression":
            index = node.child_by_field_name("index")
            if index is not None and index.type == "string":
                found.add(text_of(index))
    return found


def compared(part: Part) -> Iterator[tuple[str, Node]]:
    """Yield each field that is compared with a text, and that text: `item.state === "open"`."""
    for node in walk(part.root):
        if node.type != "binary_expression" or len(node.named_children) != 2:
            continue
        for one, other in (node.named_children, node.named_children[::-1]):
            name = one.child_by_field_name("property")
            if one.type == "member_expression" and name is not None and other.type == "string":
                yield _decoded(name), other


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


def _tag(element: Node) -> bytes:
    for node in walk(element):
        if node.type == "tag_name":
            return node.text or b""
    return b""


def _value_of(member: Node) -> Iterator[Node]:
    value = member.child_by_field_name("value")
    if value is not None and value.type == "string":
        yield value


def _name(node: Node) -> str:
    name = node.child_by_field_name("name")
    return _decoded(name).strip("'\"") if name is not None else ""


def _decoded(node: Node) -> str:
    return (node.text or b"").decode()
