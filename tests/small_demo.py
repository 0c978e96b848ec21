"""The demo with a few rows: a model of its size learns them in a few steps."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from contracts import files

SAMPLE = files.ROOT / "examples/liga-sample"
_ROWS = 60


@dataclass(frozen=True)
class SmallDemo:
    """How `python -m driver` is called for it."""

    place: Path
    """Where items.jsonl and labels.jsonl lie."""
    workspace: Path
    settings: tuple[str, ...]

    @classmethod
    def make(cls, place: Path, base: Path, workspace: Path, *settings: str) -> SmallDemo:
        """Write its rows into a folder: short ones of one class, which is what is learned soon."""
        labels = {row["id"]: row for row in files.read_jsonl(SAMPLE / "labels.jsonl")}
        items = [
            row
            for row in files.read_jsonl(SAMPLE / "items.jsonl")
            if len(row["content"]) < 300 and not labels[row["id"]]["label"]["relevant"]
        ][:_ROWS]
        files.write_jsonl(place / "items.jsonl", items)
        files.write_jsonl(place / "labels.jsonl", [labels[row["id"]] for row in items])
        given = (
            f"snapshot.items=[{place / 'items.jsonl'}]",
            f"snapshot.reviewed=[{place / 'labels.jsonl'}]",
            f"fetch.path={base}",
        )
        return cls(place, workspace, (*given, *settings))

    def command(self, *words: str, settings: tuple[str, ...] = ()) -> list[str]:
        """Return the command line of a call, as a user types it."""
        called = [sys.executable, "-m", "driver", *words]
        called += ["-c", str(SAMPLE / "demo.yaml"), "-w", str(self.workspace)]
        return [*called, *(f"--set={each}" for each in (*self.settings, *settings))]
