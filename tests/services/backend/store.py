"""Items, sources and a few stored settings, in SQLite."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# The bound on `priority` is what lets one bad answer lose a whole batch.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS channels (
    id INTEGER PRIMARY KEY, source TEXT UNIQUE, source_id INTEGER, connector_type TEXT);
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY, title TEXT, content TEXT, url TEXT, published_at TEXT,
    channel_id INTEGER, summary TEXT, detailed_analysis TEXT,
    priority TEXT CHECK (length(priority) <= 20), assigned_aks TEXT DEFAULT '[]',
    is_archived INTEGER DEFAULT 0, is_manually_reviewed INTEGER DEFAULT 0,
    metadata TEXT DEFAULT '{}', updated_at TEXT);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT);
"""
_JSON = ("assigned_aks", "metadata")
_FLAGS = ("is_archived", "is_manually_reviewed")
_SEEDED = ("title", "content", "url", "published_at", "summary", "detailed_analysis")
_ANALYSED = ("argumentationskette", "relevant", "relevance_score", "tags", "reasoning")


def now() -> str:
    """Return the time as the rows hold it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Store:
    """The database in one file. Each transaction has a connection of its own."""

    def __init__(self, path: Path, seed: Path | None) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")  # readers see the last commit meanwhile
        connection.executescript(_SCHEMA)
        connection.close()
        if seed and not self.count():
            self._seed(seed)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit at the end, or nothing at all."""
        # An hour: a writer waits for a bulk run as it would wait for a locked row.
        connection = sqlite3.connect(self._path, timeout=3600)
        connection.row_factory = sqlite3.Row
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def count(self) -> int:
        """Return how many items there are."""
        with self.transaction() as connection:
            return int(connection.execute("SELECT count(*) FROM items").fetchone()[0])

    def item(self, item_id: int) -> Row | None:
        """Return one item, or None."""
        found = self.items("id = ?", item_id)
        return found[0] if found else None

    def items(self, where: str = "1", *values: Any) -> list[Row]:
        """Return the items that match, newest first, with the connector and source joined."""
        # `where` is written in listing.py, never taken from a request.
        query = (
            "SELECT * FROM (SELECT items.*, source, source_id, connector_type "  # noqa: S608
            f"FROM items LEFT JOIN channels ON channels.id = channel_id) WHERE {where} "
            "ORDER BY published_at DESC, id DESC"
        )
        with self.transaction() as connection:
            return [_decoded(row) for row in connection.execute(query, values)]

    def sources(self) -> list[Row]:
        """Return the channels with the names of their sources."""
        with self.transaction() as connection:
            return [dict(row) for row in connection.execute("SELECT * FROM channels ORDER BY id")]

    def setting(self, name: str) -> str | None:
        """Return a stored setting."""
        with self.transaction() as connection:
            row = connection.execute(
                "SELECT value FROM settings WHERE name = ?", (name,)
            ).fetchone()
        return str(row[0]) if row else None

    def set(self, name: str, value: str) -> None:
        """Store a setting."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def _seed(self, path: Path) -> None:
        with self.transaction() as connection, path.open(encoding="utf-8") as lines:
            for line in lines:
                _insert(connection, json.loads(line))


def write(connection: sqlite3.Connection, item_id: int, values: Row) -> None:
    """Store the given columns of an item, whatever their types."""
    values = {**values, "updated_at": now()}
    assigned = ", ".join(f"{name} = ?" for name in values)
    encoded = [json.dumps(v) if name in _JSON else v for name, v in values.items()]
    connection.execute(f"UPDATE items SET {assigned} WHERE id = ?", (*encoded, item_id))  # noqa: S608


def _insert(connection: sqlite3.Connection, row: Row) -> None:
    """Insert a seed row; an id that is a whole number is kept, another is numbered anew."""
    source = row.get("source") or "Unbekannt"
    kind = row.get("connector_type", "rss")
    connection.execute(
        "INSERT OR IGNORE INTO channels (source, source_id, connector_type) VALUES (?, ?, ?)",
        (source, 1000 + connection.execute("SELECT count(*) FROM channels").fetchone()[0], kind),
    )
    (channel,) = connection.execute(
        "SELECT id FROM channels WHERE source = ?", (source,)
    ).fetchone()
    given = row.get("id")
    keep = str(given) if given is not None else ""
    metadata: Row = {"external_id": given}
    if "reasoning" in row:
        metadata["llm_analysis"] = {name: row.get(name) for name in _ANALYSED}
    values: Row = {name: row.get(name) for name in _SEEDED}
    values |= {name: int(bool(row.get(name))) for name in _FLAGS}
    values |= {
        "id": int(keep) if keep.isdecimal() else None,
        "channel_id": channel,
        # What nobody has looked at yet has a priority too: not every priority is a label.
        "priority": (row["priority"] or "none") if "priority" in row else "low",
        "assigned_aks": json.dumps(row.get("assigned_aks", [])),
        "metadata": json.dumps(metadata),
        "updated_at": now(),
    }
    marks = ", ".join("?" for _ in values)
    names = ", ".join(values)
    connection.execute(f"INSERT INTO items ({names}) VALUES ({marks})", tuple(values.values()))  # noqa: S608


def _decoded(row: sqlite3.Row) -> Row:
    item: Row = {**dict(row), **{name: json.loads(row[name]) for name in _JSON}}
    return {**item, **{name: bool(item[name]) for name in _FLAGS}}
