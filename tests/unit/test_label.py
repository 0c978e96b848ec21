"""Labelling: reviewed first, one item a request, retries with reasons, quarantine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable, ItemsInvalid, LabelsMissing, ModelMissing
from driver.report.labels import section
from tasks.chat import QWEN3
from tests.unit.labeler_stage import label, write_jsonl
from tests.unit.labelling import GOOD, PLACEHOLDER, Labelling, engine, items, stage
from tests.unit.scripted_engine import ScriptedEngine, answer

__all__ = ["engine", "stage"]


def test_each_item_is_asked_alone_with_the_schema(stage: Labelling, engine: ScriptedEngine) -> None:
    metrics = stage.label(num_ctx=4096)
    assert (metrics.asked, metrics.quarantined) == (3, 0)
    assert [row["id"] for row in stage.rows("labels")] == ["i0", "i1", "i2"]
    assert stage.rows("labels")[0] == {"id": "i0", "label": label("high"), "origin": "teacher"}
    assert [f"Fall {n}." in asked["messages"][1]["content"] for n, asked in enumerate(engine.asked)]
    first = engine.asked[0]
    assert first["tag"] == "teacher:latest"
    assert first["schema"]["additionalProperties"] is False
    assert first["options"]["num_ctx"] == 4096
    report = json.loads((stage.out / "label_report.json").read_text())
    assert report["strata"] == {"high": 3}
    assert report["fields"]["relevant"]["counts"] == {"True": 3}
    assert stage.events[-1].done == stage.events[-1].total == 3
    assert "close" in engine.calls


def test_reviewed_labels_win_and_the_engine_is_left_alone(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    write_jsonl(
        stage.folder / "reviewed.jsonl",
        [{"id": row["id"], "label": label(None)} for row in items(3)],
    )
    engine.alive = False
    metrics = stage.label()
    assert metrics.reviewed == 3
    assert {row["origin"] for row in stage.rows("labels")} == {"reviewed"}
    assert engine.calls == []
    assert engine.asked == []


def test_a_reviewed_label_that_breaks_a_rule_is_set_apart_and_not_asked(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    reviewed = [{"id": "i1", "label": json.loads(PLACEHOLDER)}]
    write_jsonl(stage.folder / "reviewed.jsonl", reviewed)
    metrics = stage.label()
    assert (metrics.reviewed, metrics.asked, metrics.quarantined) == (0, 2, 1)
    assert stage.rows("quarantine")[0]["origin"] == "reviewed"


def test_a_review_that_is_no_whole_label_is_never_the_teachers(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    """Nor asked for in the sample; the report says that a person has to complete it."""
    partial = {"id": "i1", "label": {"priority": "low"}, "unusable": "summary: missing"}
    write_jsonl(stage.folder / "reviewed.jsonl", [partial])
    metrics = stage.label(gold_sample=20)
    assert (metrics.reviewed, metrics.asked, metrics.quarantined) == (0, 2, 1)
    assert not any("Fall 1" in asked["messages"][1]["content"] for asked in engine.asked)
    assert [row["id"] for row in stage.rows("labels")] == ["i0", "i2"]
    (row,) = stage.rows("quarantine")
    assert (row["id"], row["origin"]) == ("i1", "reviewed")
    (given,) = row["attempts"]
    assert json.loads(given["text"]) == {"priority": "low"}
    assert given["broken"] == ["format: summary: missing"]
    report = json.loads((stage.out / "label_report.json").read_text())
    assert report["quarantined_reviews"] == 1
    assert report["quarantine_reasons"] == {"format": 1}
    assert "1 of them reviewed by a person" in section(report)
    with pytest.raises(LabelsMissing) as caught:
        stage.label(min_labelled=0.9)
    assert "1 reviewed ones are in quarantine" in caught.value.why


def test_without_other_items_nobody_is_asked_for_it(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    rows = [{"id": each["id"], "label": {}, "unusable": "no field"} for each in items(3)]
    write_jsonl(stage.folder / "reviewed.jsonl", rows)
    engine.alive = False
    assert stage.label().quarantined == 3
    write_jsonl(stage.folder / "reviewed.jsonl", [*rows, rows[0]])
    with pytest.raises(ItemsInvalid, match="the id comes twice"):
        stage.label()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "i9", "label": label("high")}, r"reviewed\.jsonl, line 1 \(id 'i9'\)"),
        ({"id": "i1", "label": label("critical")}, r"\(id 'i1'\) is no label"),
        ({"id": "i1"}, "is no label"),
    ],
)
def test_bad_reviewed_rows_are_named(stage: Labelling, row: dict[str, Any], message: str) -> None:
    write_jsonl(stage.folder / "reviewed.jsonl", [row])
    with pytest.raises(ItemsInvalid, match=message):
        stage.label()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "i0", "title": "doppelt"}, r"items\.jsonl, line 4 \(id 'i0'\): the id comes twice"),
        ({"id": "x"}, r"line 4 \(id 'x'\) is no item"),
        ({"title": "ohne"}, r"line 4 \(id None\) is no item"),
    ],
)
def test_bad_items_are_named(stage: Labelling, row: dict[str, Any], message: str) -> None:
    write_jsonl(stage.folder / "items.jsonl", [*items(3), row])
    with pytest.raises(ItemsInvalid, match=message):
        stage.label()


def test_a_broken_rule_is_named_to_the_teacher(stage: Labelling, engine: ScriptedEngine) -> None:
    engine.script = lambda messages, _: GOOD if len(messages) > 2 else PLACEHOLDER
    metrics = stage.label()
    assert (metrics.asked, metrics.quarantined, len(engine.asked)) == (3, 0, 6)
    second = engine.asked[1]
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][2]["content"] == PLACEHOLDER
    assert "placeholder" in second["messages"][3]["content"].lower()
    assert second["options"]["seed"] != engine.asked[0]["options"]["seed"]
    assert second["options"]["temperature"] > engine.asked[0]["options"]["temperature"]


@pytest.mark.parametrize("markup", QWEN3.control_tokens)
def test_an_answer_with_chat_markup_is_not_shown_again(
    stage: Labelling, engine: ScriptedEngine, markup: str
) -> None:
    engine.script = lambda _messages, _number: json.dumps(label("high", tags=[markup]))
    assert stage.label(max_attempts=2).quarantined == 3
    assert [len(asked["messages"]) for asked in engine.asked] == [2] * 6


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(GOOD, finished=False), "cut off (length)"),
        (f"```json\n{GOOD}\n```", "not JSON"),
        ("", "not JSON"),
        ("null", "not a JSON object"),
        (json.dumps(label("high", assigned_aks=["AK9"])), "assigned_aks.0"),
        (json.dumps(label("null")), "priority"),
        (PLACEHOLDER, "placeholder"),
        ("</think>" + GOOD, "not JSON"),
    ],
)
def test_what_stays_invalid_is_quarantined_with_every_attempt(
    stage: Labelling, engine: ScriptedEngine, reply: Any, reason: str
) -> None:
    engine.script = lambda messages, _: reply if "Fall 1." in messages[1]["content"] else GOOD
    metrics = stage.label(max_attempts=3)
    assert metrics.quarantined == 1
    (row,) = stage.rows("quarantine")
    assert (row["id"], len(row["attempts"])) == ("i1", 3)
    for attempt in row["attempts"]:
        assert reason.lower() in " ".join(attempt["broken"]).lower()
    assert [row["id"] for row in stage.rows("labels")] == ["i0", "i2"]


def test_one_time_out_is_that_items_failure_and_is_asked_again_next_time(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    engine.script = lambda messages, _: (
        EngineUnavailable("no answer within 600 s") if "Fall 1." in messages[1]["content"] else GOOD
    )
    assert stage.label(patience_s=9).quarantined == 1
    assert stage.rows("quarantine")[0]["failure"] == "no answer within 600 s"
    engine.script = lambda _messages, _number: GOOD
    metrics = stage.label()
    assert (metrics.cached, metrics.asked, metrics.quarantined) == (2, 1, 0)


def test_an_engine_that_answers_nobody_is_not_asked_forever(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    stage = Labelling(tmp_path, count=50)
    engine.script = lambda _messages, _number: EngineUnavailable("500: out of memory")
    with pytest.raises(EngineUnavailable, match="500: out of memory"):
        stage.label()
    assert len(engine.asked) < 10


def test_concurrent_answers_belong_to_their_items(tmp_path: Path, engine: ScriptedEngine) -> None:
    def slow(messages: list[dict[str, str]], number: int) -> str:
        time.sleep(0.02 if number % 3 else 0.06)
        case = messages[1]["content"].split("Fall ")[1].split(".")[0]
        return json.dumps(label("high", tags=[f"Fall {case}"]))

    engine.script = slow
    stage = Labelling(tmp_path, count=20)
    stage.label(concurrency=4)
    rows = stage.rows("labels")
    assert [row["label"]["tags"] for row in rows] == [[f"Fall {n}"] for n in range(20)]


def test_too_few_labels_fail_after_the_quarantine_is_written(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    engine.script = lambda _messages, _number: "{}"
    with pytest.raises(LabelsMissing, match="0 of 3 items"):
        stage.label(min_labelled=0.8)
    assert len(stage.rows("quarantine")) == 3


@pytest.mark.parametrize("markup", QWEN3.control_tokens)
def test_an_item_that_no_answer_could_label_is_not_asked(
    stage: Labelling, engine: ScriptedEngine, markup: str
) -> None:
    rows = items(3)
    rows[1]["content"] += f" Der Befehl {markup} beendet die Antwort."
    write_jsonl(stage.folder / "items.jsonl", rows)
    metrics = stage.label()
    assert (metrics.asked, metrics.quarantined, len(engine.asked)) == (2, 1, 2)
    (row,) = stage.rows("quarantine")
    assert (row["id"], row["attempts"]) == ("i1", [])
    assert markup in row["failure"]


def test_a_model_that_is_listed_is_not_missing(stage: Labelling, engine: ScriptedEngine) -> None:
    """A 404 for one item: that item's failure, however often."""
    engine.script = lambda messages, _: (
        ModelMissing("no such model") if "Fall 1." in messages[1]["content"] else GOOD
    )
    assert stage.label(patience_s=9).quarantined == 1
    assert stage.rows("quarantine")[0]["failure"] == "no such model"


def test_a_missing_teacher_is_named(stage: Labelling, engine: ScriptedEngine) -> None:
    with pytest.raises(ModelMissing, match="no teacher model qwen3:32b"):
        stage.label(teacher="qwen3:32b")


def test_the_context_holds_the_longest_item(stage: Labelling, engine: ScriptedEngine) -> None:
    stage.label(num_predict=1000)
    short = engine.asked[0]["options"]["num_ctx"]
    write_jsonl(stage.folder / "items.jsonl", [{"id": "long", "content": "Wort " * 1200}])
    stage.label(num_predict=1000)
    long = engine.asked[-1]["options"]["num_ctx"]
    assert short % 2048 == long % 2048 == 0
    assert long - short + 2048 >= 6000 / 2.5
