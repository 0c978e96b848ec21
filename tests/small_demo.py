"""The demo with a few rows: a model of its size learns them in a few steps."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import files
from tasks import load_task
from tests.samples import sample_of

FIRST = "liga_relevance"
SAMPLE = sample_of(FIRST)
Row = dict[str, Any]
_ROWS = 60
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class SmallDemo:
    """How `python -m driver` is called for it."""

    place: Path
    """Where items.jsonl and labels.jsonl lie."""
    workspace: Path
    config: Path
    settings: tuple[str, ...]

    @classmethod
    def make(
        cls, place: Path, base: Path, workspace: Path, *settings: str, task: str = FIRST
    ) -> SmallDemo:
        """Write its rows into a folder: short ones of one class, which is what is learned soon."""
        sample = sample_of(task)
        items, labels = _short_ones_of_one_class(task, sample)
        files.write_jsonl(place / "items.jsonl", items)
        files.write_jsonl(place / "labels.jsonl", labels)
        given = (
            f"snapshot.items=[{place / 'items.jsonl'}]",
            f"snapshot.reviewed=[{place / 'labels.jsonl'}]",
            f"fetch.path={base}",
        )
        return cls(place, workspace, sample / "demo.yaml", (*given, *settings))

    def command(self, *words: str, settings: tuple[str, ...] = ()) -> list[str]:
        """Return the command line of a call, as a user types it."""
        called = [sys.executable, "-m", "driver", *words]
        called += ["-c", str(self.config), "-w", str(self.workspace)]
        return [*called, *(f"--set={each}" for each in (*self.settings, *settings))]


def _short_ones_of_one_class(name: str, sample: Path) -> tuple[list[Row], list[Row]]:
    """Return items of a sample, and their labels in the same order."""
    task = load_task(name)
    labels = {row["id"]: row for row in files.read_jsonl(sample / "labels.jsonl")}
    strata = {i: task.stratum(task.parse(json.dumps(r["label"]))) for i, r in labels.items()}
    ((frequent, _),) = Counter(strata.values()).most_common(1)
    items = [
        row
        for row in files.read_jsonl(sample / "items.jsonl")
        if strata[row["id"]] == frequent
        and len(task.text_of(task.item.model_validate(row))) < _MOST_CHARACTERS
    ][:_ROWS]
    return items, [labels[row["id"]] for row in items]
