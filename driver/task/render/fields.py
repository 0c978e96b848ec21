"""fields.md: the reference of the fields, for those who build a backend or a page."""

from __future__ import annotations

from driver.task.render import columns, types
from driver.task.render.tables import cell, choices, table
from driver.task.shape import Field, Kind
from driver.task.source import Source

_JSON = {
    Kind.TEXT: "string",
    Kind.DATE: "string",
    Kind.CHOICE: "string",
    Kind.NUMBER: "number",
    Kind.INTEGER: "number, whole",
    Kind.FLAG: "boolean",
    Kind.LIST: "array",
    Kind.OBJECT: "object",
}


def render(source: Source) -> str:
    """Return one section for each field: its values, its meaning, and where it is kept."""
    parts = [
        f"<!-- {source.mark} -->",
        f"# Fields of {source.answer}",
        cell(source.about),
        "An answer is one JSON object with exactly these fields, in this order.",
        *(_field(source, each) for each in source.fields),
        *choices(source),
        *_objects(source),
        "## As a whole",
        "\n".join(f"- {each}" for each in source.as_a_whole) or "Nothing more is asked.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _field(source: Source, field: Field) -> str:
    rows = [
        ("values", field.shape.limits()),
        ("JSON", _JSON[field.shape.kind] + (" or null" if field.shape.nullable else "")),
        ("TypeScript", f"`{types.typed(field.shape)}`"),
        ("kept in", _place(source, field)),
    ]
    said = [f"## `{field.name}`: {field.title}", cell(field.meaning), table(("", ""), rows)]
    return "\n\n".join(part for part in said if part)


def _place(source: Source, field: Field) -> str:
    if source.task.storage is None:
        return "no backend"
    column = source.storage.columns.get(field.name)
    if column is None:
        return f"`{'.'.join((*source.storage.analysis, field.name))}`, JSON"
    said = [f"column `{source.storage.table}.{field.name}`, {columns.sql(field.shape, column)}"]
    if column.null is not None:
        said.append(f'"{column.null}" stands for null')
    if column.edited:
        said.append("people can change it")
    if column.left_over:
        said.append("an earlier value stays where a new answer has none")
    return "; ".join(said)


def _objects(source: Source) -> list[str]:
    parts = []
    for name, shape in source.objects.items():
        inner = [(f"`{each.name}`", each.shape.limits(), each.meaning) for each in shape.fields]
        heads = ("field", "values", "meaning")
        parts += [f"## {name}", cell(shape.about), table(heads, inner)]
    return parts
