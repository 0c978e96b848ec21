"""`driver task render`: the files go into one folder, each whole or not at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from contracts import files
from contracts.errors import FileUnusable
from driver.settings import Settings
from driver.task.render import render
from driver.task.source import MADE_BY, Source

RENDERED = "rendered"
"""The folder of the workspace that takes the files, by task, where no other is named."""


def render_all(settings: Settings, out: Path | None, after: str) -> int:
    """Write what is rendered of the settings' task, and say where; the command's exit code."""
    folder = out or settings.workspace / RENDERED / settings.task
    for path, changed in publish(Source.of(settings.task, after), folder):
        print(path if changed else f"{path} (as it was)")
    return 0


def publish(source: Source, folder: Path) -> list[tuple[Path, bool]]:
    """Write every rendered file into `folder`; return each with whether it has changed.

    Nothing else there is touched. Raises `FileUnusable` before anything is written where a file
    of such a name was not rendered. A kill leaves some files of before and some of now, each of
    them whole: doing it again ends it.
    """
    texts = render(source)
    files.make_folder(folder)
    with _held(folder):
        for name in texts:
            _require_rendered(folder / name)
        return list(_written(texts, folder))


def _written(texts: Mapping[str, str], folder: Path) -> Iterator[tuple[Path, bool]]:
    for name, text in texts.items():
        for unfinished in folder.glob(f".{name}.*{files.UNFINISHED}"):  # a kill's leftover
            unfinished.unlink()
        path = folder / name
        changed = not path.exists() or path.read_bytes() != text.encode()
        if changed:
            files.write_text(path, text)
        yield path, changed


def _require_rendered(path: Path) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as stream:  # in JSON the line is the second one
            head = stream.read(2 * len(MADE_BY) + 80)
        if MADE_BY.encode() in b"".join(head.splitlines(keepends=True)[:2]):
            return
    raise FileUnusable(
        f"{path} was not rendered from a task",
        why="it has no line that says so, and would be overwritten",
        todo="Move it away, or name another folder: --out DIR.",
    )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Let one render at a time into a folder; flock(2) ends with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
