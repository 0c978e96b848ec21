"""What nodes of TypeScript's types stand for: names of values, parts of other types, tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tree_sitter import Node

from driver.task.check.constants import Part
from driver.task.check.syntax import (
    decoded,
    entries_of,
    name_of,
    strings_in,
    text_of,
    walk,
    without_type,
)

_HOLDING = frozenset({"Array", "ReadonlyArray", "Set", "Readonly", "NonNullable"})
"""Generic types that hold what they are told."""
_INFERRED = frozenset({"z.infer", "z.output", "z.input"})


@dataclass(frozen=True)
class Base:
    """What a type has of another one."""

    name: str
    only: frozenset[str] | None = None
    """The fields that are picked; None for all of them."""
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """A constant with an entry for each value of a type: `Record<Colour, string>`."""

    part: Part
    name: str
    node: Node
    by: Node
    """The type of its keys."""
    keys: Node
    """The object."""


def named_in(told: Node) -> Iterator[Node]:
    """Yield the nodes of a type that stand for values elsewhere, not what is looked up in others.

    That is a type's name, `(typeof LIST)[number]`, `keyof typeof TABLE`, `z.infer<typeof SCHEMA>`.
    """
    waiting = [told]
    while waiting:
        node = waiting.pop(0)
        if node.type == "generic_type" and name_of(node) in _HOLDING:
            waiting += [each for each in node.named_children[1:] for each in entries_of(each)]
        elif node.type == "generic_type":
            if decoded(node.child_by_field_name("name")) in _INFERRED:
                yield node
        elif node.type in {"type_identifier", "index_type_query"}:
            yield node
        elif node.type == "lookup_type":
            if any(each.type == "type_query" for each in walk(node.named_children[0])):
                yield node
        else:
            waiting += node.named_children


def table_of(part: Part, declarator: Node) -> Iterator[Table]:
    """Yield the table that a variable is, by its type or what it satisfies."""
    value, told = (declarator.child_by_field_name(name) for name in ("value", "type"))
    if value is not None and value.type == "satisfies_expression":
        told = value.named_children[-1]
    elif told is not None:
        told = told.named_children[0]
    keys = without_type(value)
    if told is not None and keys is not None and name_of(told) == "Record":
        arguments = told.child_by_field_name("type_arguments")
        if arguments is not None and keys.type == "object":
            yield Table(part, name_of(declarator), declarator, entries_of(arguments)[0], keys)


def base_of(node: Node) -> Base | None:
    """Return what a name, or `Pick<…>`, `Omit<…>`, `Partial<…>` of one, adds; None if unclear."""
    if node.type in {"type_identifier", "identifier"}:
        return Base(decoded(node))
    arguments = node.child_by_field_name("type_arguments")
    told = entries_of(arguments) if arguments is not None else []
    if told and decoded(node.child_by_field_name("name")) in _INFERRED:
        return Base(decoded(told[0].named_children[0])) if told[0].type == "type_query" else None
    if node.type != "generic_type" or not told or told[0].type != "type_identifier":
        return None
    names = frozenset(text_of(each) for one in told[1:] for each in strings_in(one))
    kind, name = name_of(node), decoded(told[0])
    if kind in {"Partial", "Required", "Readonly"}:
        return Base(name)
    if kind == "Pick":
        return Base(name, only=names)
    return Base(name, without=names) if kind == "Omit" and names else None
