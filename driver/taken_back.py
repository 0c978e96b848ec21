"""What was taken back: no run lets it go live again, under whatever name.

`rejected.json` names it by version, by the digest of the model, and by that of the GGUF that it was
made from. A model may have several versions: a deployment that was killed leaves one, and the next
makes another of the same file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from contracts import files
from contracts.errors import FileUnusable
from serving.engine import Model

_RECORD = "rejected.json"
"""Below the workspace."""


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
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise FileUnusable(
            f"{path} is damaged",
            why="it is no list of digests",
            todo="Restore it, or remove it: what was taken back may then go live again.",
        )
    return [str(each) for each in found]


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
