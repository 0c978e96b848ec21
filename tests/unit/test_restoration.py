"""Items get back what they had before a reprocess, as far as the backend lets them be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from contracts import files
from contracts.errors import ReprocessFailed, RestoreFailed
from driver import __main__ as cli
from driver import restoration
from driver.adapters import backend_edits
from driver.adapters.backend import Backend
from driver.adapters.items import analysis_of, storage_of
from driver.host_stages import reanalysis
from driver.host_stages.reanalysis import Outcome
from driver.host_stages.record import Record
from driver.restoration import Standing
from tasks import load_task
from tests.services.ollama_double import OllamaDouble, good_answer
from tests.services.running_backend import RunningBackend
from tests.unit.reprocess_stage import OLD, ReprocessStage, Row, news

STORAGE = storage_of(load_task("liga_relevance"))
Make = Callable[..., tuple[ReprocessStage, RunningBackend]]
ALL = "summary detailed_analysis priority assigned_aks metadata is_manually_reviewed"
PATCH = {"ITEM_EDITS": "PATCH", "ITEM_EDIT_FIELDS": ALL}
PUT = {"ITEM_EDITS": "PUT", "ITEM_EDIT_FIELDS": f"title {ALL}"}


def _given_back(it: ReprocessStage) -> restoration.Restored:
    backend, record = Backend(it.backend_url), Record.find(it.root)
    found = restoration.differences(backend, STORAGE, record)
    return restoration.write_back(backend, STORAGE, record, found, backend_edits.find(backend))


def _standings(it: ReprocessStage) -> dict[str, Standing]:
    found = restoration.differences(Backend(it.backend_url), STORAGE, Record.find(it.root))
    return {each.item_id: each.standing for each in found}


def _answer(item: Row) -> Row:
    fields = ("summary", "detailed_analysis", "priority", "assigned_aks", "is_manually_reviewed")
    return {**{name: item[name] for name in fields}, "analysis": analysis_of(item, STORAGE)}


@pytest.mark.parametrize("way", [PATCH, PUT], ids=["PATCH", "PUT"])
def test_every_field_is_written_back_and_read(stage: Make, way: dict[str, str]) -> None:
    """Items that an edit would make reviewed ones stay unreviewed; PUT loses no other field."""
    it, service = stage([news(1, **OLD), news(2), news(3, **OLD, is_manually_reviewed=True)], **way)
    before = [_answer(service.get(f"/api/items/{i}")) for i in (1, 2, 3)]
    it.run()
    assert _standings(it) == {"1": Standing.DIFFERS, "2": Standing.DIFFERS, "3": Standing.SAME}
    restored = _given_back(it)
    assert restored == restoration.Restored(2, problems=(), not_written=())
    assert [_answer(service.get(f"/api/items/{i}")) for i in (1, 2, 3)] == before
    assert service.get("/api/items/1")["title"] == "Titel 1"
    assert set(_standings(it).values()) == {Standing.SAME}


def test_a_review_since_is_never_touched(stage: Make) -> None:
    it, service = stage([news(1, **OLD), news(2, **OLD)], **PATCH)
    it.run()
    requests.patch(f"{service.url}/api/items/1", json={"summary": "Von Hand."}, timeout=30)
    assert _standings(it) == {"1": Standing.REVIEWED, "2": Standing.DIFFERS}
    assert _given_back(it).items == 1
    assert service.get("/api/items/1")["summary"] == "Von Hand."


def test_only_what_the_reprocess_has_left_is_given_back(stage: Make, ollama: OllamaDouble) -> None:
    """Not what it has left out, nor what somebody has edited since without calling it a review."""
    rows = [news(number, **OLD) for number in (1, 2, 3)]
    rows[1]["is_manually_reviewed"] = True
    it, service = stage(rows, **PATCH)
    ollama.script = lambda message: "kein JSON" if "Titel 3" in message else good_answer()
    with pytest.raises(ReprocessFailed):
        it.run()
    for item_id in (1, 2):
        sent = {"summary": "Nachgetragen.", "is_manually_reviewed": False}
        requests.patch(f"{service.url}/api/items/{item_id}", json=sent, timeout=30)
    assert _standings(it) == {"1": Standing.CHANGED, "2": Standing.CHANGED, "3": Standing.DIFFERS}
    assert _given_back(it).items == 1  # the failed one, which had lost its answer
    shown = [service.get(f"/api/items/{item_id}")["summary"] for item_id in (1, 2, 3)]
    assert shown == ["Nachgetragen.", "Nachgetragen.", "Alt."]


def test_under_another_title_an_item_is_left_alone(stage: Make) -> None:
    """It may be another article under an id that was used again, with the same short answer."""
    way = {"ITEM_EDITS": "PATCH", "ITEM_EDIT_FIELDS": f"title {ALL}"}
    it, service = stage([news(1, **OLD), news(2, **OLD)], **way)
    it.run()
    retitled = {"title": "Ein anderer Artikel", "is_manually_reviewed": False}
    requests.patch(f"{service.url}/api/items/1", json=retitled, timeout=30)
    assert _standings(it) == {"1": Standing.GONE, "2": Standing.DIFFERS}
    assert _given_back(it).items == 1
    assert service.get("/api/items/1")["summary"] != "Alt."


def test_what_a_request_that_was_cut_off_has_brought_is_given_back(stage: Make) -> None:
    """A kill between the request and its outcome; nobody has gone on since."""
    it, service = stage([news(1, **OLD)], **PATCH)
    it.run()
    path = it.folder / "outcomes.jsonl"
    it.killed_behind([line for line in files.read_jsonl(path) if "until" in line])
    assert _given_back(it).items == 1
    assert service.get("/api/items/1")["summary"] == "Alt."


def test_what_only_a_verification_has_asked_about_is_given_back(stage: Make) -> None:
    """The reprocess was cut off before it came to that item."""
    it, service = stage([news(1, **OLD)], **PATCH)
    state = reanalysis.state_of(service.get("/api/items/1"), STORAGE)
    kept = {"1": state | {"id": "1", "title": "Titel 1"}}
    record = Record.of_model(it.root, "r", it.model, service.url)
    record.begin("r", it.model, service.url, kept, 1, canaries=["1"])
    seen = reanalysis.reprocess(Backend(service.url), STORAGE, {"id": "1"}, 10)
    assert seen.outcome is Outcome.PROCESSED
    (record.folder / "outcomes.jsonl").touch()
    assert _given_back(it).items == 1
    assert service.get("/api/items/1")["summary"] == "Alt."


def test_a_canary_that_a_later_model_has_answered_stays(stage: Make, ollama: OllamaDouble) -> None:
    """The verification has noted what it has left; what is there now is somebody else's."""
    it, service = stage([news(1, **OLD)], **PATCH)
    state = reanalysis.state_of(service.get("/api/items/1"), STORAGE)
    kept = {"1": state | {"id": "1", "title": "Titel 1"}}
    record = Record.of_model(it.root, "r", it.model, service.url)
    record.begin("r", it.model, service.url, kept, 1, canaries=["1"])
    first = reanalysis.reprocess(Backend(service.url), STORAGE, {"id": "1"}, 10)
    record.leave("1", first.answer)
    (record.folder / "outcomes.jsonl").touch()
    assert _standings(it) == {"1": Standing.DIFFERS}
    ollama.script = lambda _: good_answer(summary="Des nächsten Modells.", reasoning="Neu.")
    reanalysis.reprocess(Backend(service.url), STORAGE, {"id": "1"}, 10)
    assert _standings(it) == {"1": Standing.CHANGED}


