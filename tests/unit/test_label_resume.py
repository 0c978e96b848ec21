"""Labelling again: what is known is not asked, whatever ended the start before."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable
from contracts.files import ROOT
from contracts.label_cache import CACHE_FILE, Imported, LabelCache
from images.labeler import label as label_stage
from tasks import load_task
from tests.unit.labeler_stage import label, write_jsonl
from tests.unit.labelling import GOOD, PLACEHOLDER, Labelling, engine, items, stage
from tests.unit.scripted_engine import ScriptedEngine

__all__ = ["engine", "stage"]

TASK = load_task("liga_relevance")


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


def test_what_is_all_cached_needs_no_server(stage: Labelling, engine: ScriptedEngine) -> None:
    stage.label()
    engine.alive = False
    assert stage.label().cached == 3
    write_jsonl(stage.folder / "items.jsonl", items(4))
    with pytest.raises(EngineUnavailable, match="the engine is gone"):
        stage.label(patience_s=60)
    assert len(engine.asked) == 3


def test_items_with_the_same_text_are_asked_once(stage: Labelling, engine: ScriptedEngine) -> None:
    same = [{**items(1)[0], "id": f"copy{n}"} for n in range(3)]
    write_jsonl(stage.folder / "items.jsonl", same)
    assert stage.label().asked == 3
    assert len(engine.asked) == 1
    assert [row["id"] for row in stage.rows("labels")] == ["copy0", "copy1", "copy2"]


def test_an_imported_label_is_taken_and_a_bad_one_is_asked(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    digests = [TASK.item_digest(TASK.item.model_validate(row)) for row in items(2)]
    answers = (json.dumps(label(None)), PLACEHOLDER)
    with LabelCache(stage.folder / CACHE_FILE) as cache:
        cache.put_imported(
            Imported(digest, answer, "old") for digest, answer in zip(digests, answers, strict=True)
        )
    metrics = stage.label()
    assert (metrics.imported, metrics.asked) == (1, 2)
    assert [row["origin"] for row in stage.rows("labels")] == ["imported", "teacher", "teacher"]


@pytest.mark.parametrize("probed", [GOOD, PLACEHOLDER], ids=["well", "against a rule"])
def test_an_imported_label_is_the_witness_where_the_teacher_has_answered_nothing(
    stage: Labelling, engine: ScriptedEngine, probed: str
) -> None:
    """All but one are imported, and that one is refused: it is to blame, not the server."""
    engine.script = lambda messages, _: (
        EngineUnavailable("500: no") if "Fall 1." in messages[1]["content"] else probed
    )
    rows = [TASK.item.model_validate(row) for row in items(3)]
    with LabelCache(stage.folder / CACHE_FILE) as cache:
        cache.put_imported(Imported(TASK.item_digest(rows[n]), GOOD, "old") for n in (0, 2))
    metrics = stage.label(patience_s=9)
    assert (metrics.imported, metrics.asked, metrics.quarantined) == (2, 1, 1)
    assert stage.rows("quarantine")[0]["failure"] == "500: no"


@pytest.mark.parametrize("probed", ["", EngineUnavailable("500: no")], ids=["empty", "refuses"])
def test_an_imported_label_shows_a_server_that_answers_nothing(
    stage: Labelling, engine: ScriptedEngine, probed: str | EngineUnavailable
) -> None:
    engine.script = lambda messages, _: (
        EngineUnavailable("500: no") if "Fall 1." in messages[1]["content"] else probed
    )
    rows = [TASK.item.model_validate(row) for row in items(3)]
    with LabelCache(stage.folder / CACHE_FILE) as cache:
        cache.put_imported(Imported(TASK.item_digest(rows[n]), GOOD, "old") for n in (0, 2))
    with pytest.raises(EngineUnavailable):
        stage.label()


def test_what_is_there_already_is_told_while_it_is_judged(
    stage: Labelling, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules take minutes for what a hundred thousand imported rows say."""
    monkeypatch.setattr(label_stage, "_TELL_EVERY_S", 0)
    with LabelCache(stage.folder / CACHE_FILE) as cache:
        given = [TASK.item_digest(TASK.item.model_validate(row)) for row in items(3)]
        cache.put_imported(Imported(digest, GOOD, "old.jsonl") for digest in given)
    assert stage.label().imported == 3
    assert [each.done for each in stage.events] == [0, 0, 1, 2, 3]
    assert [each.metrics.get("known") for each in stage.events][2] == "1 of 3 looked at"
    write_jsonl(
        stage.folder / "reviewed.jsonl",
        [{"id": row["id"], "label": label("high")} for row in items(3)],
    )
    stage.events.clear()
    assert stage.label().reviewed == 3
    assert [each.done for each in stage.events] == [0, 1, 2, 3]


