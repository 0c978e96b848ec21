"""Labelling: reviewed first, one item a request, retries with reasons, quarantine, the cache."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable, ItemsInvalid, LabelsMissing, ModelMissing
from contracts.files import ROOT
from contracts.label_cache import CACHE_FILE, Imported, LabelCache
from contracts.stages import LABEL
from images.labeler import label as label_stage
from serving.engine import full_tag
from serving.teachers import TeacherServer
from tasks import load_task
from tests.unit.labeler_stage import StageRun, label, read_jsonl, write_jsonl
from tests.unit.scripted_engine import ScriptedEngine, answer

DEFAULTS = {"teacher": "teacher", "min_labelled": 0, "patience_s": 0, "concurrency": 1}
GOOD = json.dumps(label("high"), ensure_ascii=False)
PLACEHOLDER = json.dumps(label("high", summary="Keine Zusammenfassung verfügbar."))


def items(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"i{n}", "title": f"Kürzung {n}", "content": f"Das Land kürzt Mittel, Fall {n}."}
        for n in range(count)
    ]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    double = ScriptedEngine(lambda _messages, _number: GOOD)
    monkeypatch.setattr(
        label_stage,
        "connect_teachers",
        lambda _environ, _workspace, name: [TeacherServer(double, "scripted", full_tag(name))],
    )
    return double


class Labelling(StageRun):
    def __init__(self, folder: Path, count: int = 3) -> None:
        super().__init__(LABEL, folder)
        write_jsonl(folder / "items.jsonl", items(count))
        write_jsonl(folder / "reviewed.jsonl", [])

    def label(self, **params: Any) -> Any:
        return self.run(label_stage.work, **{**DEFAULTS, **params})

    def rows(self, name: str) -> list[dict[str, Any]]:
        return read_jsonl(self.out / f"{name}.jsonl")


@pytest.fixture
def stage(tmp_path: Path) -> Labelling:
    return Labelling(tmp_path)


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


def test_a_second_run_asks_nothing_and_a_changed_teacher_everything(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    engine.script = lambda messages, _: "{}" if "Fall 1." in messages[1]["content"] else GOOD
    first = stage.label(max_attempts=2)
    before = [stage.rows(name) for name in ("labels", "quarantine")]
    asked = len(engine.asked)
    second = stage.label(max_attempts=2)
    assert (first.asked, second.asked, second.cached) == (3, 0, 3)
    assert len(engine.asked) == asked
    assert [stage.rows(name) for name in ("labels", "quarantine")] == before

    more = stage.label(max_attempts=3)  # goes on where the quarantined row stood
    assert (more.cached, more.asked, len(engine.asked)) == (2, 1, asked + 1)

    engine.tags["teacher:latest"] = type(engine.tags["teacher:latest"])("teacher:latest", "d9", 1)
    assert stage.label(max_attempts=2).asked == 3


def test_an_engine_that_goes_away_stops_the_stage_and_keeps_the_rows(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    def dies(messages: list[dict[str, str]], number: int) -> Any:
        if number == 2:
            engine.alive = False
            return EngineUnavailable("connection refused")
        return GOOD

    engine.script = dies
    with pytest.raises(EngineUnavailable, match="the engine is gone"):
        stage.label()
    engine.alive = True
    metrics = stage.label()
    assert (metrics.cached, metrics.asked) == (2, 1)


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
    assert len(engine.asked) < 5


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


def test_a_missing_teacher_is_named(stage: Labelling, engine: ScriptedEngine) -> None:
    with pytest.raises(ModelMissing, match="no teacher model qwen3:32b"):
        stage.label(teacher="qwen3:32b")


def test_items_with_the_same_text_are_asked_once(stage: Labelling, engine: ScriptedEngine) -> None:
    same = [{**items(1)[0], "id": f"copy{n}"} for n in range(3)]
    write_jsonl(stage.folder / "items.jsonl", same)
    assert stage.label().asked == 3
    assert len(engine.asked) == 1
    assert [row["id"] for row in stage.rows("labels")] == ["copy0", "copy1", "copy2"]


def test_an_imported_label_is_taken_and_a_bad_one_is_asked(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    task = load_task("liga_relevance")
    digests = [task.item_digest(task.item.model_validate(row)) for row in items(2)]
    answers = (json.dumps(label(None)), PLACEHOLDER)
    with LabelCache(stage.folder / CACHE_FILE) as cache:
        cache.put_imported(
            Imported(digest, answer, "old") for digest, answer in zip(digests, answers, strict=True)
        )
    metrics = stage.label()
    assert (metrics.imported, metrics.asked) == (1, 2)
    assert [row["origin"] for row in stage.rows("labels")] == ["imported", "teacher", "teacher"]


def test_an_import_mends_the_quarantine(stage: Labelling, engine: ScriptedEngine) -> None:
    engine.script = lambda messages, _: "{}" if "Fall 1." in messages[1]["content"] else GOOD
    assert stage.label(max_attempts=2).quarantined == 1
    task = load_task("liga_relevance")
    digest = task.item_digest(task.item.model_validate(items(2)[1]))
    with LabelCache(stage.folder / CACHE_FILE) as cache:
        cache.put_imported([Imported(digest, json.dumps(label(None)), "by hand")])
    mended = stage.label(max_attempts=2)
    assert (mended.imported, mended.asked, mended.quarantined) == (1, 0, 0)


@pytest.mark.parametrize("damage", ['[{"reasons": []}]', "[{}, {}]", "[5]", "{"])
def test_a_damaged_verdict_is_judged_anew(
    stage: Labelling, engine: ScriptedEngine, damage: str
) -> None:
    stage.label()
    before = stage.rows("labels")
    with sqlite3.connect(stage.folder / CACHE_FILE) as database:
        database.execute("UPDATE verdicts SET verdicts = ?", (damage,))
    again = stage.label()
    assert again.asked == 0
    assert stage.rows("labels") == before
    assert len(engine.asked) == 3


def test_an_edited_correction_prompt_asks_again(
    stage: Labelling, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.label()
    task = load_task("liga_relevance")
    edited = dataclasses.replace(task, correction_prompt=task.correction_prompt + "\nSorgfältig!")
    monkeypatch.setattr(label_stage, "load_task", lambda _: edited)
    assert stage.label().asked == 3


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


def test_the_context_holds_the_longest_item(stage: Labelling, engine: ScriptedEngine) -> None:
    stage.label(num_predict=1000)
    short = engine.asked[0]["options"]["num_ctx"]
    write_jsonl(stage.folder / "items.jsonl", [{"id": "long", "content": "Wort " * 1200}])
    stage.label(num_predict=1000)
    long = engine.asked[-1]["options"]["num_ctx"]
    assert short % 2048 == long % 2048 == 0
    assert long - short + 2048 >= 6000 / 2.5


def test_another_context_asks_nothing_again(stage: Labelling, engine: ScriptedEngine) -> None:
    stage.label(num_ctx=4096)
    assert stage.label(num_ctx=8192).cached == 3


_KILLED = """
import sys, time, threading
from pathlib import Path
from images.labeler import label as stage
from tests.unit.scripted_engine import ScriptedEngine
from serving.teachers import TeacherServer
from tests.unit.test_label import GOOD, Labelling
def script(messages, number):
    if number == 5:
        print("five", flush=True)
        time.sleep(60)
    return GOOD
double = TeacherServer(ScriptedEngine(script), "scripted", "teacher:latest")
stage.connect_teachers = lambda *_: [double]
Labelling(Path(sys.argv[1]), count=8).label()
"""


def test_rows_survive_a_sigkill(tmp_path: Path, engine: ScriptedEngine) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert child.stdout
    assert child.stdout.readline() == b"five\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    metrics = Labelling(tmp_path, count=8).label()
    assert (metrics.cached, metrics.asked) == (5, 3)
