"""Whether an evaluation still holds: with another model live, and with one that gave no answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.params import EvaluateMetrics
from contracts.stage import Result
from contracts.stages import EVALUATE
from driver.agreement import still_true
from driver.report.display import Display
from driver.session import Session
from driver.settings import Settings
from serving.engine import Model
from tests.unit.scripted_engine import ScriptedEngine

ALIAS = "liga:latest"


def session(folder: Path, live: str, *, force: str = "") -> Session:
    settings = Settings.model_validate(
        {
            "workspace": str(folder),
            "snapshot": {"items": ["items.jsonl"]},
            "fetch": {"path": str(folder)},
            "deploy": {"name": "liga", "force": force},
        }
    )
    made, engine = Session(settings, Display()), ScriptedEngine(lambda *_: "")
    engine.tags[ALIAS] = Model(ALIAS, live, 1)
    made.__dict__["engine"] = engine
    return made


def evaluated(silent: str = "") -> Result:
    models = {"candidate": "c4", "champion": "b7", "baseline": "a1"}
    metrics = EvaluateMetrics(
        rows=1, valid=1, promote=not silent, scores={}, silent=silent, models=models
    )
    return Result(
        stage=EVALUATE.name,
        fingerprint="f",
        finished_at="2026-11-27T21:00:00Z",
        seconds=1.0,
        outputs={},
        metrics=metrics.model_dump(mode="json"),
    )


@pytest.mark.parametrize("live", ["b7", "c4"])
def test_an_evaluation_holds_while_one_that_took_part_is_live(tmp_path: Path, live: str) -> None:
    assert still_true(session(tmp_path, live), EVALUATE, evaluated()) == ""


@pytest.mark.parametrize("live", ["e5", "a1"])
def test_another_model_that_is_live_is_compared_with(tmp_path: Path, live: str) -> None:
    told = still_true(session(tmp_path, live), EVALUATE, evaluated())
    assert told == "another model is live now"


def test_a_champion_that_gave_no_answer_is_asked_again(tmp_path: Path) -> None:
    """It may have been the engine; else a fault of a night would refuse the candidate for good."""
    told = still_true(session(tmp_path, "b7"), EVALUATE, evaluated(silent="b7"))
    assert told == "the live model gave too few answers to compare with"


@pytest.mark.parametrize(("live", "force"), [("b7", "it is broken"), ("c4", "")])
def test_who_replaces_a_broken_champion_does_not_wait_for_it(
    tmp_path: Path, live: str, force: str
) -> None:
    found = session(tmp_path, live, force=force)
    assert still_true(found, EVALUATE, evaluated(silent="b7")) == ""
