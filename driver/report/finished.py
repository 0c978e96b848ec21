"""What is known of a run that has ended, read from its folder and the store; what is missing is
left out, since the report on a run that failed is wanted as much as any."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contracts import files, stages
from contracts.errors import ItemsInvalid
from contracts.stage import Artifact, Job, Result, Stage
from driver.store import Run, RunState, StageState, Store

ENDED_WELL = ("done", "reused")


@dataclass(frozen=True)
class Finished:
    """A run as its files tell of it."""

    workspace: Path
    run: Run

    @cached_property
    def state(self) -> RunState:
        """What the run has noted; raises `RunUnreadable` for damaged notes."""
        return self.run.read_state()

    @cached_property
    def results(self) -> dict[str, Result]:
        """The results that the run has made or reused, by stage, as far as they are whole."""
        store, found = Store(self.workspace), {}
        for name, noted in self.state.stages.items():
            if noted.state in ENDED_WELL and (result := store.result(name, noted.fingerprint)):
                found[name] = result
        return found

    def noted(self, stage: Stage) -> StageState:
        """Return what the run has noted of a stage."""
        return self.state.stages.get(stage.name, StageState())

    def metrics(self, stage: Stage) -> dict[str, Any]:
        """Return the figures of a stage as this run has noted them, {} where it has no result.

        Where it has not, an older driver's run, those of the store.
        """
        noted = self.noted(stage)
        if noted.state in ENDED_WELL and _fits(stage, noted.metrics):
            return noted.metrics
        result = self.results.get(stage.name)
        return result.metrics if result else {}

    def job(self, stage: Stage) -> Job | None:
        """Return what a stage with a result was told."""
        if stage.name not in self.results:
            return None
        return Store(self.workspace).job(stage.name, self.noted(stage).fingerprint)

    def read(self, stage: Stage, artifact: Artifact) -> Any:
        """Return the content of a JSON artifact, None where it is not there or no JSON."""
        path = self._path(stage, artifact)
        try:
            return json.loads(files.read_bytes(path)) if path else None
        except (OSError, ValueError):
            return None

    def rows(self, stage: Stage, artifact: Artifact) -> list[dict[str, Any]]:
        """Return the rows of a JSON lines artifact, [] where it is not there or damaged."""
        path = self._path(stage, artifact)
        return _rows(path) if path else []

    def asked(self) -> dict[str, str]:
        """Return what the models were asked in the evaluation, by the id of the test row."""
        job = self.job(stages.EVALUATE)
        if job is None or stages.TEST_SPLIT.name not in job.inputs:
            return {}
        rows = _rows(self.workspace / job.inputs[stages.TEST_SPLIT.name].path)
        return {str(row["id"]): str(row["messages"][-2]["content"]) for row in rows}

    def _path(self, stage: Stage, artifact: Artifact) -> Path | None:
        result = self.results.get(stage.name)
        output = result.outputs.get(artifact.name) if result else None
        return self.workspace / output.path if output else None


def _fits(stage: Stage, metrics: dict[str, Any]) -> bool:
    try:
        stage.metrics.model_validate(metrics)
    except ValidationError:
        return False
    return bool(metrics)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return list(files.read_jsonl(path))
    except (OSError, ItemsInvalid):
        return []
