"""The teacher's answers, kept row by row: a labelling of hours goes on where it was stopped.

The label stage writes them, `driver labels` exports and imports them.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from contracts.files import canonical_json, digest_text
from contracts.label_definition import LabelDefinition
from contracts.sqlite_file import SqliteFile

CACHE_FILE = "cache/labels.sqlite"
"""Below the workspace."""
_ANYBODY = ""
"""In place of who is asked: a definition that labels of persons rest on."""
_AT_ONCE = 500
"""Keys in one query; SQLite allows 999 in its oldest configuration."""
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, attempts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, rules TEXT NOT NULL,
                                     verdicts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS imported (item TEXT PRIMARY KEY, answer TEXT NOT NULL,
                                     source TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS teachers (place TEXT PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS imports (number INTEGER PRIMARY KEY, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS definitions (prefix TEXT PRIMARY KEY, asker TEXT NOT NULL,
                                        definition TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS derived (key TEXT PRIMARY KEY, answer TEXT NOT NULL,
                                    origin TEXT NOT NULL);
"""
_IMPORT = """
INSERT INTO imports SELECT max(coalesce(max(number), 0) + 1, CAST(strftime('%s') AS INTEGER)),
                           datetime() FROM imports
"""
"""Numbers rise, also over a cache that was lost and begun anew."""


class Imported(NamedTuple):
    """An answer from elsewhere, not yet judged."""

    item: str
    """Digest of what the model is shown of the item."""
    answer: str
    source: str


class Derived(NamedTuple):
    """A row made of answers that were given to other questions."""

    key: str
    text: str
    """The whole answer."""
    origin: str
    """What it was made from, as JSON (`contracts.derived_labels.Base.origin`)."""


DEFINITION = ("prefix", "asker", "definition")
"""The keys of a row of `export` that says what answers were asked under."""
DERIVED = ("derived", "answer", "origin")
"""The keys of one that was made of answers."""
_ATTEMPT: dict[str, type | tuple[type, ...]] = {
    "seed": int,
    "text": str,
    "finished": bool,
    "reason": str,
    "prompt_tokens": int,
    "answer_tokens": int,
    "seconds": (int, float),
}
_TIMES = ("began_at", "ended_at")
"""Of an attempt too, in seconds since the epoch; not in the rows of earlier versions."""


def is_attempt(row: Mapping[str, Any]) -> bool:
    """Return whether a row is an attempt as the label stage keeps it."""
    return (
        isinstance(row, dict)
        and row.keys() - set(_TIMES) == _ATTEMPT.keys()
        and all(isinstance(row[name], kind) for name, kind in _ATTEMPT.items())
        and all(row.get(name) is None or isinstance(row[name], int | float) for name in _TIMES)
        and all(math.isfinite(v) for v in row.values() if isinstance(v, float))
    )


