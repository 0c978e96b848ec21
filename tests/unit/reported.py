"""The report of a run whose notes were changed: how a run would be told that ended otherwise."""

from __future__ import annotations

import json
import shutil
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from driver.report import html
from driver.store import Run
from tests.unit.finished_run import FinishedRun


@pytest.fixture
def run(finished_run: FinishedRun, tmp_path: Path) -> FinishedRun:
    """Return a copy of the run whose notes, results and engine may be changed."""
    return copied(finished_run, tmp_path)


def copied(run: FinishedRun, folder: Path) -> FinishedRun:
    """Return a copy of a run, which others read too, in a folder of its own."""
    workspace = folder / "workspace"
    shutil.copytree(run.workspace, workspace)
    engine = copy(run.engine)
    engine.tags = dict(engine.tags)
    return replace(run, workspace=workspace, run=Run(workspace, run.run.id), engine=engine)


def report(run: FinishedRun, **changed: Any) -> str:
    """Return the report after a change of the run's notes: `stage={…}`, or a key of run.json."""
    path = run.run.folder / "run.json"
    noted = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changed.items():
        if key in noted["stages"]:
            noted["stages"][key] |= value
        else:
            noted[key] = value
    files.write_json(path, noted)
    return html.write(run.workspace, run.run).read_text(encoding="utf-8")


def head(text: str) -> str:
    """Return what stands before the first section."""
    return text.split("<section", maxsplit=1)[0]


def failure(kind: str, what: str) -> dict[str, Any]:
    """Return what a run notes of the error that ended it."""
    return {"kind": kind, "exit_code": 1, "what": what, "why": "because", "todo": "mend it"}
