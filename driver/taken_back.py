"""What was taken back: no run lets it go live again, under whatever name.

`rejected.json` names it by version, by the digest of the model, and by that of the GGUF that it was
made from. A model may have several versions: a deployment that was killed leaves one, and the next
makes another of the same file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from contracts import files
from contracts.errors import FileUnusable
from driver import records
from serving.engine import Model

_RECORD = records.REJECTED
"""Below the workspace."""
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
"""A JSON string; that of a version or a digest needs no escape."""


def reject(workspace: Path, *names: str) -> None:
    """Keep a version, or a model or a GGUF by digest, from going live again."""
    files.write_json(workspace / _RECORD, sorted({*rejected(workspace), *names}))


def reinstate(workspace: Path, *names: str) -> None:
    """Let what was taken back go live again."""
    if (workspace / _RECORD).exists():
        files.write_json(workspace / _RECORD, sorted({*rejected(workspace)} - {*names}))


def rejected(workspace: Path) -> list[str]:
    """Return what has been taken back; `FileUnusable` if damaged."""
    path = workspace / _RECORD
    try:
        found = json.loads(files.read_bytes(path))
    except FileNotFoundError:
        return []
    except (ValueError, RecursionError, IsADirectoryError, files.NoFile):
        found = None
    if not isinstance(found, list) or not all(isinstance(e, str) and e.isascii() for e in found):
        raise FileUnusable(
            f"{path} is damaged",
            why="it is no list of versions and digests",
            todo="Restore it, or remove it: what was taken back may then go live again.",
        )
    return found


def rescue(workspace: Path, say: Callable[[str], None]) -> None:
    """Where the record is damaged, keep it aside and go on with every name that it still shows.

    What it does not show any more may go live again, so that a person has to look; but no model is
    to stay live because of it. `say` is told.
    """
    path = workspace / _RECORD
    try:
        rejected(workspace)
    except FileUnusable:
        aside = records.keep(path)
        text = ""
        if path.is_dir():
            records.remove(path)
        elif path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
        names = {each for each in _TEXT.findall(text) if each.isascii() and "\\" not in each}
        shown = sorted(names - {""})
        files.write_json(path, shown)
        say(
            f"{path} is damaged; it is kept as {aside.name}. The {len(shown)} names that can still "
            "be read in it stay taken back"
        )


def digests(workspace: Path, models: Mapping[str, Model]) -> frozenset[str]:
    """Return the digests of those models that were taken back under one name or another.

    An alias is no name of its own: it may be another model by now.
    """
    names = {*rejected(workspace)}
    return frozenset(
        model.digest
        for tag, model in models.items()
        if model.digest in names or (tag in names and not tag.endswith(":latest"))
    )
