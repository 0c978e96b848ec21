"""What plan, run and doctor say of an evaluation that cannot show much, or cannot run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import files, stages
from contracts.errors import EngineUnavailable, SettingsInvalid
from driver import doctor, preflight, settings
from serving.engine import Model
from tasks import load_task
from tests.unit.scripted_engine import ScriptedEngine

EVALUATES = [stages.EVALUATE]


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes a session, as far as these questions go."""

    def make(*overrides: str) -> Any:
        file = tmp_path / "s.yaml"
        file.write_text("snapshot: {items: [a.jsonl]}\nfetch: {path: /base}\n", encoding="utf-8")
        loaded = settings.load(file, overrides, {})
        engine = ScriptedEngine(lambda *_: "")
        return SimpleNamespace(settings=loaded, task=load_task(loaded.task), engine=engine)

    return make


def test_the_shipped_settings_name_the_base_model() -> None:
    shipped = settings.load(files.ROOT / "retrain.yaml", (), {}).evaluate
    assert (shipped.baseline, shipped.above_constant) == ("qwen3:14b-q8_0", True)


def test_no_base_model_is_warned_of(session: Callable[..., Any]) -> None:
    assert list(preflight.doubts(session(), EVALUATES)) == [preflight.NO_BASELINE]
    assert list(preflight.doubts(session(), [stages.DEPLOY])) == []
    found = doctor._ask("Evaluation", doctor._baseline, session())
    assert (found.ok, found.mend) == (None, preflight.NO_BASELINE)


def test_a_base_model_that_is_not_there_is_told_before_the_run(session: Callable[..., Any]) -> None:
    asked = session("evaluate.baseline=base")
    assert "no base model base" in next(preflight.doubts(asked, EVALUATES))
    assert doctor._ask("Evaluation", doctor._baseline, asked).ok is False
    asked.engine.tags["base:latest"] = Model("base:latest", "d9", 1)
    assert list(preflight.doubts(asked, EVALUATES)) == []
    assert doctor._baseline(asked).ok is True
    asked.engine.alive = False  # what it has is not known, and a plan is no run
    assert list(preflight.doubts(asked, EVALUATES)) == []
    with pytest.raises(EngineUnavailable):
        preflight.check_bases(asked, EVALUATES, asked.engine.models())


@pytest.mark.parametrize("setting", ["min_scores={relevantt: 0.9}", "measures=[relevantt.f1]"])
def test_an_unknown_measure_is_told_before_the_run(
    session: Callable[..., Any], setting: str
) -> None:
    asked = session(f"evaluate.{setting}", "evaluate.baseline=teacher")
    told = next(preflight.doubts(asked, EVALUATES))
    assert "names relevantt" in told
    assert "no measure of liga_relevance" in told
    with pytest.raises(SettingsInvalid, match="no measure of liga_relevance"):
        preflight.check_scores(asked)
