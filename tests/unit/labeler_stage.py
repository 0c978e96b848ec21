"""Run a labeler stage's work on files in a folder, and items and labels to run it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.entrypoint import StageContext
from contracts.stage import Event, InputRef, Metrics, Params, Stage
from contracts.stages import REFERENCE
from tests.jobs import job_of
from tests.unit.references import write_empty


def label(priority: str | None, **changed: Any) -> dict[str, Any]:
    """Return a label that is valid and breaks no rule for a short text; None: irrelevant."""
    relevant = priority is not None
    fields = {
        "summary": "Das Land kürzt die Mittel der Beratung." if relevant else None,
        "detailed_analysis": "Die Mittel der Beratung enden im Herbst." if relevant else None,
        "argumentationskette": ["Beratung spart Folgekosten.", "Die Stellen sind überlastet."]
        if relevant
        else [],
        "relevant": relevant,
        "relevance_score": 0.9 if relevant else 0.1,
        "priority": priority,
        "assigned_aks": ["AK1"] if relevant else [],
        "tags": ["Haushalt"],
        "reasoning": "Die Kürzung trifft die Verbände." if relevant else "Kein sozialer Bezug.",
    }
    return {**fields, **changed}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


class StageRun:
    """A stage in a folder that is its workspace; inputs are files named as the artifacts are."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.folder = folder
        self.events: list[Event] = []
        self.out = folder / "work" / "out"
        folder.mkdir(parents=True, exist_ok=True)
        if REFERENCE in stage.inputs:
            write_empty(folder / REFERENCE.filename)

    def run(
        self,
        work: Callable[[StageContext[Any]], Metrics],
        digests: dict[str, str] | None = None,
        **params: Any,
    ) -> Any:
        """Run the work on params; return its metrics."""
        inputs = {
            artifact.name: InputRef(
                path=artifact.filename, digest=(digests or {}).get(artifact.name, ""), bytes=0
            )
            for artifact in self.stage.inputs
        }
        given: Params = self.stage.params(**params)
        job = job_of(self.stage, inputs=inputs)
        context = StageContext(self.stage, job, given, self.folder, self.folder, self.events.append)
        self.out.mkdir(parents=True, exist_ok=True)
        return work(context)
