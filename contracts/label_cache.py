"""The teacher's answers, kept row by row: a labelling of hours goes on where it was stopped.

The label stage writes them, `driver labels` exports and imports them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from contracts import files
from contracts.errors import FileUnusable

CACHE_FILE = "cache/labels.sqlite"
"""Below the workspace."""
_AT_ONCE = 500
"""Keys in one query; SQLite allows 999 in its oldest configuration."""
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, attempts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, rules TEXT NOT NULL,
                                     verdicts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS imported (item TEXT PRIMARY KEY, answer TEXT NOT NULL,
                                     source TEXT NOT NULL);
"""


class Imported(NamedTuple):
    """An answer from elsewhere, not yet judged."""

    item: str
    """Digest of what the model is shown of the item."""
    answer: str
    source: str


_ATTEMPT: dict[str, type | tuple[type, ...]] = {
    "seed": int,
    "text": str,
    "finished": bool,
    "reason": str,
    "prompt_tokens": int,
    "answer_tokens": int,
    "seconds": (int, float),
}


def is_attempt(row: Mapping[str, Any]) -> bool:
    """Return whether a row is an attempt as the label stage keeps it."""
    return (
        isinstance(row, dict)
        and row.keys() == _ATTEMPT.keys()
        and all(isinstance(row[name], kind) for name, kind in _ATTEMPT.items())
    )


class LabelCache:
    """Attempts by request key, in one SQLite file; for one thread.

    A row is committed, and on the disk, before `put` returns, so a SIGKILL or a power cut loses the
    request in flight and nothing else. SQLite's default rollback journal does that with
    synchronous=EXTRA; with its default FULL a power cut can bring the journal of the last commit
    back, which undoes it (sqlite.org/pragma.html#pragma_synchronous). Its WAL mode would need
    shared memory between the host and containers, and a row takes seconds to come anyway.
    """

    def __init__(self, path: Path) -> None:
        files.make_folder(path.parent)
        self._path = path
        with self._named_errors():
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute("PRAGMA synchronous=EXTRA")
            self._database.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    # --- the teacher's answers -------------------------------------------------------------------
    def attempts(self, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the attempts under each key that has some; unreadable ones are left out."""
        return dict(self._listed("SELECT key, attempts FROM answers WHERE key IN", keys))

    def put(self, key: str, attempts: list[dict[str, Any]]) -> None:
        """Keep the attempts under a key, in place of earlier ones."""
        self._write("INSERT OR REPLACE INTO answers VALUES (?, ?)", [(key, _json(attempts))])

    # --- what the rules said of them -------------------------------------------------------------
    def verdicts(self, keys: Sequence[str], rules: str) -> dict[str, list[dict[str, Any]]]:
        """Return the verdicts on the attempts under each key, where they were judged by `rules`."""
        query = "SELECT key, verdicts FROM verdicts WHERE rules = ? AND key IN"
        return dict(self._listed(query, keys, rules))

    def put_verdicts(self, rules: str, rows: Iterable[tuple[str, list[dict[str, Any]]]]) -> None:
        """Keep verdicts by key; worth a commit for many, since they can be had again."""
        query = "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)"
        self._write(query, [(key, rules, _json(verdicts)) for key, verdicts in rows])

    # --- answers from elsewhere ------------------------------------------------------------------
    def imported(self, items: Sequence[str]) -> dict[str, Imported]:
        """Return imported answers by item digest."""
        query = "SELECT item, answer, source FROM imported WHERE item IN"
        return {row[0]: Imported(*row) for row in self._rows(query, items)}

    def put_imported(self, rows: Iterable[Imported]) -> None:
        """Keep imported answers, in place of earlier ones for the same item; all or none."""
        self._write("INSERT OR REPLACE INTO imported VALUES (?, ?, ?)", list(rows))

    # --- as JSONL --------------------------------------------------------------------------------
    def export(self) -> Iterator[dict[str, Any]]:
        """Yield everything that cannot be had again, as rows that `put_exported` takes."""
        with self._named_errors():
            for key, text in self._database.execute(
                "SELECT key, attempts FROM answers ORDER BY key"
            ):
                yield {"key": key, "attempts": json.loads(text)}
            for row in self._database.execute("SELECT * FROM imported ORDER BY item"):
                yield Imported(*row)._asdict()

    def put_exported(self, rows: Iterable[dict[str, Any]]) -> int:
        """Take rows of `export`, all or none, and return their number.

        What is here stays: an answer may have been judged and trained on. Raises `KeyError` or
        `TypeError` for a row that is none.
        """
        answers, imported = [], []
        for row in rows:
            if "key" in row:
                answers.append((str(row["key"]), _json(list(row["attempts"]))))
            else:
                imported.append((str(row["item"]), str(row["answer"]), str(row["source"])))
        with self._named_errors(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", answers)
            self._database.executemany("INSERT OR IGNORE INTO imported VALUES (?, ?, ?)", imported)
        return len(answers) + len(imported)

    # --- SQLite ----------------------------------------------------------------------------------
    def _listed(
        self, query: str, keys: Sequence[str], *given: str
    ) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for key, text in self._rows(query, keys, *given):
            try:
                found = json.loads(text)
            except ValueError:
                continue
            if isinstance(found, list):
                yield key, found

    def _rows(self, query: str, keys: Sequence[str], *given: str) -> Iterator[tuple[str, ...]]:
        """Run a query that ends with IN, for all keys, some hundred at a time."""
        rest = iter(keys)
        while some := list(islice(rest, _AT_ONCE)):
            marks = ",".join("?" * len(some))
            with self._named_errors():
                yield from self._database.execute(f"{query} ({marks})", (*given, *some)).fetchall()

    def _write(self, query: str, rows: Sequence[tuple[str, ...]]) -> None:
        with self._named_errors(), self._database:
            self._database.executemany(query, rows)

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


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