def test_an_imported_label_stands_for_a_text_that_is_reviewed_elsewhere(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    """The sample of the reviews that the teacher is asked for too must not ask for its twin."""
    rows = items(3)
    rows[1] = {**rows[0], "id": rows[1]["id"]}
    write_jsonl(stage.folder / "items.jsonl", rows)
    reviews = [{"id": rows[n]["id"], "label": label(None)} for n in (0, 2)]
    write_jsonl(stage.folder / "reviewed.jsonl", reviews)
    digests = [TASK.item_digest(TASK.item.model_validate(row)) for row in rows[1:]]
    with LabelCache(stage.folder / CACHE_FILE) as cache:
        cache.put_imported(Imported(each, json.dumps(label("low")), "old") for each in digests)
    for _ in range(2):
        metrics = stage.label(gold_sample=2)
        assert (metrics.reviewed, metrics.imported, metrics.asked) == (2, 1, 0)
        assert [row["label"]["priority"] for row in stage.rows("labels")] == [None, "low", None]
    (asked,) = engine.asked  # for the review whose text no other item has, and once only
    assert "Fall 2." in str(asked)
    report = json.loads((stage.out / "label_report.json").read_text())
    assert report["agreement"]["reviewed"]["rows"] == 1


def test_answers_of_an_earlier_version_count(stage: Labelling, engine: ScriptedEngine) -> None:
    stage.label()
    with closing(sqlite3.connect(stage.folder / CACHE_FILE)) as database, database:
        for key, text in database.execute("SELECT key, attempts FROM answers").fetchall():
            before = [{k: v for k, v in row.items() if k[-3:] != "_at"} for row in json.loads(text)]
            given = (json.dumps(before), key)
            database.execute("UPDATE answers SET attempts = ? WHERE key = ?", given)
    assert stage.label().asked == 0
    assert len(engine.asked) == 3
    cost = json.loads((stage.out / "label_report.json").read_text())["cost"]
    assert (cost["requests"], cost["untimed"], cost["elapsed_s"]) == (3, 3, 0)


def test_a_damaged_import_is_asked(stage: Labelling, engine: ScriptedEngine) -> None:
    digest = TASK.item_digest(TASK.item.model_validate(items(1)[0]))
    with LabelCache(stage.folder / CACHE_FILE):
        pass
    with closing(sqlite3.connect(stage.folder / CACHE_FILE)) as database, database:
        database.execute("INSERT INTO imported VALUES (?, x'ff', 'old')", (digest,))
    assert stage.label().asked == len(engine.asked) == 3


def test_rows_that_are_no_text_cost_what_is_in_them(
    stage: Labelling, engine: ScriptedEngine
) -> None:
    stage.label()
    with closing(sqlite3.connect(stage.folder / CACHE_FILE)) as database, database:
        (key,) = database.execute("SELECT key FROM answers LIMIT 1").fetchone()
        no_text = "SET {} = CAST(x'5bff5d' AS TEXT) WHERE key = ?"
        database.execute("UPDATE answers " + no_text.format("attempts"), (key,))
        database.execute("UPDATE verdicts " + no_text.format("verdicts"), (key,))
        database.execute("UPDATE teachers SET digest = CAST(x'ff' AS TEXT)")
        database.execute("INSERT INTO imported VALUES ('d', CAST(x'ff' AS TEXT), 'old')")
        database.execute("INSERT INTO answers VALUES (CAST(x'ff' AS TEXT), '[]')")
    with LabelCache(stage.folder / CACHE_FILE) as cache:
        assert (len(list(cache.export())), len(cache)) == (4, 7)  # two say what was asked under
    metrics = stage.label()
    assert (metrics.cached, metrics.asked, len(engine.asked)) == (2, 1, 4)


def test_an_import_mends_the_quarantine(stage: Labelling, engine: ScriptedEngine) -> None:
    engine.script = lambda messages, _: "{}" if "Fall 1." in messages[1]["content"] else GOOD
    assert stage.label(max_attempts=2).quarantined == 1
    digest = TASK.item_digest(TASK.item.model_validate(items(2)[1]))
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


def test_an_edited_correction_prompt_asks_again_who_was_told_the_old_one(
    stage: Labelling, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.script = lambda messages, _: (
        "{}" if "Fall 1." in messages[1]["content"] and len(messages) == 2 else GOOD
    )
    stage.label()
    edited = dataclasses.replace(TASK, correction_prompt=TASK.correction_prompt + "\nSorgfältig!")
    monkeypatch.setattr(label_stage, "load_task", lambda _: edited)
    metrics = stage.label()
    assert (metrics.cached, metrics.asked) == (2, 1)


def test_another_context_asks_nothing_again(stage: Labelling, engine: ScriptedEngine) -> None:
    stage.label(num_ctx=4096)
    assert stage.label(num_ctx=8192).cached == 3


_KILLED = """
import sys, time, threading
from pathlib import Path
from images.labeler import label as stage
from tests.unit.scripted_engine import ScriptedEngine
from serving.teachers import TeacherServer
from tests.unit.labelling import GOOD, Labelling
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
