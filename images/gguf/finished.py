"""Which GGUF files are whole: they are published by rename, and outlive a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts import files


class Finished:
    """The files noted in `path`, with their digests.

    `inputs` says what they were made from; another value, and all of them are made anew.
    """

    def __init__(self, path: Path, inputs: Mapping[str, Any]) -> None:
        self._path, self._inputs = path, dict(inputs)
        self._notes: dict[str, dict[str, Any]] = {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if found.get("inputs") == self._inputs:
            self._notes = found["files"]

    def digest(self, target: Path) -> str:
        """Return the SHA-256 of a file that is whole and unchanged, "" for any other."""
        note = self._notes.get(str(target.relative_to(self._path.parent)))
        whole = note is not None and target.is_file() and note["state"] == _state(target)
        return str(note["digest"]) if note and whole else ""

    def publish(self, partial: Path, target: Path) -> None:
        """Flush, digest, note and rename a file that has been written."""
        files.fsync_path(partial)
        self._notes[str(target.relative_to(self._path.parent))] = {
            "state": _state(partial),
            "digest": files.digest_path(partial),
        }
        files.write_json(self._path, {"inputs": self._inputs, "files": self._notes})
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
        files.fsync_path(target.parent)


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
