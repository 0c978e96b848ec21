"""Jobs as the driver writes them, for what takes one without a driver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts import files
from contracts.stage import InputRef, Job, Params, Stage


def job_of(
    stage: Stage,
    params: Params | Mapping[str, Any] | None = None,
    inputs: Mapping[str, InputRef] | None = None,
    *,
    run: str = "r",
    fingerprint: str = "f",
    code_digest: str = "",
    task: str = "liga_relevance",
    task_digest: str = "",
) -> Job:
    """Return a job of the stage; what is not given is empty, or a name that only has to be one."""
    given = params.model_dump(mode="json") if isinstance(params, Params) else params
    return Job(
        stage=stage.name,
        run=run,
        fingerprint=fingerprint,
        code_digest=code_digest,
        environment="",
        task=task,
        task_digest=task_digest,
        params=dict(given or {}),
        inputs=dict(inputs or {}),
    )


def inputs_in(folder: Path, stage: Stage) -> dict[str, InputRef]:
    """Return the stage's inputs, which lie in the folder under their artifacts' names."""
    return {
        each.name: InputRef(
            path=each.filename, digest="", bytes=files.size_of(folder / each.filename)
        )
        for each in stage.inputs
    }
