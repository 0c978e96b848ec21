"""Evaluation: the candidate against the live model, the base model, and the label rules."""

from __future__ import annotations

import json

import pytest

from contracts.errors import ModelMissing
from tests.unit.evaluation import TASK, Evaluation, by_tag, engine, live, right, rows, stage, wrong
from tests.unit.labeler_stage import write_jsonl
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
    compared = {each["name"] for each in scores["compared"]["champion"]}
    assert compared == {*TASK.matters, "valid", "rules.positive"} - {"rules"}
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


def without_texts(messages: list[dict[str, str]], number: int) -> str:
    """Right in every field, and no text that a label rule would let pass."""
    told = json.loads(str(right(messages, number)))
    summary = "Das Land zahlt 4711 Euro."
    return json.dumps(told | ({"summary": summary} if told["relevant"] else {}))


def test_a_first_model_all_of_whose_texts_break_a_rule_is_refused(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    """Most rows are irrelevant, so that over all of them it is the better half of the answers."""
    every = rows(40)
    write_jsonl(stage.folder / "test.jsonl", [row for n, row in enumerate(every) if n % 8 != 1])
    engine.script = without_texts
    metrics = stage.evaluate()
    assert (metrics.valid, metrics.promote) == (35, False)
    assert metrics.scores["rules"] > 0.5
    refused = [each for each in stage.read("verdict")["findings"] if not each["passed"]]
    assert [each["text"] for each in refused] == ["rules.positive is 0, under the 0.5 demanded"]


def test_better_fields_do_not_make_up_for_worse_texts(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    write_jsonl(stage.folder / "test.jsonl", rows(40))
    live(engine, "base:latest", "d9")

    def wordy(messages: list[dict[str, str]], number: int) -> str:
        told = json.loads(str(right(messages, number)))
        return json.dumps(told | ({"priority": "low"} if told["relevant"] else {}))

    engine.tag_script = by_tag(retrain_candidate=without_texts, base=wordy)
    metrics = stage.evaluate(baseline="base", min_rules=0.0)
    assert metrics.promote is False
    (told,) = [each for each in stage.read("verdict")["findings"] if not each["passed"]]
    assert told["text"].startswith(
        "rules.positive is significantly worse than the base model's: -1.000"
    )
