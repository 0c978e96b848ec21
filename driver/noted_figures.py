"""Whether the figures of a result, which has no digest, are what was noted of them elsewhere.

An evaluation's stand in verdict.json and scores.json too, whose digests are checked, and those of
any stage in what the run has noted that made it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from contracts import files, stages
from contracts.errors import RunUnreadable
from contracts.stage import Job, Result
from driver.store import STATE_FILE, Run

_TWINS = stages.VERDICT, stages.SCORES
_SCORES = "scores."
_NOTHING = object()
"""Stands for a figure that is not there."""


def contradiction(workspace: Path, job: Job, result: Result) -> str:
    """Return which figures are others than noted elsewhere, or only there, or only here, and where;
    "" where none is.
    """
    own = _flat(result.metrics)
    of_run = _of_run(workspace, job)
    places = _of_evaluation(workspace, result)
    if of_run:
        places.append((f"{STATE_FILE} of run {job.run}", of_run))
    for place, noted in places:
        scored = any(name.startswith(_SCORES) for name in noted)
        whole = ("",) if noted is of_run else (_SCORES,) if scored else ()
        names = [n for n in {**noted, **own} if (n in noted and n in own) or n.startswith(whole)]
        wrong = [n for n in names if own.get(n, _NOTHING) != noted.get(n, _NOTHING)]
        if wrong:
            told = (f"{name}: {_told(name, own)}, not {_told(name, noted)}" for name in wrong[:3])
            return f"its result.json says other than {place}: {'; '.join(told)}"
    return ""


def _told(name: str, figures: dict[str, Any]) -> str:
    return repr(figures[name]) if name in figures else "nothing"


def _of_run(workspace: Path, job: Job) -> dict[str, Any]:
    """Return what the run has noted of the stage; {} where it, or an older driver, has not."""
    with suppress(RunUnreadable):
        noted = Run(workspace, job.run).read_state().stages.get(job.stage)
        if noted and noted.fingerprint == job.fingerprint:
            return _flat(noted.metrics)
    return {}


def _of_evaluation(workspace: Path, result: Result) -> list[tuple[str, dict[str, Any]]]:
    """Return each artifact of an evaluation that holds figures of the result, with those.

    None of what is damaged, which its digest shows.
    """
    if result.stage != stages.EVALUATE.name:
        return []
    try:
        paths = (workspace / result.outputs[each.name].path for each in _TWINS)
        verdict, scores = (json.loads(files.read_bytes(path)) for path in paths)
        said = {name: verdict[name] for name in ("promote", "reasons", "rows") if name in verdict}
        models = {role: each["digest"] for role, each in scores["models"].items()}
        found = _flat({"models": {**models, "candidate": verdict["candidate"]}})
        measured = scores["models"]["candidate"]["measures"]
        told = (n for n, each in measured.items() if n != "valid" and not each.get("of_nothing"))
        values = {name: measured[name]["value"] for name in told}
        if not verdict.get("left_out"):  # else scores.json is of fewer rows
            found |= _flat({"scores": values})
            found["valid"] = round(measured["valid"]["value"] * verdict["rows"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return [(each.filename, figures) for each, figures in zip(_TWINS, (said, found), strict=True)]


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures by name, those within others by both names."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        inner = value.items() if isinstance(value, dict) else ()
        found |= {f"{name}.{key}": each for key, each in inner} or {name: value}
    return found
