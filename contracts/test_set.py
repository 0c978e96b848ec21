"""The frozen test set: which items are tested in every run, whatever else comes and goes.

One JSON file below the workspace for each task and name. The split stage only ever adds to it and
publishes it by rename; the driver looks whether a finished split still agrees with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from contracts import files
from contracts.errors import FileUnusable

FOLDER = "test_sets"
"""Below the workspace. No cache: what is lost here cannot be had again."""
_FORMAT = 1


@dataclass(frozen=True)
class TestSet:
    """Ids of items; one that is gone for now stays, so that it comes back as what it was."""

    __test__ = False  # pytest takes every Test* for a class of tests

    tested: frozenset[str] = frozenset()
    """In the test split for good."""
    seen: frozenset[str] = frozenset()
    """Offered to training once, in whatever split: a model may know them, so they are never
    chosen for the test set later."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what a file holds, an empty set where there is none.

        Raises `FileUnusable` for a damaged file: a new set in its place would test on what earlier
        models were trained on.
        """
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            if held["format"] != _FORMAT:
                raise ValueError(f"its format is {held['format']!r}, not {_FORMAT}")
            return cls(_ids(held["tested"]), _ids(held["seen"]))
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError) as error:
            raise FileUnusable(
                f"the frozen test set {path} cannot be read",
                why=f"{type(error).__name__}: {error}",
                todo="Restore the file, or start another set: split.test_set=NAME.",
            ) from error

    def write(self, path: Path) -> None:
        """Publish the set atomically; nothing is written where the file holds the same."""
        if self != self.read(path):
            held = {"format": _FORMAT, "tested": sorted(self.tested), "seen": sorted(self.seen)}
            files.write_json(path, held)

    def with_more(self, tested: Iterable[str], seen: Iterable[str]) -> TestSet:
        """Return the set with more items. What was tested once is never anything else."""
        whole = self.tested | frozenset(tested)
        return TestSet(whole, (self.seen | frozenset(seen)) - whole)


def path_of(workspace: Path, task: str, name: str) -> Path:
    """Return where the test set of that name lies."""
    return workspace / FOLDER / task / f"{name}.json"


def digest_of(workspace: Path, task: str, name: str) -> str:
    """Return the digest of a test set's file; "" where there is none, or no set is kept."""
    path = path_of(workspace, task, name)
    return files.digest_path(path) if name and path.exists() else ""


def _ids(values: list[str]) -> frozenset[str]:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise TypeError("ids are a list of texts")
    return frozenset(values)
