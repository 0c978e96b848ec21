"""The teacher's answers, kept row by row: a labelling of hours goes on where it was stopped."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contracts.errors import FileUnusable


class AnswerCache:
    """Attempts by request key, in one SQLite file; for one thread.

    A row is committed, and on the disk, before `put` returns, so a SIGKILL loses the request in
    flight and nothing else. SQLite's default rollback journal does that; its WAL mode would need
    shared memory between the host and containers, and a row takes seconds to come anyway.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._named_errors():
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS attempts (key TEXT PRIMARY KEY, attempts TEXT NOT NULL)"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    def get(self, key: str) -> list[dict[str, Any]] | None:
        """Return the attempts under a key; None if there are none, or they are unreadable."""
        query = "SELECT attempts FROM attempts WHERE key = ?"
        with self._named_errors():
            row = self._database.execute(query, (key,)).fetchone()
        try:
            found = json.loads(row[0]) if row else None
        except ValueError:
            return None
        return found if isinstance(found, list) else None

    def put(self, key: str, attempts: list[dict[str, Any]]) -> None:
        """Keep the attempts under a key, in place of earlier ones."""
        with self._named_errors(), self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO attempts VALUES (?, ?)",
                (key, json.dumps(attempts, ensure_ascii=False)),
            )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise FileUnusable(
                f"the label cache {self._path} cannot be used",
                why=str(error),
                todo="Free space, or move the file away; the rows in it are then asked again.",
            ) from error