class LabelCache(SqliteFile):
    """Attempts by request key, what the rules said of them, and answers from elsewhere."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            _TABLES,
            name="label cache",
            todo="Free space, or move the file away; the rows in it are then asked again.",
        )

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

    def last_verdicts(self, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the verdicts on the attempts under each key, by whatever rules."""
        return dict(self._listed("SELECT key, verdicts FROM verdicts WHERE key IN", keys))

    # --- what they were asked under, and what was made of them -----------------------------------
    def put_definition(self, prefix: str, asker: str, definition: LabelDefinition) -> None:
        """Keep what answers whose keys begin with `prefix` were asked under, the newest last."""
        known = list(self.definitions(asker).items())
        if not known or known[-1] != (prefix, definition):
            query = "INSERT OR REPLACE INTO definitions VALUES (?, ?, ?)"
            self._write(query, [(prefix, asker, definition.model_dump_json())])

    def note_definition(self, definition: LabelDefinition) -> None:
        """Keep what labels rest on now, whoever gives them."""
        prefix = digest_text(canonical_json(definition.model_dump(mode="json")))
        self.put_definition(prefix, _ANYBODY, definition)

    def noted_definitions(self, task: str) -> list[LabelDefinition]:
        """Return all that labels of a task were noted to rest on, oldest first."""
        return [each for each in self.definitions(_ANYBODY).values() if each.task == task]

    def definitions(self, asker: str) -> dict[str, LabelDefinition]:
        """Return the definitions by prefix, oldest first; unreadable ones are left out."""
        query = "SELECT prefix, definition FROM definitions WHERE asker = ? ORDER BY rowid"
        with self._named_errors():
            rows = self._database.execute(query, (asker,)).fetchall()
        whole = [row for row in rows if _is_definition((row[0], asker, row[1]))]
        return {prefix: LabelDefinition.model_validate_json(text) for prefix, text in whole}

    def derived(self, keys: Sequence[str]) -> dict[str, Derived]:
        """Return derived rows by key; damaged ones are left out."""
        rows = self._rows("SELECT key, answer, origin FROM derived WHERE key IN", keys)
        return {row[0]: Derived(*row) for row in rows if _is_derived(row)}

    def put_derived(self, rows: Iterable[Derived]) -> None:
        """Keep derived rows, in place of earlier ones."""
        self._write("INSERT OR REPLACE INTO derived VALUES (?, ?, ?)", list(rows))

    # --- answers from elsewhere ------------------------------------------------------------------
    def imported(self, items: Sequence[str]) -> dict[str, Imported]:
        """Return imported answers by item digest; damaged ones are left out."""
        query = "SELECT item, answer, source FROM imported WHERE item IN"
        rows = self._rows(query, items)
        return {row[0]: Imported(*row) for row in rows if all(isinstance(v, str) for v in row)}

    def put_imported(self, rows: Iterable[Imported]) -> int:
        """Keep imported answers, in place of earlier ones for the same item, all or none.

        Returns how many of them are new here.
        """
        given = {row.item: row for row in rows}
        here = self.imported(list(given))
        new = [
            row for key, row in given.items() if key not in here or here[key].answer != row.answer
        ]
        with self._named_errors(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO imported VALUES (?, ?, ?)", new)
            if new:
                self._database.execute(_IMPORT)
        return len(new)

    # --- whose answers they are ------------------------------------------------------------------
    def teachers(self) -> dict[str, str]:
        """Return the digests of models that servers have told, by server and name."""
        with self._named_errors():
            rows = self._database.execute("SELECT place, digest FROM teachers").fetchall()
        return {row[0]: row[1] for row in rows if all(isinstance(value, str) for value in row)}

    def put_teachers(self, told: Mapping[str, str]) -> None:
        """Keep what servers have told."""
        self._write("INSERT OR REPLACE INTO teachers VALUES (?, ?)", list(told.items()))

    # --- as JSONL --------------------------------------------------------------------------------
    def export(self) -> Iterator[dict[str, Any]]:
        """Yield everything that cannot be had again, as rows that `put_exported` takes.

        Damaged rows are left out: `len` tells how many there are in all.
        """
        with self._named_errors():
            for key, text in self._database.execute(
                "SELECT key, attempts FROM answers ORDER BY key"
            ):
                attempts = _list(text)
                if isinstance(key, str) and attempts and all(map(is_attempt, attempts)):
                    yield {"key": key, "attempts": attempts}
            for row in self._database.execute("SELECT * FROM imported ORDER BY item"):
                if all(isinstance(value, str) for value in row):
                    yield Imported(*row)._asdict()
            query = "SELECT prefix, asker, definition FROM definitions ORDER BY rowid"
            for row in self._database.execute(query):
                if _is_definition(row):
                    yield dict(zip(DEFINITION, row, strict=True))
            for row in self._database.execute("SELECT * FROM derived ORDER BY key"):
                if _is_derived(row):
                    yield dict(zip(DERIVED, row, strict=True))

    def __len__(self) -> int:
        """Return how many rows cannot be had again."""
        with self._named_errors():
            tables = ("answers", "imported", "definitions", "derived")
            counts = " + ".join(f"(SELECT count(*) FROM {name})" for name in tables)  # noqa: S608
            return int(self._database.execute(f"SELECT {counts}").fetchone()[0])

    def put_exported(self, rows: Iterable[dict[str, Any]]) -> int:
        """Take rows of `export`, all or none, and return how many of them are new here.

        What is here stays, since it may have been judged and trained on; a row that goes on from
        there, with more attempts, takes its place. Raises `KeyError` or `TypeError` for a row that
        is none.
        """
        new = 0
        with self._named_errors(), self._database:
            for row in rows:
                if row.keys() == {*DEFINITION}:
                    self._take(row, DEFINITION, "definitions")
                elif row.keys() == {*DERIVED}:
                    self._take(row, DERIVED, "derived")
                else:
                    new += self._take_answer(row) if "key" in row else self._take_imported(row)
            if new:
                self._database.execute(_IMPORT)
        return new

    def _take_answer(self, row: Mapping[str, Any]) -> bool:
        key, attempts = str(row["key"]), list(row["attempts"])
        here = self.attempts([key]).get(key, [])
        if all(map(is_attempt, here)) and (
            len(here) >= len(attempts) or here != attempts[: len(here)]
        ):
            return False
        # Of as many attempts that could not be read there may be verdicts, which are not on these.
        self._database.execute("DELETE FROM verdicts WHERE key = ?", (key,))
        self._database.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, _json(attempts))
        )
        return True

    def _take(self, row: Mapping[str, Any], names: Sequence[str], table: str) -> None:
        """Take what is no answer, but what answers are understood by, where it is not here."""
        query = f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)"  # noqa: S608
        self._database.execute(query, [str(row[name]) for name in names])

    def _take_imported(self, row: Mapping[str, Any]) -> bool:
        given = (str(row["item"]), str(row["answer"]), str(row["source"]))
        done = self._database.execute("INSERT OR IGNORE INTO imported VALUES (?, ?, ?)", given)
        return done.rowcount > 0

    # --- SQLite ----------------------------------------------------------------------------------
    def _listed(
        self, query: str, keys: Sequence[str], *given: str
    ) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for key, text in self._rows(query, keys, *given):
            if (found := _list(text)) is not None:
                yield key, found

    def _rows(self, query: str, keys: Sequence[str], *given: str) -> Iterator[tuple[str, ...]]:
        """Run a query that ends with IN, for all keys, some hundred at a time."""
        rest = iter(keys)
        while some := list(islice(rest, _AT_ONCE)):
            marks = ",".join("?" * len(some))
            with self._named_errors():
                yield from self._database.execute(f"{query} ({marks})", (*given, *some)).fetchall()


