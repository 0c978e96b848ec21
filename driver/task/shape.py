"""What values an answer's fields take, read from the output model once for all that is rendered."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any

from pydantic import BaseModel

from contracts.errors import TaskInvalid
from tasks.answer_faults import file_of


class TaskUnrenderable(TaskInvalid):
    """The task's definition says something that cannot be written in another language."""


class Kind(StrEnum):
    """The kinds of value that every rendered language has a word for."""

    TEXT = "text"
    DATE = "date"
    CHOICE = "choice"
    NUMBER = "number"
    INTEGER = "integer"
    FLAG = "flag"
    LIST = "list"
    OBJECT = "object"


@dataclass(frozen=True)
class Choice:
    """One of the values of an enum, and what it stands for ("" where the task does not say)."""

    value: str
    meaning: str


@dataclass(frozen=True)
class Shape:
    """The values that a field, or an entry of a list, takes."""

    kind: Kind
    nullable: bool = False
    least: float | None = None
    """The least number; of a text its least characters, of a list its least entries."""
    most: float | None = None
    """The same upwards."""
    pattern: str = ""
    """A regular expression that a text matches as a whole or in part, as it says itself."""
    name: str = ""
    """The class of a choice or object; "" for a choice that has none."""
    about: str = ""
    """What that class says of itself."""
    choices: tuple[Choice, ...] = ()
    entry: Shape | None = None
    """Of a list."""
    fields: tuple[Field, ...] = ()
    """Of an object."""

    def limits(self) -> str:
        """Return the kind and the limits in words."""
        return f"{self._limits()}, or null" if self.nullable else self._limits()

    def _limits(self) -> str:
        if self.kind is Kind.CHOICE:
            return "one of " + ", ".join(choice.value for choice in self.choices)
        if self.kind is Kind.LIST and self.entry:
            return f"list, {self._range(' entries', 'any number')}, each {self.entry.limits()}"
        if self.kind is Kind.OBJECT:
            return f"object {self.name}"
        if self.kind is Kind.TEXT:
            matching = f", matching {self.pattern}" if self.pattern else ""
            return f"text, {self._range(' characters', 'of any length')}{matching}"
        if self.kind in {Kind.NUMBER, Kind.INTEGER}:
            return f"{self.kind.value}, {self._range('', 'of any size')}"
        return {Kind.FLAG: "true or false", Kind.DATE: "date, YYYY-MM-DD"}[self.kind]

    def _range(self, unit: str, unlimited: str) -> str:
        if self.least is not None and self.most is not None:
            return f"{figure(self.least)} to {figure(self.most)}{unit}"
        if self.most is not None:
            return f"up to {figure(self.most)}{unit}"
        return f"from {figure(self.least)}{unit}" if self.least is not None else unlimited

    def within(self) -> Iterator[Shape]:
        """Yield this shape and all that are inside of it, the outer ones first."""
        yield self
        if self.entry:
            yield from self.entry.within()
        for each in self.fields:
            yield from each.shape.within()


@dataclass(frozen=True)
class Field:
    """One field of an answer."""

    name: str
    title: str
    """What a page calls it."""
    meaning: str
    """What the task says of it; "" where it does not."""
    shape: Shape


def figure(bound: float) -> str:
    """Return a bound as every rendered language writes it, whole numbers without a point."""
    return str(int(bound)) if bound == int(bound) else repr(bound)


def fields_of(model: type[BaseModel]) -> tuple[Field, ...]:
    """Return the fields of an output model in their order.

    Raises `TaskUnrenderable` for a type that not all of the rendered languages have.
    """
    schema = model.model_json_schema()
    return _Reader(schema.get("$defs", {}), _enums(model)).fields(
        schema, f"{file_of(model)}: {model.__name__}"
    )


def named(fields: tuple[Field, ...], kind: Kind) -> dict[str, Shape]:
    """Return the choices, or the objects, that have a class of their own, by its name."""
    return {
        shape.name: replace(shape, nullable=False)
        for each in fields
        for shape in each.shape.within()
        if shape.kind is kind and shape.name
    }


@dataclass(frozen=True)
class _Reader:
    """Reads pydantic's JSON schema, in which each bound stands where it belongs."""

    definitions: dict[str, Any]
    enums: dict[str, type[Enum]]

    def fields(self, node: dict[str, Any], where: str) -> tuple[Field, ...]:
        return tuple(
            Field(
                name=name,
                title=child.get("title") or name.replace("_", " ").capitalize(),
                meaning=child.get("description", ""),
                shape=self.shape(child, f"{where}.{name}"),
            )
            for name, child in node.get("properties", {}).items()
        )

    def shape(self, node: dict[str, Any], where: str, name: str = "") -> Shape:
        if "$ref" in node:
            name = node["$ref"].removeprefix("#/$defs/")
            return self.shape(self.definitions[name], where, name)
        if "anyOf" in node:
            options = [option for option in node["anyOf"] if option != {"type": "null"}]
            if len(options) != 1:
                raise _unrenderable(where, "it may be of several types")
            return replace(self.shape(options[0], where), nullable=len(node["anyOf"]) > 1)
        if "enum" in node or "const" in node:
            return self._choice(node, where, name)
        if node.get("type") == "array" and "items" in node:
            entry = self.shape(node["items"], f"{where}[]")
            return Shape(Kind.LIST, least=node.get("minItems"), most=node["maxItems"], entry=entry)
        if node.get("type") == "object" and "properties" in node:
            about, fields = node.get("description", ""), self.fields(node, where)
            return Shape(Kind.OBJECT, name=name, about=about, fields=fields)
        return _plain(node, where)

    def _choice(self, node: dict[str, Any], where: str, name: str) -> Shape:
        values = node["enum"] if "enum" in node else [node["const"]]
        texts = [value for value in values if value is not None]
        if not texts or not all(isinstance(value, str) for value in texts):
            raise _unrenderable(where, "a value of an enum is no text")
        enum = self.enums.get(name)
        meanings = {each.value: getattr(each, "meaning", "") for each in enum or ()}
        return Shape(
            Kind.CHOICE,
            nullable=len(texts) < len(values),
            name=name,
            about=node.get("description", ""),
            choices=tuple(Choice(value, meanings.get(value, "")) for value in texts),
        )


def _plain(node: dict[str, Any], where: str) -> Shape:
    match node:
        case {"type": "string", "format": "date"}:
            return Shape(Kind.DATE)
        case {"type": "string", "format": other}:
            raise _unrenderable(where, f"a text of the format {other}")
        case {"type": "string"}:
            bounds = node.get("minLength"), node.get("maxLength")
            return Shape(Kind.TEXT, False, *bounds, pattern=node.get("pattern", ""))
        case {"type": ("number" | "integer") as word}:
            return Shape(Kind(word), False, node.get("minimum"), node.get("maximum"))
        case {"type": "boolean"}:
            return Shape(Kind.FLAG)
    raise _unrenderable(where, f"{node.get('type') or 'anything'} is no type with named parts")


def _unrenderable(where: str, why: str) -> TaskUnrenderable:
    return TaskUnrenderable(
        f"{where} has a type that cannot be rendered",
        why=why,
        todo="Give it a type that docs/reference/task.md lists.",
    )


def _enums(annotation: Any) -> dict[str, type[Enum]]:
    """Return the enum classes within an annotation, or within a model's fields, by name."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {annotation.__name__: annotation}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [field.annotation for field in annotation.model_fields.values()]
    else:
        inner = list(typing.get_args(annotation))
    return {name: enum for each in inner for name, enum in _enums(each).items()}