def test_a_second_verification_is_given_back_too(stage: Make, ollama: OllamaDouble) -> None:
    """It has come behind what the reprocess has noted of the item."""
    it, service = stage([news(1, **OLD)], **PATCH)
    it.run()
    record = Record.find(it.root)
    ollama.script = lambda _: good_answer(summary="Noch einmal.", reasoning="Neu.")
    again = reanalysis.reprocess(Backend(service.url), STORAGE, {"id": "1"}, 10)
    record.leave("1", again.answer)
    assert _standings(it) == {"1": Standing.DIFFERS}


def test_a_change_between_the_look_and_the_write(stage: Make) -> None:
    """Somebody reviews one item, and another article takes the other's id: neither is written."""
    way = {"ITEM_EDITS": "PATCH", "ITEM_EDIT_FIELDS": f"title {ALL}"}
    it, service = stage([news(1, **OLD), news(2, **OLD)], **way)
    it.run()
    backend, record = Backend(it.backend_url), Record.find(it.root)
    found = restoration.differences(backend, STORAGE, record)
    hand, other = {"summary": "Von Hand."}, {"title": "Neu", "is_manually_reviewed": False}
    requests.patch(f"{service.url}/api/items/1", json=hand, timeout=30)
    requests.patch(f"{service.url}/api/items/2", json={**hand, **other}, timeout=30)
    restored = restoration.write_back(backend, STORAGE, record, found, backend_edits.find(backend))
    gone = f"item 2: {Standing.GONE}"
    assert restored.problems == ("item 1: reviewed by a person since", gone)
    assert {service.get(f"/api/items/{i}")["summary"] for i in (1, 2)} == {"Von Hand."}


