"""Nodes of TypeScript as tree-sitter has them: what is in one, its texts, its name."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

ELSEWHERE = frozenset({"lookup_type", "generic_type"})
"""Types whose texts and names are keys or arguments: `Item["colour"]`, `Omit<Item, "id">`."""
_AROUND = frozenset({"as_expression", "satisfies_expression", "parenthesized_expression"})


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
    return decoded(node)[1:-1]


def quote_of(node: Node) -> str:
    """Return a string's quotation mark."""
    return decoded(node)[:1]


def name_of(node: Node) -> str:
    """Return what a declaration or a member is called; "" without a name."""
    name = node.child_by_field_name("name")
    return decoded(name).strip("'\"") if name is not None else ""


def decoded(node: Node | None) -> str:
    """Return a node as it is written; "" for none."""
    return (node.text or b"").decode() if node is not None else ""


def without_type(node: Node | None) -> Node | None:
    """Return an expression without what is said of its type: `[…] as const`, `{…} satisfies X`."""
    while node is not None and node.type in _AROUND and node.named_children:
        node = node.named_children[0]
    return node


def entries_of(node: Node) -> list[Node]:
    """Return the named nodes right in a node, comments left out."""
    return [each for each in node.named_children if each.type != "comment"]


def pairs_of(node: Node) -> dict[Node, Node] | None:
    """Return the keys of an object with their values; None where not every entry is a pair."""
    found: dict[Node, Node] = {}
    for each in entries_of(node):
        key, value = each.child_by_field_name("key"), each.child_by_field_name("value")
        if each.type != "pair" or key is None or value is None:
            return None
        found[key] = value
    return found


def called(node: Node | None) -> tuple[Node, str, list[Node]] | None:
    """Return of `a.b(c)` the node of a, the name b, and the arguments; None for anything else."""
    function = node.child_by_field_name("function") if node is not None else None
    arguments = node.child_by_field_name("arguments") if node is not None else None
    if function is None or arguments is None or function.type != "member_expression":
        return None
    of, name = function.child_by_field_name("object"), function.child_by_field_name("property")
    return (of, decoded(name), entries_of(arguments)) if of is not None else None
