"""The snapshot stage: from files, and from the running test backend."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.entrypoint import StageContext, execute
from contracts.errors import BackendUnavailable, ItemsInvalid, SettingsInvalid
from contracts.label_cache import CACHE_FILE, LabelCache
from contracts.label_definition import LabelDefinition
from contracts.params import SnapshotParams
from contracts.stage import Result
from contracts.stages import SNAPSHOT
from driver.host_stages import snapshot
from tasks import load_task
from tests.jobs import job_of
from tests.services.ollama_double import good_answer
from tests.services.running_backend import RunningBackend
from tests.unit.edited_task import with_deadline

Row = dict[str, Any]
Start = Callable[..., RunningBackend]
TASK = "liga_relevance"
LABEL: Row = json.loads(good_answer())
_FAILED = "Automatische Analyse nicht verfügbar."


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Patterns are relative to the current directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _item(number: int, **changed: Any) -> Row:
    return {"id": f"a{number}", "title": f"Titel {number}", "content": "Inhalt", **changed}


def _write(path: Path, *rows: Row) -> Path:
    files.write_jsonl(path, rows)
    return path


def _run(
    tmp_path: Path, backend_url: str = "", **params: Any
) -> tuple[Result, list[Row], list[Row]]:
    job = job_of(SNAPSHOT, params)
    folder = tmp_path / "store" / "snapshot" / "f"

    def work(context: StageContext[SnapshotParams]) -> Any:
        return snapshot.work(context, backend_url)

    result = execute(SNAPSHOT, job, tmp_path, folder, work, lambda _: None)
    items, reviewed = (
        list(files.read_jsonl(folder / "out" / a.filename)) for a in SNAPSHOT.outputs
    )
    return result, items, reviewed


def _check(backend_url: str = "", **params: Any) -> Any:
    return snapshot.check(SnapshotParams(**params), TASK, Path("workspace"), backend_url)


# --- files ---------------------------------------------------------------------------------------
def test_files(tmp_path: Path, here: Path) -> None:
    """Sorted files, each once; canonical rows; unknown fields of the source are left behind."""
    _write(here / "b.jsonl", _item(3, extra=1))
    _write(here / "a.jsonl", _item(1, published_at=None), _item(2))
    _write(here / "seen.jsonl", {"id": "a2", "label": LABEL})
    result, items, reviewed = _run(tmp_path, items=["?.jsonl", "a.jsonl"], reviewed=["seen.jsonl"])
    assert [row["id"] for row in items] == ["a1", "a2", "a3"]
    assert list(items[0]) == list(load_task(TASK).item.model_fields)
    assert items[0]["published_at"] == ""
    assert reviewed == [{"id": "a2", "label": LABEL}]
    assert result.metrics == {"items": 3, "reviewed": 1, "unusable_reviews": 0}


def test_a_label_of_before_an_added_field_is_taken_as_it_is(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the workspace has labelled under the definition of then."""
    before = load_task(TASK)
    monkeypatch.setattr(snapshot, "load_task", lambda _: with_deadline(before))
    _write(here / "a.jsonl", _item(1))
    _write(here / "seen.jsonl", {"id": "a1", "label": LABEL})
    given: dict[str, Any] = {"items": ["a.jsonl"], "reviewed": ["seen.jsonl"]}
    with pytest.raises(ItemsInvalid, match="line 1 is no label"):
        _run(tmp_path, **given)
    with LabelCache(tmp_path / CACHE_FILE) as cache:
        cache.note_definition(LabelDefinition.of(before))
    result, _, [row] = _run(tmp_path, **given)
    assert (row["label"], row["unusable"]) == (LABEL, "deadline: Field required")
    assert result.metrics == {"items": 1, "reviewed": 0, "unusable_reviews": 1}
    _write(here / "seen.jsonl", {"id": "a1", "label": {"summary": "Ein Feld."}})
    with pytest.raises(ItemsInvalid, match="line 1 is no label"):
        _run(tmp_path, **given)


def test_check_writes_nothing(here: Path) -> None:
    _write(here / "a.jsonl", _item(1))
    before = sorted(here.parent.rglob("*"))
    assert _check(items=["a.jsonl"]).items == 1
    assert sorted(here.parent.rglob("*")) == before


def test_absolute_patterns(here: Path) -> None:
    assert _check(items=[str(_write(here / "a.jsonl", _item(1)).resolve())]).items == 1