def test_an_overwritten_review_comes_back_unless_it_was_reviewed_again(stage: Make) -> None:
    """With reprocess.reviewed: only where the item still holds what the reprocess left there."""
    rows = [news(number, **OLD, is_manually_reviewed=True) for number in (1, 2)]
    it, service = stage(rows, **PATCH)
    it.run(reviewed=True)
    requests.patch(f"{service.url}/api/items/2", json={"summary": "Noch einmal."}, timeout=30)
    assert _standings(it) == {"1": Standing.DIFFERS, "2": Standing.REVIEWED}
    _given_back(it)
    assert [service.get(f"/api/items/{i}")["summary"] for i in (1, 2)] == ["Alt.", "Noch einmal."]


def test_where_nothing_is_due_nothing_counts_as_undone(stage: Make) -> None:
    """Else the next reprocess would overwrite what somebody has edited since."""
    it, service = stage([news(1, **OLD)], **PATCH)
    it.run()
    by_hand = {"summary": "Von Hand.", "is_manually_reviewed": False}
    requests.patch(f"{service.url}/api/items/1", json=by_hand, timeout=30)
    assert _standings(it) == {"1": Standing.CHANGED}
    assert restoration.require(_given_back(it)) == "No item has anything to get back."
    it.run()
    assert service.get("/api/items/1")["summary"] == "Von Hand."


def test_an_edit_that_counts_as_a_review_ends_it_at_once(stage: Make) -> None:
    """Where it cannot be told otherwise: the first item says so, the second is left alone."""
    it, service = stage(
        [news(1, **OLD), news(2, **OLD)], ITEM_EDITS="PATCH", ITEM_EDIT_FIELDS="summary"
    )
    it.run()
    with pytest.raises(RestoreFailed, match="item 1 counts as reviewed now"):
        _given_back(it)
    assert service.get("/api/items/2")["summary"] != "Alt."


def test_what_cannot_be_written_is_named(stage: Make) -> None:
    it, service = stage(
        [news(1, **OLD)], ITEM_EDITS="PATCH", ITEM_EDIT_FIELDS="summary is_manually_reviewed"
    )
    it.run()
    restored = _given_back(it)
    assert "llm_analysis" in restored.not_written
    assert "priority" in restored.not_written
    assert service.get("/api/items/1")["summary"] == "Alt."
    assert service.get("/api/items/1")["priority"] == "high"


def test_after_it_a_reprocess_starts_from_the_first_item(stage: Make, ollama: OllamaDouble) -> None:
    """And keeps what the items have by then."""
    it, _ = stage([news(1, **OLD)], **PATCH)
    it.run()
    first = Record.find(it.root).folder
    _given_back(it)
    assert it.run().processed == 1
    assert len(ollama.asked) == 2
    assert Record.find(it.root).folder != first


