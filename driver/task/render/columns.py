"""columns.py and migration.py: what a backend's table needs to hold the answers."""

from __future__ import annotations

from contracts.files import canonical_json, digest_text
from driver.task.render import api_schemas, python
from driver.task.render.python import literal
from driver.task.shape import Field, Kind, Shape
from driver.task.source import Source
from tasks import Column

_ROWS = '''


def to_row(answer: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the columns, and what the JSON object at ANALYSIS, get of an answer.

    `answer` is `model_dump(mode="json")` of a {answer}, whole.
    """
    columns = {{name: answer[name] for name in COLUMNS}}
    for name, word in NULL_WORDS.items():
        columns[name] = word if columns[name] is None else columns[name]
    for name in DATES:
        columns[name] = date.fromisoformat(columns[name]) if columns[name] else None
    return columns, {{name: answer[name] for name in ANALYSED}}


def from_row(columns: Mapping[str, Any], analysis: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer that `to_row` was given; nothing is made up for what is not there."""
    answer = {{name: columns[name] for name in COLUMNS if name in columns}}
    answer |= {{name: None for name, word in NULL_WORDS.items() if answer.get(name) == word}}
    answer |= {{name: answer[name].isoformat() for name in DATES if answer.get(name)}}
    answer |= {{name: analysis[name] for name in ANALYSED if name in analysis}}
    return {{name: answer[name] for name in FIELDS if name in answer}}
'''

_MIGRATION = '''
TABLE = {table}
MARK = {mark}
"""How the comment of a column ends that this migration has made."""


def _wanted() -> list[sa.Column[Any]]:
    return [
{columns}    ]


def upgrade() -> None:
    """Add the columns that are not there, and widen those too short for an answer.

    What is there already, and long enough, stays as it is.
    """
    there = {{each["name"]: each for each in sa.inspect(op.get_bind()).get_columns(TABLE)}}
    for column in _wanted():
        found = there.get(column.name)
        if found is None:
            op.add_column(TABLE, column)
        elif _is_shorter(found["type"], column.type):
            op.alter_column(TABLE, column.name, existing_type=found["type"], type_=column.type)


def downgrade() -> None:
    """Drop what `upgrade` has added. A widened column stays wide: narrowing could cut a text."""
    for found in sa.inspect(op.get_bind()).get_columns(TABLE):
        if (found.get("comment") or "").endswith(MARK):
            op.drop_column(TABLE, found["name"])


def _is_shorter(found: Any, wanted: Any) -> bool:
    """Return whether a text column holds less than it must; None stands for no limit."""
    if not isinstance(found, sa.String) or not isinstance(wanted, sa.String):
        return False
    return found.length is not None and (wanted.length is None or found.length < wanted.length)
'''


def sql(shape: Shape, column: Column) -> str:
    """Return the SQL type of a column, as SQLAlchemy's constructors are called."""
    if shape.kind in {Kind.TEXT, Kind.CHOICE}:
        return f"String({column.length})" if column.length is not None else "Text()"
    return {
        Kind.NUMBER: "Float()",
        Kind.INTEGER: "Integer()",
        Kind.FLAG: "Boolean()",
        Kind.DATE: "Date()",
    }.get(shape.kind, "JSON()")


def render(source: Source) -> str:
    """Return a mixin for the table's model, and how an answer becomes a row and back."""
    storage = source.storage
    types = {sql(field.shape, column) for field, column in source.columns}
    names = {
        "collections.abc": ["Mapping"],
        "datetime": ["date"],
        "typing": ["Any"],
        "sqlalchemy": [each.partition("(")[0] for each in types],
        "sqlalchemy.orm": ["Mapped", "mapped_column"] if types else [],
    }
    words = {field.name: column.null for field, column in source.columns if column.null is not None}
    dates = [field.name for field, _ in source.columns if field.shape.kind is Kind.DATE]
    shown_words = "".join(f"    {literal(k)}: {literal(v)},\n" for k, v in words.items())
    lines = [
        f"# {source.mark}",
        f'"""Where {source.answer} is kept. Needs SQLAlchemy 2 only."""',
        "",
        python.imports({module: each for module, each in names.items() if each}),
        "",
        f"TABLE = {literal(storage.table)}",
        f"ANALYSIS = {python.tuple_of(storage.analysis)}",
        '"""The way to the JSON object of the fields without a column: a column, then its keys."""',
        f"FIELDS = {python.tuple_of(field.name for field in source.fields)}",
        f"COLUMNS = {python.tuple_of(field.name for field, _ in source.columns)}",
        f"ANALYSED = {python.tuple_of(source.analysed)}",
        f"NULL_WORDS: dict[str, str] = {{{chr(10) + shown_words if words else ''}}}",
        '"""What stands in a column for null."""',
        f"DATES: tuple[str, ...] = {python.tuple_of(dates)}",
        "",
        "",
        f"class {source.answer}Columns:",
        f'    """Mixin for the model of {storage.table}; empty until an item is analysed."""',
        "",
        *(_mapped(field, column) for field, column in source.columns),
    ]
    return "\n".join(lines) + _ROWS.format(answer=source.answer)


def migration(source: Source) -> str:
    """Return the Alembic migration that gives an existing table, with its rows, the columns.

    Its revision follows from the columns alone, so another prompt makes no other migration.
    """
    columns = [(field.name, sql(field.shape, column)) for field, column in source.columns]
    identity = [source.task.name, source.storage.table, columns]
    revision = digest_text(canonical_json(identity))[:12]
    mark = f"[{source.task.name} {revision}]"
    wanted = [
        "        sa.Column(\n"
        f"            {literal(field.name)},\n"
        f"            sa.{sql(field.shape, column)},\n"
        "            nullable=True,\n"
        f"            comment={literal(' '.join(f'{field.title} {mark}'.split()))},\n"
        "        ),\n"
        for field, column in source.columns
    ]
    lines = [
        f"# {source.mark}",
        f'"""Columns for {source.answer}. Needs Alembic 1.7 or newer, and a database that keeps',
        'comments of columns, such as PostgreSQL."""',
        "",
        "from typing import Any",
        "",
        "import sqlalchemy as sa",
        "from alembic import op",
        "",
        f"revision = {literal(revision)}",
        f"down_revision: str | None = {literal(source.after) if source.after else None}",
        "branch_labels: str | None = None",
        "depends_on: str | None = None",
        "",
    ]
    filled = _MIGRATION.format(
        table=literal(source.storage.table), mark=literal(mark), columns="".join(wanted)
    )
    return "\n".join(lines) + filled


def _mapped(field: Field, column: Column) -> str:
    plain = api_schemas.annotation_without_null(field.shape, bounded=False)
    kept = {Kind.TEXT: "str", Kind.CHOICE: "str", Kind.DATE: "date", Kind.LIST: "list[Any]"}
    held = kept.get(field.shape.kind, "dict[str, Any]" if field.shape.fields else plain)
    return (
        f"    {field.name}: Mapped[{held} | None] = mapped_column(\n"
        f"        {sql(field.shape, column)},\n"
        "        nullable=True,\n"
        f"        comment={literal(field.title)},\n"
        "    )"
    )