def test_a_file_under_several_names_is_read_once(here: Path) -> None:
    _write(here / "in" / "a.jsonl", _item(1))
    (here / "link.jsonl").symlink_to("in/a.jsonl")
    (here / "folder").symlink_to("in")
    once = ["in/a.jsonl"]
    names = ["./in/a.jsonl", "in/../in/*.jsonl", "link.jsonl", "folder/a.jsonl", f"{here}/in/*"]
    assert _check(items=[*once, *names]).items == 1
    digests = {
        snapshot.source_digest(SnapshotParams(items=given), "liga_relevance", here)
        for given in (once, names)
    }
    assert len(digests) == 1
    _write(here / "seen.jsonl", {"id": "a1", "label": LABEL})
    assert _check(items=once, reviewed=["seen.jsonl", "in/../seen.jsonl"]).reviewed == 1


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path, here: Path) -> None:
    rows = [json.dumps(_item(number)) for number in range(2)]
    text = f"\ufeff\n{rows[0]}\r\n \t\r\n{rows[1]}\n\n\n"
    (here / "a.jsonl").write_text(text, encoding="utf-8", newline="")
    (here / "b.jsonl").write_text("\ufeff" + json.dumps(_item(2)), encoding="utf-8")
    _, items, _ = _run(tmp_path, items=["?.jsonl"])
    assert [row["id"] for row in items] == ["a0", "a1", "a2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n[1]\n", r"bad\.jsonl, line 2 is not a JSON object"),
        ('{"id": "x", "title": "t"}\n\ufeff{"id": "y"}', "line 2 is not JSON"),
        (" \r\n\n", "there are no items"),
        ('{"id": "x"', "line 1 is not JSON"),
        ('{"id": "x", "title": "", "content": null}\n', "neither title nor content"),
        ('{"title": "t"}\n', "line 1 is no item"),
        ('\n{"title": "t"}\n', "line 2 is no item"),
        ('{"id": "x", "title": "t"}\n{"id": "x", "title": "u"}\n', "line 2 has the id x a second"),
        ('{"id": "x", "title": "t", "id": "y"}\n', "line 1 is not JSON"),
        ("", "there are no items"),
    ],
)
def test_a_bad_file_is_named(here: Path, content: str, message: str) -> None:
    (here / "bad.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(ItemsInvalid, match=message):
        _check(items=["bad.jsonl"])


def test_a_file_that_is_no_text(here: Path) -> None:
    good = json.dumps(_item(1)).encode()
    (here / "bad.jsonl").write_bytes(good + b'\n{"id": "\xff"}\n')
    with pytest.raises(ItemsInvalid, match=r"bad\.jsonl, line 2 is not UTF-8"):
        _check(items=["bad.jsonl"])


def test_an_id_in_two_files(here: Path) -> None:
    _write(here / "a.jsonl", _item(1))
    _write(here / "b.jsonl", _item(2), _item(1))
    with pytest.raises(ItemsInvalid, match=r"b\.jsonl, line 2") as caught:
        _check(items=["*.jsonl"])
    assert "a.jsonl, line 1" in caught.value.why


def test_a_pattern_without_a_match(here: Path) -> None:
    _write(here / "a.jsonl", _item(1))
    with pytest.raises(ItemsInvalid, match="no file matches"):
        _check(items=["a.jsonl", "none*.jsonl"])
    with pytest.raises(ItemsInvalid, match="there are no items"):
        _check()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a9", "label": LABEL}, "unknown item a9"),
        ({"id": "a1"}, "line 1 is not"),
        ({"id": "a1", "label": {**LABEL, "priority": "critical"}}, "priority"),
        ({"id": "a1", "label": {**LABEL, "relevant": "true"}}, "relevant"),
        ({"id": "a1", "label": {"relevant": True}}, "summary"),
    ],
)
def test_a_bad_review_is_named(here: Path, row: Row, message: str) -> None:
    _write(here / "a.jsonl", _item(1))
    _write(here / "seen.jsonl", row)
    with pytest.raises(ItemsInvalid) as caught:
        _check(items=["a.jsonl"], reviewed=["seen.jsonl"])
    assert message in str(caught.value)
    assert "seen.jsonl, line 1" in caught.value.what


def test_an_item_reviewed_twice(here: Path) -> None:
    _write(here / "a.jsonl", _item(1))
    _write(here / "seen.jsonl", *[{"id": "a1", "label": LABEL}] * 2)
    with pytest.raises(ItemsInvalid, match="a second time"):
        _check(items=["a.jsonl"], reviewed=["seen.jsonl"])


def test_source_digest_follows_the_contents(here: Path) -> None:
    path = _write(here / "a.jsonl", _item(1))

    def digest(**params: Any) -> str:
        return snapshot.source_digest(SnapshotParams(**params), "liga_relevance", here)

    first = digest(items=["*.jsonl"])
    path = path.rename(here / "renamed.jsonl")
    assert digest(items=["*.jsonl"]) == first
    assert digest(items=["*.jsonl"], reviewed=["*.jsonl"]) != first
    _write(path, _item(1, content="Anderes"))
    assert digest(items=["*.jsonl"]) != first


# --- the backend ---------------------------------------------------------------------------------
def _news(number: int, **changed: Any) -> Row:
    return {
        "id": number,
        "title": f"Titel {number}",
        "content": "Inhalt",
        "source": "dpa",
        **changed,
    }


