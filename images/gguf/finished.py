"""Which GGUF files are whole: they are published by rename, and outlive a kill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts import files
from images.weights.notes import Notes, state


class Finished:
    """The files noted in `path`, with their digests.

    `inputs` says what they were made from; another value, and all of them are made anew.
    """

    def __init__(self, path: Path, inputs: Mapping[str, Any]) -> None:
        self._folder, self._notes = path.parent, Notes(path, inputs)

    def digest(self, target: Path) -> str:
        """Return the SHA-256 of a file that is whole and unchanged, "" for any other."""
        note = self._notes.get(self._name(target))
        whole = note is not None and target.is_file() and note["state"] == state(target)
        return str(note["digest"]) if note and whole else ""

    def publish(self, partial: Path, target: Path) -> None:
        """Flush, digest, note and rename a file that has been written."""
        files.fsync_path(partial)
        note = {"state": state(partial), "digest": files.digest_path(partial)}
        self._notes.put(self._name(target), note)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
        files.fsync_path(target.parent)

    def _name(self, target: Path) -> str:
        return str(target.relative_to(self._folder))
