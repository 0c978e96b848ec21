"""Evaluation: the candidate against the same answer to every row."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from contracts.answer_cache import ANSWERS_FILE
from tests.unit.evaluation import Evaluation, engine, live, right, rows, stage, wrong
from tests.unit.labeler_stage import label, write_jsonl
from tests.unit.scripted_engine import ScriptedEngine

__all__ = ["engine", "stage"]


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


@pytest.mark.parametrize("kind", ["all", "most", "none"])
def test_a_perfect_model_passes_on_a_test_set_of_one_side(
    stage: Evaluation, engine: ScriptedEngine, kind: str
) -> None:
    """No answer could be shown to be better than the constant one there, not even the labels."""
    every = rows(120)
    odd = [row for n, row in enumerate(every) if n % 2]
    of_kind = {"all": odd, "most": [*odd, every[0]], "none": every[::2]}[kind]
    write_jsonl(stage.folder / "test.jsonl", of_kind)
    metrics = stage.evaluate()
    assert metrics.promote is True
    told = [reason for reason in metrics.reasons if "every row" in reason]
    assert len(told) == 3
    assert all("no model could be shown to be better" in each for each in told)
    says = any("it cannot tell a model from one that always answers" in r for r in metrics.reasons)
    assert says


@pytest.mark.parametrize(
    ("of_kind", "told"),
    [
        (rows(120)[::2], "no positive row (60 in all): it cannot"),
        (rows(120)[1::2], "no negative row (60 in all): in relevant it cannot"),
        ([*rows(120)[1::2], *rows(4)[::2]], "2 negative rows (62 in all): in relevant it cannot"),
    ],
)
def test_a_test_set_of_one_side_puts_no_model_in_the_place_of_the_one_that_is_live(
    stage: Evaluation, engine: ScriptedEngine, of_kind: list[dict[str, Any]], told: str
) -> None:
    """Who answers the same to every row would pass as whoever knows."""
    write_jsonl(stage.folder / "test.jsonl", of_kind)
    live(engine, "liga:latest", "e1")
    metrics = stage.evaluate(champion="liga", margin=1)
    assert metrics.promote is False
    (refused,) = [each for each in stage.read("verdict")["findings"] if not each["passed"]]
    assert refused["text"].startswith(f"the test set has {told}")
    measures = ("rules", "relevant.recall")
    if (
        "positive" not in told
    ):  # of nothing but texts, and what no test set can be too one-sided for
        assert stage.evaluate(champion="liga", margin=1, measures=measures).promote is True
    assert stage.evaluate(champion="liga", margin=1, above_constant=False).promote is True


def test_a_perfect_model_passes_in_recall_and_in_texts_that_are_always_there(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    write_jsonl(stage.folder / "test.jsonl", rows(40))
    measures = ("relevant.recall", "reasoning", "relevant.precision", "relevance_score.ece")
    assert stage.evaluate(measures=measures).promote is True
    told = " ".join(stage.read("verdict")["reasons"])
    assert "relevance_score.ece is" not in told
    for name in ("relevant.recall", "reasoning"):
        assert re.search(rf"{name} is [\d.]+, and is not held against a constant answer", told)
    assert "relevant.precision is 1; the same answer to every row reaches 0.5" in told
    # The exemption lets nobody pass in what can be told.
    engine.script = lambda _messages, _number: json.dumps(label("high"))
    engine.tags.clear()
    (stage.folder / ANSWERS_FILE).unlink()
    metrics = stage.evaluate(measures=measures)
    assert metrics.promote is False
    assert "relevant.precision is 0.5" in metrics.reasons[0]
