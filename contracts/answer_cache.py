"""Models' answers to the test split, kept row by row: who was asked once is not asked again.

The champion and the base model stay the same for many runs, and an evaluation that was killed goes
on where it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contracts.sqlite_file import SqliteFile

ANSWERS_FILE = "cache/answers.sqlite"
"""Below the workspace."""
_TABLES = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL);"


class AnswerCache(SqliteFile):
    """Answers by request key."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            _TABLES,
            name="cache of answers",
            todo="Free space, or move the file away; the models are then asked again.",
        )

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
        self._write("INSERT OR REPLACE INTO answers VALUES (?, ?)", [(key, text)])