# --- the command ---------------------------------------------------------------------------------
def _driver(it: ReprocessStage, *arguments: str) -> int:
    settings = it.root / "retrain.yaml"
    asked = {
        "snapshot": {"source": "backend"},
        "backend": {"url": it.backend_url, "container": "news"},
        "fetch": {"path": "base"},
    }
    files.write_json(settings, asked)  # YAML too
    return cli.main(["reprocess", "-c", str(settings), "-w", str(it.root), *arguments])


def test_without_yes_nothing_is_written(
    stage: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    it, service = stage([news(1, **OLD)], **PATCH)
    it.run()
    now = service.get("/api/items/1")
    assert _driver(it, "--restore", "r", "--out", str(tmp_path / "out.jsonl")) == 0
    assert service.get("/api/items/1") == now
    assert "Nothing was changed" in capsys.readouterr().out
    (line,) = files.read_jsonl(tmp_path / "out.jsonl")
    assert line["before"]["summary"] == "Alt."
    assert line["now"]["summary"] == now["summary"]
    assert _driver(it, "--restore", "--yes") == 0
    assert service.get("/api/items/1")["summary"] == "Alt."
    assert "1 items have what they had before, as read back." in capsys.readouterr().out


def test_another_backend_gets_nothing_unless_it_has_only_moved(
    stage: Make,
    start_backend: Callable[..., RunningBackend],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its items have the same ids and titles, and other answers."""
    it, service = stage([news(1, **OLD)], **PATCH)
    it.run()
    other = start_backend([news(1, **{**OLD, "summary": "Produktion."})], **PATCH)
    recorded, it.backend_url = it.backend_url, other.url
    assert _driver(it, "--restore", "--yes") == RestoreFailed.exit_code
    said = capsys.readouterr().err
    assert f"was of {recorded}, and not of {other.url}" in said
    assert "--backend-moved" in said
    assert other.get("/api/items/1")["summary"] == "Produktion."
    it.backend_url = recorded.replace("127.0.0.1", "127.1")
    assert _driver(it, "--restore", "--yes") == RestoreFailed.exit_code
    local = recorded.replace("127.0.0.1", "localhost")
    restoration.require_same_backend(Record.find(it.root), Backend(local), moved=False)
    assert _driver(it, "--restore", "--yes", "--backend-moved") == 0
    assert service.get("/api/items/1")["summary"] == "Alt."


def test_a_backend_without_a_way_is_told_plainly(
    stage: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Production's API, as far as it is known: what is to be given back goes into a file."""
    it, service = stage([news(1, **OLD)])
    it.run()
    out = tmp_path / "out.jsonl"
    code = _driver(it, "--restore", "--yes", "--out", str(out))
    assert code == RestoreFailed.exit_code
    said = capsys.readouterr()
    assert "has no way to write items" in said.out
    assert "lets no item be written" in said.err
    assert [line["id"] for line in files.read_jsonl(out)] == ["1"]
    assert service.get("/api/items/1")["summary"] != "Alt."


def test_a_run_without_a_reprocess_is_named(
    stage: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    it, _ = stage([news(1)])
    it.run()
    assert _driver(it, "--restore", "20250101-000000") != 0
    assert "no reprocess of run 20250101-000000" in capsys.readouterr().err


def test_status_counts_outcomes_by_reason_from_files_alone(
    stage: Make, ollama: OllamaDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    it, service = stage([news(1), news(2, **OLD, is_manually_reviewed=True), news(3)])
    ollama.script = lambda message: "kein JSON" if "Titel 3" in message else good_answer()
    with pytest.raises(ReprocessFailed, match="1 of 2 items failed"):
        it.run()
    service.kill()
    with (it.folder / "outcomes.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"half')
    content = (it.folder / "outcomes.jsonl").read_bytes()
    assert _driver(it, "--status") == 0
    said = capsys.readouterr().out
    assert "3 of 3 items, interrupted" in said
    assert "could not be read" in said
    assert "left_out" in said
    assert (it.folder / "outcomes.jsonl").read_bytes() == content


def test_status_without_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reprocess", "-w", str(tmp_path), "--status"]) == 0
    assert "no reprocess" in capsys.readouterr().out
