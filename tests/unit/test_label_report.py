"""The label report: what was broken, what it cost, and what a person should look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable
from images.labeler.cost import cost
from images.labeler.teacher import Judgement
from serving.attempts import Attempt
from tasks.definition import Violation
from tests.unit.labeler_stage import label, write_jsonl
from tests.unit.labelling import GOOD, PLACEHOLDER, Labelling, engine, stage
from tests.unit.scripted_engine import ScriptedEngine

__all__ = ["engine", "stage"]


def test_faults_have_an_order_of_their_own() -> None:
    """A set's order hangs on the process, and the report with it where two rules break as often."""
    reasons = ["b: one", "a: one", "b: two", "c: one"]
    assert list(Judgement(None, reasons, []).faults) == ["b", "a", "c"]


def test_a_sample_of_the_reviews_is_asked_too_and_changes_no_label(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    reviews = [{"id": f"i{n}", "label": label(None)} for n in range(2)]
    write_jsonl(stage.folder / "reviewed.jsonl", reviews)
    metrics = stage.label(gold_sample=1)
    assert (metrics.reviewed, metrics.asked, len(engine.asked)) == (2, 1, 2)
    assert [row["origin"] for row in stage.rows("labels")] == ["reviewed", "reviewed", "teacher"]
    report = json.loads((stage.out / "label_report.json").read_text())
    assert report["agreement"]["reviewed"]["rows"] == 1
    assert report["agreement"]["reviewed"]["scores"]["relevant"] == 0
    assert report["look_at"][0]["why"] == ["reviewed as irrelevant, the teacher says high"]


def test_the_report_tells_breaks_before_and_after_retry_and_the_cost(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    def script(messages: list[dict[str, str]], _: int) -> str:
        if "Fall 0." in messages[1]["content"]:
            return PLACEHOLDER
        return GOOD if len(messages) > 2 else PLACEHOLDER

    engine.script = script
    stage.label(max_attempts=2)
    report = json.loads((stage.out / "label_report.json").read_text())
    assert report["rules"][0] == {
        "rule": "placeholder",
        "severity": "error",
        "before_retry": 3,
        "after_retry": 1,
    }
    assert report["cost"]["requests"] == 6
    assert (report["cost"]["prompt_tokens"], report["cost"]["answer_tokens"]) == (60, 120)
    assert report["quarantine_reasons"] == {"placeholder": 1}
    assert report["look_at"][0]["id"] == "i0"
    figures = stage.events[-1].metrics
    assert figures["broken"] == "placeholder 4"
    assert figures["positive"] == "100%"
    assert figures["quarantined"] == 1


@pytest.mark.parametrize("answers", [1, 2, 3])
def test_warnings_are_counted_once_an_answer(
    tmp_path: Path, engine: ScriptedEngine, answers: int
) -> None:
    """Every answer lacks tags; the first one also has reasons that are too long."""
    long = " ".join(f"Die Kürzung trifft {who}." for who in ("Kinder", "Eltern", "Träger", "alle"))

    def script(messages: list[dict[str, str]], _: int) -> str:
        more = {"reasoning": long} if "Fall 0." in messages[1]["content"] else {}
        return json.dumps(label("high", tags=[], **more), ensure_ascii=False)

    engine.script = script
    stage = Labelling(tmp_path, answers)
    path = stage.out / "label_report.json"
    for _ in ("asked", "from the cache"):
        stage.label()
        found = {rule["rule"]: rule["after_retry"] for rule in warnings_in(path)}
        assert found == {"no-tags": answers, "reasoning-length": 1}
        path.write_text('{"rules": null}')  # what is there of an earlier start is written anew


def warnings_in(path: Path) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rules"]
    return [rule for rule in rules if rule["severity"] == "warning"]


def test_a_rule_that_warns_twice_of_an_answer_counts_once() -> None:
    given = [Violation(name, "warning", "") for name in ("b", "a", "b")]
    given.append(Violation("c", "error", ""))
    assert Judgement(None, [], given).warnings == ("b", "a")


def test_where_too_few_are_doubtful_the_least_sure_ones_follow(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    def script(messages: list[dict[str, str]], _: int) -> str:
        asked = messages[1]["content"]
        if "Fall 3." in asked and len(messages) == 2:
            return PLACEHOLDER
        scores = {"Fall 7.": 0.55, "Fall 9.": 0.7}
        score = next((each for case, each in scores.items() if case in asked), 0.9)
        return json.dumps(label("high", relevance_score=score), ensure_ascii=False)

    engine.script = script
    stage = Labelling(tmp_path, 30)
    write_jsonl(tmp_path / "reviewed.jsonl", [{"id": "i0", "label": label("high")}])
    stage.label(gold_sample=0)
    shown = json.loads((stage.out / "label_report.json").read_text())["look_at"]
    assert len(shown) == 20
    assert [row["id"] for row in shown[:3]] == ["i3", "i7", "i9"]
    assert shown[0]["why"] == ["1 answer was refused before this one"]
    assert shown[1]["why"] == ["nothing speaks against it, but relevance_score is 0.55"]
    assert "i0" not in {row["id"] for row in shown}, "a person has looked at it"
    assert [row["id"] for row in shown[3:]] != [f"i{n}" for n in range(1, 18)], "a sample"


def test_the_report_compares_with_the_labels_before(tmp_path: Path, engine: ScriptedEngine) -> None:
    before = Labelling(tmp_path / "store/label/f0")
    before.label()
    before.out.rename(before.folder / "out")
    (before.folder / "result.json").write_text("{}")
    engine.script = lambda messages, _: (
        json.dumps(label(None)) if "Fall 1." in messages[1]["content"] else GOOD
    )
    now = Labelling(tmp_path / "store/label/f1")
    now.label()
    report = json.loads((now.out / "label_report.json").read_text())
    assert report["agreement"]["previous"]["rows"] == 3
    assert report["agreement"]["previous"]["scores"]["relevant"] == pytest.approx(0.6667)
    assert report["look_at"][0]["why"] == ["was high, is now irrelevant"]


@pytest.mark.parametrize("row", ["{", '{"id": []}', '{"id": "i0", "label": 5}', "\xff"])
def test_damaged_labels_of_before_count_as_none(
    tmp_path: Path, engine: ScriptedEngine, row: str
) -> None:
    before = tmp_path / "store/label/f0"
    (before / "out").mkdir(parents=True)
    (before / "result.json").write_text("{}")
    (before / "out/labels.jsonl").write_text(row, encoding="latin-1")
    now = Labelling(tmp_path / "store/label/f1")
    now.label()
    report = json.loads((now.out / "label_report.json").read_text())
    assert report["agreement"]["previous"] is None


def test_the_cost_is_that_of_all_starts(stage: Labelling, engine: ScriptedEngine) -> None:
    def dies(_messages: list[dict[str, str]], number: int) -> str | EngineUnavailable:
        engine.alive = number < 2
        return GOOD if engine.alive else EngineUnavailable("connection refused")

    engine.script = dies
    with pytest.raises(EngineUnavailable):
        stage.label()
    engine.alive, engine.script = True, lambda _messages, _number: GOOD
    assert stage.label().asked == 1
    whole = cost_of(stage)
    assert (whole["items"], whole["requests"], whole["asked_now"]) == (3, 3, 1)
    assert (whole["prompt_tokens"], whole["answer_tokens"], whole["model_s"]) == (30, 60, 0.3)
    assert whole["untimed"] == 0
    assert stage.label().asked == 0
    assert cost_of(stage) == {**whole, "asked_now": 0}


def test_what_several_items_share_costs_once(stage: Labelling, engine: ScriptedEngine) -> None:
    same = [{"id": f"copy{n}", "title": "Kürzung", "content": "Fall 0."} for n in range(3)]
    write_jsonl(stage.folder / "items.jsonl", same)
    stage.label()
    assert (cost_of(stage)["items"], cost_of(stage)["requests"]) == (3, 1)


def cost_of(stage: Labelling) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stage.out / "label_report.json").read_text())["cost"]
    return found


def attempt(began_at: float | None, ended_at: float | None) -> Attempt:
    return Attempt(0, "{}", True, "stop", 1, 2, 0.5, began_at, ended_at)


@pytest.mark.parametrize(
    ("spans", "elapsed_s"),
    [
        ([], 0),
        ([(10, 12)], 2),
        ([(10, 12), (11, 15), (14, 14.5)], 5),
        ([(10, 12), (1000, 1003)], 5),
        ([(5, 5)], 0),
        ([(12, 10)], 0),
    ],
    ids=["none", "one", "at once", "a pause", "no time", "a clock set back"],
)
def test_elapsed_is_the_time_with_a_request_under_way(
    spans: list[tuple[float, float]], elapsed_s: float
) -> None:
    assert cost([[attempt(*span)] for span in spans])["elapsed_s"] == elapsed_s


def test_requests_without_times_are_counted_apart() -> None:
    found = cost([[attempt(None, None), attempt(1, 2)], [attempt(None, None)]])
    assert (found["requests"], found["untimed"], found["elapsed_s"]) == (3, 2, 1)
    assert (found["prompt_tokens"], found["answer_tokens"], found["model_s"]) == (3, 6, 1.5)
