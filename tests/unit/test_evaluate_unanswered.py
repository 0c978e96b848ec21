"""Evaluation: rows without an answer of one model or another, and a live model that is broken."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.errors import EngineUnavailable
from driver.host_stages import deploy
from tests.unit.evaluation import Evaluation, engine, live, right, row_of, rows, stage, wrong
from tests.unit.labeler_stage import read_jsonl, write_jsonl
from tests.unit.scripted_engine import ScriptedEngine

__all__ = ["engine", "stage"]


def silent_at(*numbers: int, tag: str = "liga", candidate: Any = None) -> Any:
    """Let a model give no answer to some rows; the candidate is wrong on every fifth row, or
    answers by a script of its own."""

    def script(messages: list[dict[str, str]], number: int, asked: str) -> Any:
        row = row_of(messages)
        if asked.startswith(tag) and row in numbers:
            return EngineUnavailable("no answer within 300 s")
        if asked.startswith("retrain-candidate"):
            return (candidate or (right if row % 5 else wrong))(messages, number)
        return right(messages, number)

    return script


def test_no_answer_of_another_model_is_no_wrong_answer(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    """Else a worse candidate looks better, the more often the engine fails for the other."""
    write_jsonl(stage.folder / "test.jsonl", rows(20))
    live(engine, "base:latest", "d9")
    engine.tag_script = silent_at(4, 8, 9, tag="base")
    with pytest.raises(EngineUnavailable, match="3 of 20 test rows got no answer") as caught:
        stage.evaluate(baseline="base")
    assert "the baseline (base:latest) has none to 3" in str(caught.value)
    assert not (stage.out / "verdict.json").exists()


@pytest.mark.parametrize("silent", [(4, 8, 9), tuple(range(20))])
def test_a_broken_champion_is_said_loudly_and_can_be_replaced_by_force(
    stage: Evaluation, engine: ScriptedEngine, silent: tuple[int, ...]
) -> None:
    """`deploy` forces what has a verdict; with none, what is broken would stay live for good."""
    write_jsonl(stage.folder / "test.jsonl", rows(20))
    live(engine, "liga:latest", "d8")
    engine.tag_script = silent_at(*silent, candidate=right)
    metrics = stage.evaluate(champion="liga:latest", patience_s=0.0)
    assert (metrics.rows, metrics.promote, metrics.silent) == (20, False, "d8")
    (refusal,) = [each for each in stage.read("verdict")["findings"] if not each["passed"]]
    assert refusal["rule"] == "champion"
    said = f"THE LIVE MODEL IS BROKEN: liga:latest gave no answer to {len(silent)} of 20 test rows"
    assert refusal["text"].startswith(said)
    assert "--force REASON" in refusal["text"]
    assert metrics.models["champion"] == "d8"
    forced = deploy.require_promoted(stage.out / "verdict.json", "it answers nothing")
    assert forced.startswith("it answers nothing (")
    assert set(stage.read("scores")["models"]) == {"candidate"}


def test_an_engine_that_answers_nobody_any_more_breaks_no_champion(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    live(engine, "liga:latest", "d8")
    answered = set[str]()

    def script(messages: list[dict[str, str]], number: int, tag: str) -> Any:
        if tag.startswith("liga") or len(answered) == 6:
            return EngineUnavailable("the runner does not start")
        answered.add(messages[1]["content"])
        return right(messages, number)

    engine.tag_script = script
    with pytest.raises(EngineUnavailable, match="6 of 6 test rows got no answer"):
        stage.evaluate(champion="liga:latest", patience_s=0.0)
    assert not (stage.out / "verdict.json").exists()


def test_a_few_rows_without_an_answer_are_left_out_of_the_comparison(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    write_jsonl(stage.folder / "test.jsonl", rows(60))
    live(engine, "liga:latest", "d8")
    engine.tag_script = silent_at(7)
    assert stage.evaluate(champion="liga:latest").rows == 60
    silent = rows(8)[7]["messages"][:-1]
    assert sum(e["tag"] == "liga:latest" and e["messages"] == silent for e in engine.asked) >= 3
    verdict = stage.read("verdict")
    assert (verdict["promote"], verdict["rows"], verdict["left_out"]) == (False, 60, ["i7"])
    assert any("model's: 1 row (i7)" in reason for reason in verdict["reasons"])
    assert stage.read("scores")["rows"] == 59
    assert "i7" in [row["id"] for row in read_jsonl(stage.out / "answers.jsonl")]


def test_what_the_base_model_leaves_out_hides_no_bad_answer(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    """One of 60 may be left out, which is what makes the difference of 98.3 and 100 % valid."""
    write_jsonl(stage.folder / "test.jsonl", rows(60))
    live(engine, "base:latest", "d9")

    def broken_there(messages: list[dict[str, str]], number: int) -> Any:
        return "kein JSON" if row_of(messages) == 50 else right(messages, number)

    engine.tag_script = silent_at(50, tag="base", candidate=broken_there)
    metrics = stage.evaluate(baseline="base", above_constant=False)
    assert (metrics.rows, metrics.valid) == (60, 59)
    assert "valid is 0.9833, under the 0.99 demanded" in metrics.reasons
    told = [row for row in read_jsonl(stage.out / "answers.jsonl") if row["id"] == "i50"]
    assert told[0]["answers"]["candidate"]["answer"] == "kein JSON"


def test_a_row_that_one_other_model_answers_is_held_against_the_candidate(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    write_jsonl(stage.folder / "test.jsonl", rows(60))
    live(engine, "liga:latest", "d8")
    live(engine, "base:latest", "d9")
    nobody, one = silent_at(8, tag=""), silent_at(8, tag="base")

    def but_champion(messages: list[dict[str, str]], number: int, tag: str) -> Any:
        return (one if tag.startswith("liga") else nobody)(messages, number, tag)

    given = {"champion": "liga:latest", "baseline": "base"}
    engine.tag_script = nobody
    assert (stage.evaluate(**given).rows, stage.read("verdict")["left_out"]) == (59, ["i8"])
    engine.tag_script = but_champion
    metrics = stage.evaluate(**given)
    assert (metrics.rows, metrics.valid) == (60, 59)
    assert any("the candidate gave no answer" in reason for reason in metrics.reasons)


def test_a_candidate_that_hangs_where_the_champion_answers_is_at_fault(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    live(engine, "liga:latest", "d8")
    engine.tag_script = silent_at(3, tag="retrain-candidate")
    metrics = stage.evaluate(champion="liga:latest")
    assert (metrics.rows, metrics.valid, metrics.promote) == (6, 5, False)
    assert "the candidate gave no answer, asked again: 1 row (i3)" in metrics.reasons[-1]
