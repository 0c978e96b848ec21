"""Evaluation: the candidate against the live model, the base model, and one constant answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts.errors import EngineUnavailable, ModelMissing
from tests.unit.evaluation import TASK, Evaluation, by_tag, engine, live, right, rows, stage, wrong
from tests.unit.labeler_stage import label, read_jsonl, write_jsonl
from tests.unit.scripted_engine import ScriptedEngine

__all__ = ["engine", "stage"]


def test_champion_and_base_model_are_asked_the_same_and_only_once(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    live(engine, "liga:latest", "d8")
    live(engine, "base:latest", "d9")
    given = {"champion": "liga:latest", "baseline": "base", "margin": 1.0}
    engine.tag_script = by_tag(base=wrong)
    metrics = stage.evaluate(**given)
    assert metrics.models == {"candidate": "d2", "champion": "d8", "baseline": "d9"}
    assert len(engine.asked) == 3 * 6
    for tag in ("liga:latest", "base:latest"):
        asked = [each["messages"] for each in engine.asked if each["tag"] == tag]
        assert asked == [row["messages"][:-1] for row in rows(6)]
    scores = stage.read("scores")
    assert scores["models"]["baseline"]["measures"]["relevant.f1"]["value"] == 0.0
    assert {each["name"] for each in scores["compared"]["champion"]} == set(TASK.matters)
    # Nothing is asked a second time, the candidate included: an evaluation goes on after a kill.
    engine.asked.clear()
    assert stage.evaluate(**given) == metrics
    assert engine.asked == []


def test_a_worse_candidate_is_refused_whatever_its_form(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    write_jsonl(stage.folder / "test.jsonl", rows(40))
    live(engine, "liga:latest", "d8")
    engine.tag_script = by_tag(retrain_candidate=wrong)
    metrics = stage.evaluate(champion="liga:latest")
    assert metrics.promote is False
    assert metrics.valid == 40
    assert "relevant.f1 is significantly worse than the champion's: -1.000" in metrics.reasons[0]


def test_a_candidate_like_the_base_model_is_refused(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    live(engine, "base:latest", "d9")
    metrics = stage.evaluate(baseline="base")
    assert metrics.promote is False
    assert "in no measure significantly better than the base model" in metrics.reasons[0]


def test_the_model_that_is_live_already_is_not_held_against_itself(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    live(engine, "liga:latest", "d2")
    assert stage.evaluate(champion="liga:latest").promote is True
    assert stage.read("scores")["compared"] == {}


def test_a_base_model_that_is_not_there_is_named(stage: Evaluation, engine: ScriptedEngine) -> None:
    with pytest.raises(ModelMissing, match="no base model base"):
        stage.evaluate(baseline="base")


def silent_at(*numbers: int, tag: str = "liga", otherwise: Any = right) -> Any:
    """Let a model give no answer to some rows; the candidate is wrong on every fifth row."""

    def script(messages: list[dict[str, str]], number: int, asked: str) -> Any:
        row = int(messages[1]["content"].split("Fall ")[1].split("\n")[0])
        if asked.startswith(tag) and row in numbers:
            return EngineUnavailable("no answer within 300 s")
        candidate = asked.startswith("retrain-candidate")
        return (wrong if candidate and row % 5 == 0 else otherwise)(messages, number)

    return script


def test_no_answer_of_the_champion_is_no_wrong_answer(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    """Else a worse candidate looks better, the more often the engine fails for the champion."""
    write_jsonl(stage.folder / "test.jsonl", rows(60))
    live(engine, "liga:latest", "d8")
    engine.tag_script = silent_at(*range(1, 60, 3))
    with pytest.raises(EngineUnavailable, match="20 of 60 test rows got no answer") as caught:
        stage.evaluate(champion="liga:latest")
    assert "the champion (liga:latest) has none to 20" in str(caught.value)
    assert not (stage.out / "verdict.json").exists()


def test_a_few_rows_without_an_answer_are_left_out_for_all(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    write_jsonl(stage.folder / "test.jsonl", rows(60))
    live(engine, "liga:latest", "d8")
    engine.tag_script = silent_at(7)
    assert stage.evaluate(champion="liga:latest").rows == 59
    silent = rows(8)[7]["messages"][:-1]
    assert sum(e["tag"] == "liga:latest" and e["messages"] == silent for e in engine.asked) >= 3
    verdict = stage.read("verdict")
    assert (verdict["promote"], verdict["rows"], verdict["left_out"]) == (False, 59, ["i7"])
    assert any("model's: 1 row (i7)" in reason for reason in verdict["reasons"])
    assert "i7" not in [row["id"] for row in read_jsonl(stage.out / "answers.jsonl")]


def test_a_candidate_that_hangs_where_the_champion_answers_is_at_fault(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    live(engine, "liga:latest", "d8")
    engine.tag_script = silent_at(3, tag="retrain-candidate")
    metrics = stage.evaluate(champion="liga:latest")
    assert (metrics.rows, metrics.valid, metrics.promote) == (6, 5, False)
    assert "the candidate gave no answer, asked again: 1 row (i3)" in metrics.reasons[-1]


@pytest.mark.parametrize("priority", [None, "high"])
def test_the_same_answer_to_every_row_is_refused_though_nothing_is_live(
    stage: Evaluation, engine: ScriptedEngine, priority: str | None
) -> None:
    write_jsonl(stage.folder / "test.jsonl", rows(40))
    engine.script = lambda _messages, _number: json.dumps(label(priority))
    metrics = stage.evaluate()
    assert (metrics.valid, metrics.promote) == (40, False)
    refused = [each for each in stage.read("verdict")["findings"] if not each["passed"]]
    assert {each["rule"] for each in refused} == {"constant"}
    assert "priority.kappa is 0, and the same answer to every row reaches 0 as well" in str(refused)
    assert stage.evaluate(above_constant=False).promote is True


def test_a_guess_is_not_shown_to_be_better_than_a_constant_answer(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    write_jsonl(stage.folder / "test.jsonl", rows(40))
    half = {row["messages"][1]["content"] for n, row in enumerate(rows(40)) if n % 4 < 2}
    engine.script = lambda messages, number: (right if messages[1]["content"] in half else wrong)(
        messages, number
    )
    metrics = stage.evaluate()
    assert metrics.promote is False
    assert any("not shown to be better than a constant" in told for told in metrics.reasons)


def test_an_error_is_held_against_the_constant_with_the_least(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    stage.evaluate(measures=("valid", "relevance_score.brier", "summary"))
    told = [r for r in stage.read("verdict")["reasons"] if "every row" in r]
    assert len(told) == 2
    assert told[0].startswith("relevance_score.brier is 0.01; the same answer to every row reaches")
