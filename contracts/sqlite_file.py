"""A SQLite file that the stages and the driver write: what is told as written survives anything."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from contracts import files
from contracts.errors import DiskFull, FileUnusable
from contracts.os_errors import READ_ONLY

_LOCKED_S = 60
"""How long another process may hold the file, which it does for a commit or while it exports."""


class SqliteFile:
    """One SQLite file, made where there is none; for one thread.

    A write is committed, and on the disk, before it returns, so a SIGKILL or a power cut loses what
    was in flight and nothing else. SQLite's default rollback journal does that with
    synchronous=EXTRA; with its default FULL a power cut can bring the journal of the last commit
    back, which undoes it (sqlite.org/pragma.html#pragma_synchronous). Its WAL mode would need
    shared memory between the host and containers, and a row takes seconds to come anyway.
    """

    def __init__(self, path: Path, tables: str, *, name: str, todo: str) -> None:
        """Open the file and make its tables.

        `name` and `todo` are for people: what cannot be used, and what to do about it.
        """
        files.make_folder(path.parent)
        self._path, self._name, self._todo = path, name, todo
        with self._named_errors():
            self._database = sqlite3.connect(path, timeout=_LOCKED_S)
            self._database.text_factory = _text
            self._database.execute("PRAGMA synchronous=EXTRA")
            self._database.executescript(tables)
        files.leave_to_owner(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    def _write(self, query: str, rows: Sequence[tuple[str, ...]]) -> None:
        """Run a query for each row, all or none."""
        with self._named_errors(), self._database:
            self._database.executemany(query, rows)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise `FileUnusable` for whatever SQLite raises within, `DiskFull` of a full disk."""
        try:
            yield
        except sqlite3.Error as error:
            primary = getattr(error, "sqlite_errorcode", 0) & 0xFF  # (sqlite.org/rescode.html)
            if primary == sqlite3.SQLITE_FULL:
                raise DiskFull("the disk is full", why=f"{self._path}: {error}") from error
            raise FileUnusable(
                f"the {self._name} {self._path} cannot be used",
                why=str(error),
                todo=READ_ONLY if primary == sqlite3.SQLITE_READONLY else self._todo,
            ) from error


def _text(raw: bytes) -> str | bytes:
    """Return a text; as bytes where it is damaged, so that one row does not fail all others."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
