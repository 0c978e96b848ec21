"""A checkout of the backend's repository: the files that may name a field, read once."""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from contracts.errors import SettingsInvalid

_LEFT_OUT = frozenset(
    {
        *("node_modules", "dist", "build", "out", "coverage", "site-packages", "__pycache__"),
        *("venv", "env", "tests", "test", "__tests__", "e2e", "migrations", "alembic"),
    }
)
"""Folders of what others have written, what is made, and what production does not run."""
_SUFFIXES = frozenset({".py", ".ts", ".tsx", ".vue", ".md", ".txt"})
_LINE_END = re.compile(rb"\r\n|\r|\n")
"""What ends a line for Python's parser: also a carriage return alone."""
_LARGEST = 1 << 20  # bytes: what is longer was not written by people
_MOST_FILES = 20_000


@dataclass(frozen=True)
class SourceFile:
    """One file; offsets are those of bytes, as both parsers count them."""

    path: str
    """Relative to the checkout, with slashes."""
    content: bytes

    @cached_property
    def text(self) -> str:
        """The content; raises `UnicodeDecodeError` where it is not UTF-8."""
        return self.content.decode("utf-8")

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(found.end() for found in _LINE_END.finditer(self.content))]

    def offset(self, line: int, column: int) -> int:
        """Return the offset of a line, counted from 1, and a column of bytes."""
        return self._starts[line - 1] + column

    def line_of(self, offset: int) -> int:
        """Return the line, counted from 1, that an offset stands in."""
        return bisect_right(self._starts, offset)

    def at(self, line: int) -> str:
        """Return how a place in it is named."""
        return f"{self.path}:{line}"

    @property
    def newline(self) -> str:
        """How its lines end."""
        return "\r\n" if b"\r\n" in self.content else "\n"

    def line_end(self, offset: int) -> int:
        """Return where the line of an offset ends, before its line break."""
        end = _LINE_END.search(self.content, offset)
        return end.start() if end else len(self.content)

    def indent(self, offset: int) -> str:
        """Return the white space that the line of an offset begins with."""
        start = self._starts[self.line_of(offset) - 1]
        line = self.content[start : self.line_end(start)]
        return line[: len(line) - len(line.lstrip())].decode()


@dataclass(frozen=True)
class Checkout:
    """All files of a checkout that are looked at."""

    root: Path
    files: tuple[SourceFile, ...]
    unread: tuple[str, ...] = ()
    """What was left out, and why."""

    @classmethod
    def read(cls, root: Path) -> Checkout:
        """Read a checkout; raises `SettingsInvalid` where there is no such folder."""
        if not root.is_dir():
            raise SettingsInvalid(
                f"{root} is no folder",
                why="backend.repository, or --repository, names a checkout of the backend's code",
            )
        files, unread = list[SourceFile](), list[str]()
        for path in _walk(root):
            name = path.relative_to(root).as_posix()
            if len(files) >= _MOST_FILES:
                unread.append(f"{root}: more than {_MOST_FILES} files; the rest was not read")
                break
            try:
                found = path.stat()
                if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
                    unread.append(f"{name}: not a regular file")
                    continue
                if found.st_size > _LARGEST:
                    unread.append(f"{name}: longer than {_LARGEST >> 20} MiB")
                    continue
                file = SourceFile(name, path.read_bytes())
                _ = file.text
            except OSError as error:
                unread.append(f"{name}: {error.strerror or error}")
            except UnicodeDecodeError:
                unread.append(f"{name}: not UTF-8")
            else:
                files.append(file)
        return cls(root, tuple(files), tuple(unread))

    def of(self, *suffixes: str) -> Iterator[SourceFile]:
        """Yield the files with one of these suffixes."""
        return (file for file in self.files if file.path.endswith(suffixes))


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files in order; a link is not followed, so nothing outside is read."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(n for n in inner if n not in _LEFT_OUT and not n.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix in _SUFFIXES and not _is_test(name) and not path.is_symlink():
                yield path


def _is_test(name: str) -> bool:
    stem = name.partition(".")[0]
    return stem.startswith("test_") or stem == "conftest" or ".spec." in name or ".test." in name