def test_backend(
    tmp_path: Path,
    start_backend: Start,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Input fields only; every review, and why one is no whole valid label."""
    failed = {**LABEL, "detailed_analysis": _FAILED}
    irrelevant = {**LABEL, **dict.fromkeys(("priority", "summary", "detailed_analysis"))}
    irrelevant |= {"relevant": False, "argumentationskette": [], "assigned_aks": []}
    texts = {name: LABEL[name] for name in ("summary", "detailed_analysis")}
    unknown = {**LABEL, "assigned_aks": ["AK1", "AK9"], "priority": "low"}
    service = start_backend(
        [
            _news(1, **LABEL, is_manually_reviewed=True),
            _news(2, **irrelevant, is_manually_reviewed=True, is_archived=True),
            _news(3, **LABEL),  # the model's own answer is no review
            _news(4, is_manually_reviewed=True),  # the default priority is no label
            _news(5, **failed, is_manually_reviewed=True),
            _news(6, title="", content=None),
            _news(7, **unknown, is_manually_reviewed=True),
            # The old texts stay in an item that was irrelevant when it was analysed again.
            _news(8, **{**irrelevant, **texts}, is_manually_reviewed=True),
            _news(9, **{**irrelevant, **texts, "priority": "high"}, is_manually_reviewed=True),
            _news(10, **{**irrelevant, "summary": _FAILED}, is_manually_reviewed=True),
        ]
    )
    result, items, reviewed = _run(tmp_path, service.url, source="backend")
    assert [row["id"] for row in items] == ["1", "2", "3", "4", "5", "7", "8", "9", "10"]
    assert items[0]["source"] == "dpa"
    assert set(items[0]) == set(load_task(TASK).item.model_fields)
    unusable = {row["id"]: row.pop("unusable") for row in reviewed if "unusable" in row}
    assert list(unusable) == ["4", "5", "7", "9", "10"]
    assert "relevant: Field required" in unusable["4"]
    assert "text of a failed analysis" in unusable["5"]
    assert "assigned_aks" in unusable["7"]
    assert "irrelevant with summary and detailed_analysis and priority" in unusable["9"]
    assert "text of a failed analysis" in unusable["10"]
    assert [row for row in reviewed if row["id"] not in unusable] == [
        {"id": "1", "label": LABEL},
        {"id": "2", "label": irrelevant},
        {"id": "8", "label": irrelevant},
    ]
    assert result.metrics == {"items": 9, "reviewed": 3, "unusable_reviews": 5}
    told = capsys.readouterr().err
    assert "1 items without a text" in told
    assert "5 reviewed items are no valid label, and go to the quarantine" in told
    assert "item 4" in told


def test_a_column_that_a_migration_left_empty_is_no_word_of_a_person() -> None:
    """Unless the analysis has the field: then it was asked for."""
    before = load_task(TASK)
    task, migrated = with_deadline(before), {**LABEL, "deadline": None}
    asked = {"metadata": {"llm_analysis": migrated}}
    news = [
        _news(1, **migrated, is_manually_reviewed=True),
        _news(2, **migrated, **asked, is_manually_reviewed=True),
        _news(3, **{**LABEL, "deadline": "2026-03-31"}, is_manually_reviewed=True),
    ]
    noted = [LabelDefinition.of(each) for each in (before, task)]
    lacking, *whole = snapshot._reviewed_there(task, news, noted)
    assert (lacking["label"], lacking["unusable"]) == (LABEL, "deadline: Field required")
    assert [row["label"]["deadline"] for row in whole] == [None, "2026-03-31"]
    assert not any("unusable" in row for row in whole)
    assert snapshot._reviewed_there(task, news[:1], noted[1:])[0]["label"] == migrated


def test_a_file_wins_over_the_backend(here: Path, tmp_path: Path, start_backend: Start) -> None:
    """A review that is no whole label included: that is how it is completed."""
    service = start_backend(
        [_news(1, **LABEL, is_manually_reviewed=True), _news(2, is_manually_reviewed=True)]
    )
    label = {**LABEL, "priority": "low"}
    _write(here / "seen.jsonl", {"id": 1, "label": label}, {"id": 2, "label": label})
    _, _, reviewed = _run(tmp_path, service.url, source="backend", reviewed=["seen.jsonl"])
    assert reviewed == [{"id": "1", "label": label}, {"id": "2", "label": label}]


def test_backend_digest_ignores_analyses(start_backend: Start, here: Path) -> None:
    """A reprocess run must not make the next run start from the beginning."""
    service = start_backend([_news(1), _news(2, **LABEL, is_manually_reviewed=True)])
    params = SnapshotParams(source="backend")
    first = snapshot.source_digest(params, "liga_relevance", here, service.url)
    service.post("/api/items/1/reprocess")
    deadline = time.monotonic() + 20
    while "llm_analysis" not in service.get("/api/items/1")["metadata"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert snapshot.source_digest(params, "liga_relevance", here, service.url) == first


def test_backend_that_is_not_there() -> None:
    with pytest.raises(SettingsInvalid, match="needs the backend's URL"):
        _check(source="backend")
    with pytest.raises(BackendUnavailable):
        _check("http://127.0.0.1:9", source="backend")
