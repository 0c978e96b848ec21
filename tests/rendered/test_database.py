"""columns.py and migration.py on a real PostgreSQL, from a table that has rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import JSON
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from contracts.files import ROOT, read_jsonl
from driver.task.render import columns
from driver.task.source import Source
from tests.rendered.kinds import KINDS
from tests.rendered.loaded import taken

_ENV = """
from alembic import context
from sqlalchemy import create_engine

with create_engine(context.config.get_main_option("sqlalchemy.url")).begin() as connection:
    context.configure(connection=connection)
    context.run_migrations()
"""
_FIRST = """
revision = "first"
down_revision = None

def upgrade(): pass

def downgrade(): pass
"""


@pytest.fixture
def database(postgres: str) -> Iterator[sa.Engine]:
    """Yield an empty schema of the server."""
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    yield engine
    engine.dispose()


def _alembic(folder: Path, url: str, migration: str) -> Config:
    versions = folder / "versions"
    versions.mkdir(parents=True)
    (folder / "env.py").write_text(_ENV, encoding="utf-8")
    (versions / "first.py").write_text(_FIRST, encoding="utf-8")
    (versions / "task.py").write_text(migration, encoding="utf-8")
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def _columns(engine: sa.Engine, table: str) -> dict[str, str]:
    return {each["name"]: str(each["type"]) for each in sa.inspect(engine).get_columns(table)}


def _run(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_up_and_down_from_a_table_with_rows(
    database: sa.Engine, postgres: str, tmp_path: Path
) -> None:
    _run(
        database,
        "CREATE TABLE items (id serial PRIMARY KEY, title text, summary varchar(200), "
        "priority varchar(4), metadata jsonb)",
        "INSERT INTO items (title, summary, priority) VALUES ('A', 'Kept.', 'high')",
        "INSERT INTO items (title, summary) VALUES ('B', '')",
    )
    before = _columns(database, "items")
    migration = migration_after("first")
    config = _alembic(tmp_path / "alembic", postgres, migration)
    command.upgrade(config, "head")
    made = {"detailed_analysis": "TEXT", "assigned_aks": "JSON"}
    widened = {"summary": "TEXT", "priority": "VARCHAR(20)"}
    assert _columns(database, "items") == before | widened | made
    with database.connect() as connection:
        rows = connection.execute(sa.text("SELECT title, summary, priority FROM items ORDER BY id"))
        assert [tuple(row) for row in rows] == [("A", "Kept.", "high"), ("B", "", None)]
    command.downgrade(config, "first")
    assert _columns(database, "items") == before | widened
    command.upgrade(config, "head")
    command.upgrade(config, "head")
    assert _columns(database, "items") == before | widened | made


def test_nothing_is_dropped_that_was_there(
    database: sa.Engine, postgres: str, tmp_path: Path
) -> None:
    _run(
        database,
        "CREATE TABLE items (id serial PRIMARY KEY, summary text, detailed_analysis text, "
        "priority varchar(30), assigned_aks jsonb)",
    )
    before = _columns(database, "items")
    config = _alembic(tmp_path / "alembic", postgres, migration_after("first"))
    command.upgrade(config, "head")
    assert _columns(database, "items") == before
    command.downgrade(config, "first")
    assert _columns(database, "items") == before


def migration_after(revision: str) -> str:
    return columns.migration(Source.of("liga_relevance", revision))


def test_rows_give_back_the_answers(
    database: sa.Engine, postgres: str, rendered: Path, rendered_kinds: Path, tmp_path: Path
) -> None:
    """For both tasks, with a table of the mixin's making, and one of the migration's."""
    labels = [row["label"] for row in read_jsonl(ROOT / "examples/liga-sample/labels.jsonl")]
    answers = [next(a for a in labels if a["relevant"]), labels[0]]
    _round_trip(database, taken(rendered, "columns"), "LigaRelevanceColumns", answers)
    empty = KINDS | {"deadline": None, "mood": None, "main": None, "parts": []}
    kinds = taken(rendered_kinds, "columns")
    _run(database, "CREATE TABLE messages (id serial PRIMARY KEY, extra jsonb)")
    migration = (rendered_kinds / "migration.py").read_text(encoding="utf-8")
    command.upgrade(_alembic(tmp_path / "alembic", postgres, migration), "heads")
    _round_trip(database, kinds, "KindsColumns", [KINDS, empty])


def _round_trip(
    engine: sa.Engine, rendered: ModuleType, mixin: str, answers: list[dict[str, Any]]
) -> None:
    class Base(DeclarativeBase):
        pass

    class Row(getattr(rendered, mixin), Base):  # type: ignore[misc]
        __tablename__ = rendered.TABLE
        id: Mapped[int] = mapped_column(primary_key=True)
        extra: Mapped[dict[str, Any]] = mapped_column(rendered.ANALYSIS[0], JSON)

    Base.metadata.create_all(engine)  # makes only what is not there
    with Session(engine) as session:
        for answer in answers:
            kept, analysis = rendered.to_row(answer)
            session.add(Row(**kept, extra={rendered.ANALYSIS[1]: analysis}))
        session.commit()
    with Session(engine) as session:
        rows = session.scalars(sa.select(Row).order_by(Row.id)).all()
        found = [
            rendered.from_row(
                {name: getattr(row, name) for name in rendered.COLUMNS},
                row.extra[rendered.ANALYSIS[1]],
            )
            for row in rows
        ]
    assert found == answers
