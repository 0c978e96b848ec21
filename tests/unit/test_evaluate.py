"""Evaluation: asked as the backend asks, scored by the kind of field, decided by thresholds."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from contracts.errors import EngineUnavailable, InputMissing, SettingsInvalid
from contracts.stages import (
    EVALUATE,
)
from images.labeler import evaluate
from images.labeler.fields import Kind, describe, kinds
from images.labeler.scoring import score, score_names
from serving.engine import Answer
from tasks import load_task
from tests.unit.labeler_stage import StageRun, label, read_jsonl, write_jsonl
from tests.unit.scripted_engine import ScriptedEngine, answer

TASK = load_task("liga_relevance")
DIGEST = "ab" * 32
TAG = "retrain-candidate:abababababab"


def rows(count: int) -> list[dict[str, Any]]:
    found = []
    for n in range(count):
        item = TASK.item.model_validate({"id": f"i{n}", "title": f"Fall {n}"})
        output = TASK.parse(json.dumps(label("high" if n % 2 else None)))
        messages = TASK.training_messages(item, output)
        found.append({"id": item.id, "messages": messages, "stratum": TASK.stratum(output)})
    return found


def right(messages: list[dict[str, str]], _: int) -> str | Answer | Exception:
    number = int(messages[1]["content"].split("Fall ")[1].split("\n")[0])
    return json.dumps(label("high" if number % 2 else None))


class Evaluation(StageRun):
    def __init__(self, folder: Path) -> None:
        super().__init__(EVALUATE, folder)
        write_jsonl(folder / "test.jsonl", rows(6))

    def evaluate(self, **params: Any) -> Any:
        return self.run(evaluate.work, {"gguf": DIGEST}, **params)

    def read(self, name: str) -> Any:
        return json.loads((self.out / f"{name}.json").read_text())


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    double = ScriptedEngine(right)
    monkeypatch.setattr(evaluate, "connect", lambda _environ, _workspace: double)
    return double


@pytest.fixture
def stage(tmp_path: Path) -> Evaluation:
    return Evaluation(tmp_path)


def test_it_asks_as_the_backend_does_and_cleans_up(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    metrics = stage.evaluate(min_scores={"relevant": 1.0, "priority.macro_f1": 0.9})
    assert (metrics.rows, metrics.valid, metrics.promote) == (6, 6, True)
    assert set(metrics.scores.values()) == {1.0}
    assert engine.calls == [f"create {TAG}", f"unload {TAG}", f"delete {TAG}", "close"]
    for asked, row in zip(engine.asked, rows(6), strict=True):
        assert asked["tag"] == TAG
        assert asked["messages"] == row["messages"][:-1]
        assert asked["schema"] is None
        assert asked["options"] == TASK.modelfile().parameters
    verdict = stage.read("verdict")
    assert verdict["promote"] is True
    assert verdict["reasons"] == [
        "valid is 1, at least 0.99 as demanded",
        "relevant is 1, at least 1 as demanded",
        "priority.macro_f1 is 1, at least 0.9 as demanded",
    ]
    first = read_jsonl(stage.out / "answers.jsonl")[0]
    assert (first["id"], first["valid"], first["expected"]) == ("i0", True, label(None))


def test_a_refusal_is_a_result_that_names_what_was_missed(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    replies: list[str | Answer | Exception] = [
        json.dumps(label(None)),
        answer("{", finished=False),
        "kein JSON",
    ]
    engine.script = lambda _messages, number: replies[number % 3]
    metrics = stage.evaluate(min_valid=0.9, min_scores={"relevant": 0.3, "assigned_aks": 0.8})
    assert metrics.promote is False
    assert metrics.valid == 2
    assert stage.read("verdict")["reasons"] == [
        "valid is 0.3333, under the 0.9 demanded",
        "relevant is 0.1667, under the 0.3 demanded",
        "assigned_aks is 0, under the 0.8 demanded",
    ]
    answers = read_jsonl(stage.out / "answers.jsonl")
    assert "cut off after 20 tokens" in answers[1]["reason"]
    assert answers[2]["answer"] == "kein JSON"


def test_an_unknown_score_is_refused_before_anything_is_made(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    with pytest.raises(SettingsInvalid, match="relevantt") as caught:
        stage.evaluate(min_scores={"relevantt": 0.9})
    assert "relevant, relevant.precision" in str(caught.value)
    assert engine.calls == []


def test_the_candidate_goes_even_if_the_engine_fails(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    engine.script = lambda _messages, _number: EngineUnavailable("500")
    with pytest.raises(EngineUnavailable, match="500"):
        stage.evaluate(patience_s=0)
    assert engine.calls[-3:] == [f"unload {TAG}", f"delete {TAG}", "close"]
    assert TAG not in engine.tags


def test_one_time_out_is_one_invalid_answer(stage: Evaluation, engine: ScriptedEngine) -> None:
    engine.script = lambda messages, number: (
        EngineUnavailable("no answer within 300 s")
        if "Fall 3\n" in messages[1]["content"]
        else right(messages, number)
    )
    assert stage.evaluate().valid == 5


def test_a_limit_asks_the_first_rows(stage: Evaluation, engine: ScriptedEngine) -> None:
    assert stage.evaluate(limit=2).rows == 2
    assert len(engine.asked) == 2


def test_a_damaged_test_row_is_named(stage: Evaluation, engine: ScriptedEngine) -> None:
    write_jsonl(stage.folder / "test.jsonl", [*rows(1), {"id": "x"}])
    with pytest.raises(InputMissing, match="line 2 is no test row"):
        stage.evaluate()


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Output(BaseModel):
    flag: bool
    colour: Colour | None
    size: Literal["s", "m"]
    colours: list[Colour]
    share: float
    words: list[str]
    note: str | None


def made(**changed: Any) -> Output:
    fields: dict[str, Any] = {
        "flag": True, "colour": "red", "size": "s", "colours": ["red"],
        "share": 0.5, "words": ["a"], "note": "n",
    }  # fmt: skip
    return Output(**{**fields, **changed})


def test_kinds_come_from_the_annotations() -> None:
    assert kinds(Output) == {
        "flag": Kind.FLAG, "colour": Kind.CHOICE, "size": Kind.CHOICE, "colours": Kind.CHOICES,
        "share": Kind.NUMBER, "words": Kind.TEXT, "note": Kind.TEXT,
    }  # fmt: skip
    liga = kinds(TASK.output)
    assert liga["priority"] is Kind.CHOICE
    assert liga["assigned_aks"] is Kind.CHOICES
    assert liga["tags"] is Kind.TEXT


def test_scores_of_hand_counted_answers() -> None:
    pairs = [
        (made(), made()),
        (made(), made(flag=False, colour="blue", colours=["blue", "red"], share=0.25, note=None)),
        (made(flag=False, colour=None, colours=[]), made(flag=True, colour=None, colours=[])),
        (made(flag=False), None),
    ]
    found = score(Output, pairs)
    assert found["valid"] == 0.75
    # Detected: rows 1 and 3; expected: rows 1 and 2; the invalid one detects nothing.
    assert found["flag"] == 0.25
    assert found["flag.precision"] == found["flag.recall"] == found["flag.f1"] == 0.5
    assert found["colour"] == 0.5
    # red: 1 hit of 3 expected, 1 answered; blue: 0 of 1 answered; none: 1 of 1.
    assert found["colour.macro_f1"] == pytest.approx((0.5 + 0 + 1) / 3, abs=1e-4)
    # 2 hits of 3 expected and 3 answered values.
    assert found["colours"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["colours.exact"] == 0.5
    assert found["share"] == pytest.approx(1 - (0 + 0.25 + 0 + 1) / 4, abs=1e-4)
    assert found["note"] == 0.5
    assert found["words"] == 0.75


def test_all_right_is_one_and_all_invalid_is_zero() -> None:
    assert set(score(Output, [(made(), made())] * 3).values()) == {1.0}
    assert set(score(Output, [(made(), None)] * 3).values()) == {0.0}
    assert score_names(Output)[:3] == ["valid", "flag", "flag.precision"]


def test_a_description_counts_values() -> None:
    found = describe(Output, [made(), made(flag=False, note=None, colours=[])])
    assert found["flag"]["counts"] == {"False": 1, "True": 1}
    assert found["colours"] == {"kind": "choices", "counts": {"red": 1}, "empty": 1}
    assert found["note"]["given"] == 1
    assert found["share"]["value"] == {"min": 0.5, "median": 0.5, "max": 0.5}
