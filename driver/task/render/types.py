"""types.ts: the answer for pages, as TypeScript types, and the words that pages show."""

from __future__ import annotations

from collections.abc import Iterable

from driver.task.render.python import literal
from driver.task.shape import Field, Kind, Shape
from driver.task.source import Source


def render(source: Source) -> str:
    """Return a module without imports: the types, and titles and meanings as constants."""
    parts = [
        f"// {source.mark}",
        *(_choice(name, shape) for name, shape in source.choices.items()),
        *(_interface(name, shape.about, shape.fields) for name, shape in source.objects.items()),
        _interface(source.answer, source.about, source.fields),
        _constant(
            "titles",
            f"What a page calls each field of {source.answer}.",
            f"keyof {source.answer}",
            ((field.name, field.title) for field in source.fields),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def typed(shape: Shape) -> str:
    """Return the TypeScript type of a shape."""
    return f"{_typed(shape)} | null" if shape.nullable else _typed(shape)


def meanings(name: str) -> str:
    """Return the name of the constant that says what the values of an enum stand for."""
    return f"{name[0].lower()}{name[1:]}Meanings"


def _typed(shape: Shape) -> str:
    if shape.kind is Kind.CHOICE:
        return shape.name or " | ".join(literal(choice.value) for choice in shape.choices)
    if shape.kind is Kind.OBJECT:
        return shape.name
    if shape.kind is Kind.LIST and shape.entry:
        inner = typed(shape.entry)
        return f"({inner})[]" if " " in inner else f"{inner}[]"
    numbers = {Kind.NUMBER: "number", Kind.INTEGER: "number", Kind.FLAG: "boolean"}
    return numbers.get(shape.kind, "string")


def _choice(name: str, shape: Shape) -> str:
    values = " | ".join(literal(choice.value) for choice in shape.choices)
    said = ((choice.value, choice.meaning or choice.value) for choice in shape.choices)
    constant = _constant(meanings(name), f"What each {name} stands for.", name, said)
    return f"{_comment(shape.about)}export type {name} = {values};\n\n{constant}"


def _interface(name: str, about: str, fields: Iterable[Field]) -> str:
    lines = [
        f"{_comment(f'{field.title}: {field.shape.limits()}. {field.meaning}', '  ')}"
        f"  {field.name}: {typed(field.shape)};"
        for field in fields
    ]
    return f"{_comment(about)}export interface {name} {{\n" + "\n".join(lines) + "\n}"


def _constant(name: str, about: str, key: str, values: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"  {literal(each)}: {literal(word)},\n" for each, word in values)
    head = f"export const {name}: Readonly<Record<{key}, string>>"
    return f"{_comment(about)}{head} = {{\n{lines}}};"


def _comment(text: str, indent: str = "") -> str:
    said = " ".join(text.split()).replace("*/", "* /")
    return f"{indent}/** {said} */\n" if said else ""
