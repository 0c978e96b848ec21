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
    {"node_modules", "site-packages", "__pycache__", "venv"}
    | {"tests", "__tests__", "e2e", "migrations", "alembic"}
)
"""Folders of what others have written, and what production does not run."""
_MADE = frozenset({"dist", "build", "out", "coverage", "env", "test"})
"""Folders of what is made, or only run by hand, beside a project's own file: elsewhere of code."""
_PROJECT = frozenset(
    {"pyproject.toml", "setup.py", "setup.cfg", "package.json", "requirements.txt", ".git"}
)
_SUFFIXES = frozenset({".py", ".ts", ".tsx", ".vue", ".md", ".txt"})
_LINE_END = re.compile(rb"\r\n|\r|\n")
"""What ends a line for Python's parser: also a carriage return alone."""
_ADDRESS = re.compile(r"[a-z+]{2,}:/|[^/\s]+@[^/\s]+:")
"""How the address of a repository begins; of two slashes a path keeps one."""
_LARGEST = 1 << 20  # bytes: what is longer was not written by people
_MOST_FILES = 10_000
_MOST_FOLDERS = 30_000
_MOST_BYTES = 32 << 20  # parsing them takes a minute: what is larger is no checkout of one backend


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
    too_large: str = ""
    """Why nothing was read: of a part of it, one could not say what the rest has."""

    @classmethod
    def read(cls, root: Path) -> Checkout:
        """Read a checkout; raises `SettingsInvalid` where there is no such folder."""
        if not root.is_dir():
            raise SettingsInvalid(
                f"{root} is no folder",
                why="backend.repository, or --repository, names a checkout of the backend's code",
                todo="Clone it first, and name that folder." if _ADDRESS.match(str(root)) else "",
            )
        files, unread = list[SourceFile](), list[str]()
        size = 0
        try:
            for path in _walk(root, unread):
                if (file := _file(path, path.relative_to(root).as_posix(), unread)) is not None:
                    files.append(file)
                    size += len(file.content)
                    if len(files) > _MOST_FILES or size > _MOST_BYTES:
                        raise _TooLarge
        except _TooLarge:
            most = (
                f"{_MOST_FILES} files of code, {_MOST_BYTES >> 20} MiB or {_MOST_FOLDERS} folders"
            )
            return cls(
                root, (), (), f"{root} has more than {most}: name the backend's folder alone"
            )
        return cls(root, tuple(files), tuple(unread))

    def of(self, *suffixes: str) -> Iterator[SourceFile]:
        """Yield the files with one of these suffixes."""
        return (file for file in self.files if file.path.endswith(suffixes))


class _TooLarge(Exception):
    """There is more in a folder than one checkout has."""


def _file(path: Path, name: str, unread: list[str]) -> SourceFile | None:
    """Return a file; None, with the reason in `unread`, where it cannot be read or is too long."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
            unread.append(f"{name}: not a regular file")
            return None
        if found.st_size > _LARGEST:
            unread.append(f"{name}: longer than {_LARGEST >> 20} MiB")
            return None
        file = SourceFile(name, path.read_bytes())
        _ = file.text
    except OSError as error:
        unread.append(f"{name}: {error.strerror or error}")
    except UnicodeDecodeError:
        unread.append(f"{name}: not UTF-8")
    else:
        return file
    return None


def _walk(root: Path, unread: list[str]) -> Iterator[Path]:
    """Yield the files in order; raises `_TooLarge`.

    No link is followed, so nothing outside is read, and no folder of another file system, such as
    /proc. Without recursion, as `os.walk` has it in Python 3.11: folders may be nested deeply.
    """
    device, waiting = root.stat().st_dev, [root]
    for _ in range(_MOST_FOLDERS):
        if not waiting:
            return
        folder = waiting.pop()
        try:
            files, folders = _entries(folder, device, is_root=folder == root)
        except OSError as error:
            unread.append(f"{folder.relative_to(root).as_posix()}: {error.strerror or error}")
            continue
        yield from files
        waiting += reversed(folders)
    if waiting:
        raise _TooLarge


def _entries(folder: Path, device: int, *, is_root: bool) -> tuple[list[Path], list[Path]]:
    """Return the files of code in a folder, and the folders to look into, in order."""
    files, folders = list[Path](), list[Path]()
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    is_project = is_root or not _PROJECT.isdisjoint(entry.name for entry in entries)
    left_out = _LEFT_OUT | _MADE if is_project else _LEFT_OUT
    for entry in entries:
        if entry.is_symlink():
            continue
        if entry.is_dir():
            here = entry.stat().st_dev == device
            if here and entry.name not in left_out and not entry.name.startswith("."):
                folders.append(Path(entry.path))
        elif Path(entry.name).suffix in _SUFFIXES and not _is_test(entry.name):
            files.append(Path(entry.path))
    return files, folders


def _is_test(name: str) -> bool:
    stem = name.partition(".")[0]
    return stem.startswith("test_") or stem == "conftest" or ".spec." in name or ".test." in name
