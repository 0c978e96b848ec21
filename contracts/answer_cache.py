"""Models' answers to the test split, kept row by row: who was asked once is not asked again.

The champion and the base model stay the same for many runs, and an evaluation that was killed goes
on where it was stopped.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contracts.errors import FileUnusable

ANSWERS_FILE = "cache/answers.sqlite"
"""Below the workspace."""


class AnswerCache:
    """Answers by request key, in one SQLite file; for one thread. `put` returns when it is kept."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._named_errors():
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute("PRAGMA synchronous=EXTRA")  # as in contracts/label_cache.py
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
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

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer under a key; None where there is none, or it cannot be read."""
        with self._named_errors():
            row = self._database.execute(
                "SELECT answer FROM answers WHERE key = ?", (key,)
            ).fetchone()
        try:
            found = json.loads(row[0]) if row else None
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer under a key."""
        text = json.dumps(answer, ensure_ascii=False)
        with self._named_errors(), self._database:
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise FileUnusable(
                f"the cache of answers {self._path} cannot be used",
                why=str(error),
                todo="Free space, or move the file away; the models are then asked again.",
            ) from error