def known_teachers(workspace: Path) -> dict[str, str]:
    """Return `LabelCache.teachers` of a workspace; nothing is made where it keeps no labels."""
    if not (workspace / CACHE_FILE).is_file():
        return {}
    with LabelCache(workspace / CACHE_FILE) as cache:
        return cache.teachers()


def imports_of(workspace: Path) -> int:
    """Return the number of the last import into a workspace that brought something new, or 0.

    Nothing is made or written, but that SQLite takes back a commit in which a process was killed:
    before it does, it lets nobody read. A cache that cannot be read counts as none here: who needs
    its rows names it.
    """
    path = (workspace / CACHE_FILE).absolute()
    if not path.is_file():
        return 0
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as database:
            found = database.execute("SELECT coalesce(max(number), 0) FROM imports")
            return int(found.fetchone()[0])
    except sqlite3.Error:
        return 0


def _is_definition(row: Sequence[Any]) -> bool:
    try:
        return all(isinstance(v, str) for v in row) and bool(
            LabelDefinition.model_validate_json(row[2])
        )
    except ValidationError:
        return False


def _is_derived(row: Sequence[Any]) -> bool:
    try:
        return all(isinstance(v, str) for v in row) and _is_origin(json.loads(row[2]))
    except (ValueError, RecursionError):
        return False


def _is_origin(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and isinstance(found.get("from"), str)
        and isinstance(found.get("attempt"), int)
        and isinstance(found.get("backfill", ""), str)
        and isinstance(found.get("words", {}), dict)
    )


def _list(text: Any) -> list[dict[str, Any]] | None:
    """Return the list that a text holds; None for anything else, which somebody has damaged."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
