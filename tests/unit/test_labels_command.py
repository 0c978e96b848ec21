"""`driver labels`: what is exported can be imported; foreign rows only if they keep the rules."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import InputMissing, ItemsInvalid
from contracts.files import ROOT
from contracts.label_cache import CACHE_FILE, Imported, LabelCache, imports_of
from contracts.params import LabelMetrics
from contracts.stage import Result
from contracts.stages import LABEL
from driver import labels
from driver.report.display import Display
from driver.session import Session
from driver.settings import Settings
from tasks import load_task
from tests.unit.labeler_stage import label, read_jsonl, write_jsonl

TASK = load_task("liga_relevance")
ITEM = {"id": "i1", "title": "Kürzung", "content": "Das Land kürzt Mittel."}
ATTEMPTS = [
    {
        "seed": 0,
        "text": "{}",
        "finished": True,
        "reason": "stop",
        "prompt_tokens": 1,
        "answer_tokens": 1,
        "seconds": 1,
    }
]


def fill(workspace: Path) -> None:
    with LabelCache(workspace / CACHE_FILE) as cache:
        cache.put("k1", ATTEMPTS)
        cache.put_imported([Imported("d1", json.dumps(label("high")), "old.jsonl, line 1")])


def test_a_cache_goes_out_and_into_another_workspace(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    assert labels.export(tmp_path / "a", tmp_path / "out.jsonl") == (2, 0)
    found = labels.take(tmp_path / "b", TASK, [tmp_path / "out.jsonl"])
    assert (found.taken, found.refused) == (2, {})
    labels.export(tmp_path / "b", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


@pytest.mark.parametrize("damage", ["'['", "'5'", "'[]'", "'[5]'", "x'ff00'", "5", "''"])
def test_damaged_rows_are_left_out_of_an_export(tmp_path: Path, damage: str) -> None:
    fill(tmp_path)
    with closing(sqlite3.connect(tmp_path / CACHE_FILE)) as database, database:
        database.execute(f"UPDATE answers SET attempts = {damage}")  # noqa: S608
        database.execute("UPDATE imported SET answer = x'ff'")
        database.execute("INSERT INTO imported VALUES ('d2', '{}', 'x')")
    assert labels.export(tmp_path, tmp_path / "out.jsonl") == (1, 2)
    assert [row["item"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["d2"]


def test_rows_tell_times_or_not(tmp_path: Path) -> None:
    timed = {**ATTEMPTS[0], "began_at": 1.5, "ended_at": None}
    write_jsonl(tmp_path / "in.jsonl", [{"key": "k1", "attempts": [timed, ATTEMPTS[0]]}])
    assert labels.take(tmp_path, TASK, [tmp_path / "in.jsonl"]).taken == 1


@pytest.mark.parametrize(
    "changed",
    [{"text": 5}, {"seconds": "1"}, {"seconds": float("nan")}, {"more": 1}, {"ended_at": "1"}],
)
def test_an_odd_exported_row_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    row = {"key": "k1", "attempts": [{**ATTEMPTS[0], **changed}]}
    write_jsonl(tmp_path / "odd.jsonl", [row])
    found = labels.take(tmp_path, TASK, [tmp_path / "odd.jsonl"])
    assert (found.taken, sum(found.refused.values())) == (0, 1)


def attempt(seed: int, text: str = "{}") -> dict[str, Any]:
    return {**ATTEMPTS[0], "seed": seed, "text": text}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([attempt(0, "other")], ATTEMPTS),
        ([attempt(0, "other"), attempt(1)], ATTEMPTS),
        ([attempt(0)], ATTEMPTS),
        ([attempt(0), attempt(1)], [attempt(0), attempt(1)]),
    ],
    ids=["another", "another and more", "the same", "goes on"],
)
def test_an_exported_row_never_undoes_what_is_here(
    tmp_path: Path, given: list[dict[str, Any]], kept: list[dict[str, Any]]
) -> None:
    fill(tmp_path)
    write_jsonl(tmp_path / "other.jsonl", [{"key": "k1", "attempts": given}])
    found = labels.take(tmp_path, TASK, [tmp_path / "other.jsonl"])
    assert (found.answers, found.known) == ((0, 1) if kept == ATTEMPTS else (1, 0))
    with LabelCache(tmp_path / CACHE_FILE) as cache:
        assert cache.attempts(["k1"]) == {"k1": kept}


def test_an_exported_row_mends_a_damaged_one(tmp_path: Path) -> None:
    with LabelCache(tmp_path / CACHE_FILE) as cache:
        cache.put("k1", [{"seed": 0}])
    write_jsonl(tmp_path / "in.jsonl", [{"key": "k1", "attempts": ATTEMPTS}])
    assert labels.take(tmp_path, TASK, [tmp_path / "in.jsonl"]).answers == 1


def test_an_import_counts_once(tmp_path: Path) -> None:
    assert imports_of(tmp_path) == 0
    write_jsonl(tmp_path / "old.jsonl", [{**ITEM, "label": label("high")}] * 2)
    first = labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    number = imports_of(tmp_path)
    assert number > 0
    second = labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert (first.rows, first.labels, first.known) == (2, 1, 1)
    assert (second.taken, second.known) == (0, 2)
    assert imports_of(tmp_path) == number
    write_jsonl(tmp_path / "old.jsonl", [{**ITEM, "label": label(None)}])
    labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert imports_of(tmp_path) > number


def exported(changed: Any = None) -> dict[str, Any]:
    digest = TASK.item_digest(TASK.item.model_validate(ITEM))
    return {"item": digest, "answer": json.dumps(label("high", **(changed or {}))), "source": "s"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({**ITEM, "label": label("high")}, {**ITEM, "label": label(None)}),
        ({**ITEM, "label": label("high")}, {**ITEM, "id": "i2", "label": label("low")}),
        ({**ITEM, "label": label(None)}, exported()),
        (exported({"tags": ["A"]}), exported({"tags": ["B"]})),
    ],
    ids=["one item", "one text under two ids", "foreign and exported", "exported"],
)
def test_different_labels_for_one_item_are_named_and_none_is_taken(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    other = {"id": "i9", "title": "Anderes", "content": "Etwas anderes.", "label": label(None)}
    write_jsonl(tmp_path / "a.jsonl", [other, first])
    write_jsonl(tmp_path / "b.jsonl", [second, first])
    found = labels.take(tmp_path, TASK, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert (found.rows, found.taken, found.known) == (4, 1, 0)
    assert found.refused == {"contradiction": 3}
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    places = f"{a}, line 2, {b}, line 1, {b}, line 2"
    assert found.examples == [f"{places}: different labels for one item; none is taken"]
    with LabelCache(tmp_path / CACHE_FILE) as cache:
        assert cache.imported([exported()["item"]]) == {}


def test_labels_that_say_the_same_are_no_contradiction(tmp_path: Path) -> None:
    shuffled = dict(reversed(label("high").items()))
    rows = [{**ITEM, "label": label("high")}, {**ITEM, "label": shuffled}, exported()]
    write_jsonl(tmp_path / "old.jsonl", rows)
    found = labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert (found.labels, found.known, found.refused) == (1, 2, {})


def test_many_contradictions_are_all_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    rows = [
        {"id": f"i{n}", "title": "Kürzung", "content": f"Fall {n}.", "label": label(priority)}
        for n in range(9)
        for priority in ("high", "medium", "low", None, "high")
    ]
    write_jsonl(tmp_path / "old.jsonl", rows)
    found = labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert (found.contradictions, found.refused) == (9, {"contradiction": 45})
    assert len(found.examples) == 5
    assert "line 4, …: different labels" in found.examples[0]


def test_an_import_is_known_where_a_commit_after_it_was_killed(tmp_path: Path) -> None:
    """A SIGKILL in the middle of one leaves the journal, by which the file is to be mended."""
    before, left = tmp_path / "before", tmp_path / "left"
    with LabelCache(before / CACHE_FILE) as cache:
        cache.put_imported([Imported("d", "{}", "old.jsonl")])
        cache._database.execute("PRAGMA cache_size=1")  # so that the file is written before the end
        cache._database.execute("BEGIN IMMEDIATE")
        cache._database.executemany(
            "INSERT INTO answers VALUES (?, ?)", [(str(n), "[]" * 500) for n in range(99)]
        )
        shutil.copytree(before, left)
        cache._database.rollback()
    assert (left / f"{CACHE_FILE}-journal").stat().st_size
    assert imports_of(left) == imports_of(before) > 0


def test_a_verdict_does_not_outlive_the_attempts_that_it_is_on(tmp_path: Path) -> None:
    with LabelCache(tmp_path / CACHE_FILE) as cache:
        cache.put("k", [{"damaged": True}])
        cache.put_verdicts("rules", [("k", [{"reasons": [], "violations": []}])])
        assert cache.put_exported([{"key": "k", "attempts": ATTEMPTS}]) == 1
        assert cache.verdicts(["k"], "rules") == {}


def test_the_label_stage_runs_again_after_an_import(tmp_path: Path) -> None:
    given = {"snapshot": {"items": ["x.jsonl"]}, "fetch": {"path": "base"}, "workspace": tmp_path}
    session = Session(Settings.model_validate(given), Display())

    def labelled(imports: int) -> Result:
        metrics = LabelMetrics(reviewed=0, cached=0, asked=1, quarantined=0, imports=imports)
        return Result(
            stage="label",
            fingerprint="f",
            outputs={},
            metrics=metrics.model_dump(),
            seconds=1,
            finished_at="2026-01-01",
        )

    assert session.still_true(LABEL, labelled(0)) == ""
    write_jsonl(tmp_path / "old.jsonl", [{**ITEM, "label": label("high")}])
    labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert session.still_true(LABEL, labelled(0)) == "labels have been imported since"
    now = imports_of(tmp_path)
    assert session.still_true(LABEL, labelled(now)) == ""
    (tmp_path / CACHE_FILE).unlink()  # a lost cache costs nothing as long as the labels are there
    assert session.still_true(LABEL, labelled(now)) == ""


def test_files_without_rows_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ItemsInvalid, match="holds no rows"):
        labels.take(tmp_path, TASK, [tmp_path / "empty.jsonl"])


@pytest.mark.parametrize(
    "row",
    [
        {**ITEM, "label": label("high")},
        {**ITEM, **label("high")},
        {"item": ITEM, "output": label("high")},
        {"article": ITEM, "answer": json.dumps(label("high"))},
    ],
    ids=["beside", "in one object", "nested", "as text"],
)
def test_a_foreign_row_is_taken_for_its_item(tmp_path: Path, row: dict[str, Any]) -> None:
    write_jsonl(tmp_path / "batch_01_labeled.jsonl", [row])
    assert labels.take(tmp_path, TASK, [tmp_path / "batch_01_labeled.jsonl"]).taken == 1
    item = TASK.item.model_validate(ITEM)
    with LabelCache(tmp_path / CACHE_FILE) as cache:
        (imported,) = cache.imported([TASK.item_digest(item)]).values()
    assert json.loads(imported.answer) == label("high")
    assert imported.source == "batch_01_labeled.jsonl, line 1"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({**ITEM, "label": label("critical")}, "format"),
        ({**ITEM, "label": None}, "no label"),
        ({**ITEM}, "no label"),
        ({**ITEM, "origin": "teacher", "attempts": ATTEMPTS, "failure": ""}, "no label"),
        (
            {**ITEM, "label": label("high", summary="Keine Zusammenfassung verfügbar.")},
            "placeholder",
        ),
        ({"id": "nobody", "label": label("high")}, "unknown item"),
        ({"key": "k", "attempts": "none"}, "format"),
        ({"key": "k", "attempts": []}, "format"),
        ({"item": "digest", "answer": "{}", "source": "s"}, "format"),
    ],
)
def test_a_row_that_is_no_label_is_refused_with_its_place(
    tmp_path: Path, row: dict[str, Any], kind: str
) -> None:
    write_jsonl(tmp_path / "old.jsonl", [row])
    found = labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert (found.taken, set(found.refused)) == (0, {kind})
    assert "old.jsonl, line 1: " in found.examples[0]


def test_a_broken_line_is_named_and_nothing_is_taken(tmp_path: Path) -> None:
    good = json.dumps({**ITEM, "label": label("high")})
    (tmp_path / "old.jsonl").write_text(f"{good}\n{{broken\n", encoding="utf-8")
    with pytest.raises(ItemsInvalid, match="line 2"):
        labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert not (tmp_path / CACHE_FILE).exists()


def test_the_commands_say_what_they_did(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "old.jsonl", [{**ITEM, "label": label("high")}, {**ITEM, "label": {}}])
    config = tmp_path / "settings.yaml"
    settings = {"snapshot": {"items": ["x.jsonl"]}, "fetch": {"path": "base"}}
    config.write_text(json.dumps(settings), encoding="utf-8")

    def driver(*arguments: str) -> str:
        command = [sys.executable, "-m", "driver", "labels", *arguments]
        command += ["-c", str(config), "-w", str(tmp_path / "w")]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    said = driver("import", str(tmp_path / "old.jsonl"))
    assert "2 rows: 1 labels and 0 answers of a teacher are new" in said
    assert "refused, no label: 1" in said
    assert "asked about up to label.max_attempts times" in said
    assert "known already: 1" in driver("import", str(tmp_path / "old.jsonl"))
    assert driver("export", str(tmp_path / "out.jsonl")).startswith("1 rows written")
    assert [row["source"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["old.jsonl, line 1"]


def test_an_export_of_nothing_leaves_an_earlier_one_as_it_is(tmp_path: Path) -> None:
    with LabelCache(tmp_path / CACHE_FILE):
        pass
    out = tmp_path / "labels.jsonl"
    out.write_text("an earlier export\n")
    with pytest.raises(InputMissing, match="keeps no labels"):
        labels.export(tmp_path, out)
    assert out.read_text() == "an earlier export\n"
