"""What a stage has finished of its files, noted so that a kill costs no more than the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts import files

Note = dict[str, Any]


class Notes:
    """A note for each finished file, in the JSON file `path`.

    `inputs` says what they were made from; with another value nothing is finished.
    """

    def __init__(self, path: Path, inputs: Mapping[str, Any]) -> None:
        self._path, self._inputs = path, dict(inputs)
        self._notes: dict[str, Note] = {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if found.get("inputs") == self._inputs:
            self._notes = found["files"]

    def get(self, name: str) -> Note | None:
        """Return the note of a file; None for one that is not finished."""
        return self._notes.get(name)

    def put(self, name: str, note: Note) -> None:
        """Note a finished file, durably."""
        self._notes[name] = note
        files.write_json(self._path, {"inputs": self._inputs, "files": self._notes})


def state(path: Path) -> list[int]:
    """Return size and time of a file, by which one that was touched since is told."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
