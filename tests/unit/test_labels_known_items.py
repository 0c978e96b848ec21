"""`driver labels import`: whose label a row is, among the items of the last snapshot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.entrypoint import StageContext, execute
from contracts.label_cache import CACHE_FILE, LabelCache
from contracts.params import SnapshotMetrics, SnapshotParams
from contracts.stages import ITEMS, REVIEWED, SNAPSHOT
from driver import labels
from driver.store import Store
from tasks import load_task
from tests.jobs import job_of
from tests.unit.labeler_stage import label, write_jsonl

TASK = load_task("liga_relevance")
LONG = {
    "id": "i5",
    "title": "Kürzung der Mittel",
    "content": "Das Land kürzt Mittel der Beratung. " * 4,
    "source": "dpa",
    "published_at": "2026-06-15T10:00:00",
}
CONTRADICTS = {"title": "Fußball", "content": "Der Verein gewinnt das Spiel am Abend. " * 3}


def snapshot(workspace: Path, *rows: dict[str, Any]) -> None:
    """Publish items as the snapshot stage does."""
    folder = workspace / "store" / SNAPSHOT.name / "f"
    job = job_of(SNAPSHOT)

    def work(context: StageContext[SnapshotParams]) -> SnapshotMetrics:
        items = files.write_jsonl(
            context.output(ITEMS),
            (TASK.item.model_validate(row).model_dump(mode="json") for row in rows),
        )
        files.write_jsonl(context.output(REVIEWED), [])
        return SnapshotMetrics(items=items, reviewed=0)

    Store(workspace).prepare(job)
    execute(SNAPSHOT, job, workspace, folder, work, lambda _: None)


@pytest.mark.parametrize(
    ("changed", "fits"),
    [
        ({}, True),
        ({"id": "other"}, True),
        ({"content": ""}, True),
        ({"content": LONG["content"][:60]}, True),
        ({"content": LONG["content"] + "\n"}, True),
        ({"published_at": "15.06.2026 10:00"}, True),
        ({"id": "other", "published_at": "15.06.2026 10:00"}, True),
        ({"content": LONG["content"][:60], "published_at": "15.06.2026", "source": "DPA"}, True),
        ({"id": None, "content": LONG["content"][:90] + "…", "published_at": "", "url": "x"}, True),
        ({"id": "other", "content": LONG["content"][:90] + " [...]", "source": "Agentur"}, True),
        (CONTRADICTS, False),
        ({"title": "Fußball", "content": ""}, False),
        ({"title": "Fußball", "id": "other", "content": LONG["content"][:90]}, False),
        ({"id": "other", "content": LONG["content"][90:]}, False),
    ],
)
def test_a_label_is_for_the_item_of_its_text_or_of_its_id(
    tmp_path: Path, changed: dict[str, Any], fits: bool
) -> None:
    """And what fits none is not passed off as taken."""
    snapshot(tmp_path, LONG, {**LONG, "id": "i6", "title": "Eine andere Meldung", "content": ""})
    write_jsonl(tmp_path / "old.jsonl", [{**LONG, **changed, "label": label(None)}])
    found = labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert (found.labels, found.strangers) == (1, {} if fits else {"no such text": 1})
    with LabelCache(tmp_path / CACHE_FILE) as cache:
        digest = TASK.item_digest(TASK.item.model_validate(LONG))
        assert bool(cache.imported([digest])) == fits
    other = ": i5 has another text" if changed.get("id", LONG["id"]) == LONG["id"] else ""
    place = f"{tmp_path / 'old.jsonl'}, line 1"
    assert found.examples == (
        [] if fits else [f"{place}: fits no item of the last snapshot{other}"]
    )


CUT = {**LONG, "id": "other", "content": LONG["content"][:90], "published_at": "15.06.2026"}
REPRINT = {**LONG, "id": "i6", "source": "epd", "published_at": "2026-06-16T10:00:00"}


def test_a_text_that_could_be_two_items_is_nobodys(tmp_path: Path) -> None:
    snapshot(tmp_path, LONG, REPRINT)
    write_jsonl(tmp_path / "old.jsonl", [{**CUT, "source": "Agentur", "label": label(None)}])
    found = labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert found.strangers == {"several items": 1}
    (example,) = found.examples
    assert example.endswith("line 1: its text is that of 2 items of the last snapshot: i5, i6")
    with LabelCache(tmp_path / CACHE_FILE) as cache:
        digests = [TASK.item_digest(TASK.item.model_validate(row)) for row in (LONG, REPRINT)]
        assert cache.imported(digests) == {}


@pytest.mark.parametrize("row", [LONG, REPRINT], ids=["the first", "the reprint"])
def test_what_else_a_row_gives_decides_between_items_of_one_text(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    snapshot(tmp_path, LONG, REPRINT)
    given = {**row, "id": None, "content": row["content"][:90], "published_at": ""}
    write_jsonl(tmp_path / "old.jsonl", [{**given, "label": label(None)}])
    assert labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"]).strangers == {}
    with LabelCache(tmp_path / CACHE_FILE) as cache:
        assert cache.imported([TASK.item_digest(TASK.item.model_validate(row))])


def test_a_short_text_without_an_id_of_ours_tells_nothing(tmp_path: Path) -> None:
    snapshot(tmp_path, LONG)
    row = {**CUT, "content": LONG["content"][:30], "label": label(None)}
    write_jsonl(tmp_path / "old.jsonl", [row] * 7)
    found = labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert found.strangers == {"text too short": 7}
    assert len(found.examples) == 5
    assert "too short to tell whether it is i5" in found.examples[0]


def test_an_exported_label_is_judged_with_its_item_where_that_is_there(tmp_path: Path) -> None:
    snapshot(tmp_path, LONG)
    digest = TASK.item_digest(TASK.item.model_validate(LONG))
    bad = json.dumps(label("high", summary="Keine Zusammenfassung verfügbar."))
    rows = [
        {"item": digest, "answer": bad, "source": "s"},
        {"item": "of another workspace", "answer": bad, "source": "s"},
    ]
    write_jsonl(tmp_path / "old.jsonl", rows)
    found = labels.take(tmp_path, TASK, [tmp_path / "old.jsonl"])
    assert (found.labels, found.strangers) == (1, {"no such text": 1})
    assert set(found.refused) == {"placeholder"}
