"""A reprocess that was stopped, or lost its backend or Ollama, goes on; and what it keeps."""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.errors import (
    BackendUnavailable,
    EngineUnavailable,
    FileUnusable,
    ReprocessFailed,
)
from contracts.params import ReprocessMetrics
from driver import __main__ as cli
from driver.adapters.items import storage_of
from driver.host_stages import reanalysis
from driver.host_stages.outcomes import Outcomes
from driver.host_stages.record import Record
from tasks import load_task
from tests.services.ollama_double import OllamaDouble, good_answer
from tests.services.running_backend import BackendProcess, RunningBackend
from tests.unit.conftest import MODEL
from tests.unit.reprocess_stage import OLD, ReprocessStage, news, titles
from tests.unit.verification_world import Killed

STORAGE = storage_of(load_task("liga_relevance"))
Make = Callable[..., tuple[ReprocessStage, RunningBackend]]
StartProcess = Callable[..., BackendProcess]


def test_goes_on_where_it_was_killed(stage: Make, ollama: OllamaDouble) -> None:
    """What is finished is left alone, also with a line that the kill has left half written."""
    it, _ = stage([news(number) for number in (1, 2, 3)])
    ollama.script = lambda message: good_answer() if "Titel 1" in message else "kein JSON"
    with pytest.raises(ReprocessFailed):
        it.run()
    with (it.folder / "outcomes.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"id": "2", "out')
    ollama.asked.clear()
    ollama.script = lambda _: good_answer()
    assert it.run().processed == 3
    assert titles(ollama) == ["Titel 2", "Titel 3"]


def test_a_finished_one_is_done_again_only_if_its_result_was_published(
    stage: Make, ollama: OllamaDouble
) -> None:
    """Killed between its last line and result.json, it has nothing left to do."""
    it, _ = stage([news(number) for number in (1, 2)])
    assert it.run().processed == 2
    assert it.run().processed == 2
    assert len(ollama.asked) == 2
    files.write_json(it.root / "stage" / "result.json", {})
    assert it.run().processed == 2
    assert len(ollama.asked) == 4


def test_one_that_is_due_again_begins_anew_through_any_kill(
    stage: Make, ollama: OllamaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without a published result; and at no moment it counts as finished meanwhile."""
    it, _ = stage([news(number) for number in (1, 2)])
    assert it.run().processed == 2
    record = Record.find(it.root)
    record.note_due("the backend has asked another")
    for left in itertools.count():
        with monkeypatch.context() as patched:
            writes = itertools.count()
            for name in ("replace", "touch"):
                killing = _killing(getattr(Path, name), writes, left)
                patched.setattr(Path, name, killing)
            with suppress(Killed):
                assert it.run().processed == 2
                break
        assert record.finish() is None or len(ollama.asked) == 4
    assert left >= 2
    assert titles(ollama)[2:] == ["Titel 1", "Titel 2"]


def _killing(real: Callable[..., Any], writes: Iterator[int], left: int) -> Callable[..., Any]:
    def write(*given: Any) -> Any:
        found = real(*given)
        if next(writes) == left:
            raise Killed
        return found

    return write


@pytest.mark.parametrize("answered", [True, False])
def test_an_open_request_is_looked_at_before_it_is_repeated(
    stage: Make, ollama: OllamaDouble, *, answered: bool
) -> None:
    """A kill between the request and the line on its outcome, with the analysis made or lost."""
    it, service = stage([news(1, **OLD), news(2, **OLD)])
    assert it.run().processed == 2
    lines = [json.loads(x) for x in (it.folder / "outcomes.jsonl").read_text().splitlines()]
    opened = next(line for line in lines if line["id"] == "1" and "until" in line)
    if not answered:
        opened |= {"before": reanalysis.state_of(service.get("/api/items/1"), STORAGE), "until": 0}
    done = [line for line in lines if line.get("id") == "2"]
    it.killed_behind([*done, opened])
    assert it.run().processed == 2
    assert titles(ollama)[2:] == ([] if answered else ["Titel 1"])


def test_a_late_answer_is_waited_for(stage: Make, ollama: OllamaDouble) -> None:
    """The driver was killed, the backend works on: its answer still comes."""
    it, _ = stage([news(1, **OLD)])
    ollama.open.clear()
    first = threading.Thread(target=it.run, daemon=True)
    first.start()
    while not ollama.asked:
        time.sleep(0.01)
    threading.Timer(0.5, ollama.open.set).start()
    assert it.run().processed == 1
    assert len(ollama.asked) == 1
    first.join()


def test_a_backend_that_goes_away(
    tmp_path: Path,
    start_process: StartProcess,
    ollama: OllamaDouble,
) -> None:
    """What is done stays done; the next start takes the rest."""
    rows = [news(number) for number in (1, 2, 3)]
    service = start_process(rows)
    it = ReprocessStage(tmp_path, rows, service.url)

    def kill_at_the_second(message: str) -> str:
        if "Titel 2" in message:
            threading.Thread(target=service.kill).start()
            return "kein JSON"
        return good_answer()

    ollama.script = kill_at_the_second
    with pytest.raises(BackendUnavailable):
        it.run(max_error_share=1, timeout_s=2)
    ollama.script = lambda _: good_answer()
    service.start()
    assert it.run().processed == 3
    assert sum("Titel 1" in message for message in ollama.user_messages()) == 1


def test_a_backend_that_comes_back_is_waited_for(
    tmp_path: Path, start_process: StartProcess, ollama: OllamaDouble
) -> None:
    """Nothing counts as failed, and what was under way is asked about again."""
    rows = [news(number) for number in range(1, 9)]
    service = start_process(rows)
    it = ReprocessStage(tmp_path, rows, service.url)
    restarted = threading.Event()

    def restart() -> None:
        service.kill()
        service.start()

    def kill_at_the_third(message: str) -> str:
        if "Titel 3" in message and not restarted.is_set():
            restarted.set()
            threading.Thread(target=restart).start()
            time.sleep(0.3)
        return good_answer()

    ollama.script = kill_at_the_third
    metrics = it.run(patience_s=30, timeout_s=3, concurrency=2)
    assert metrics == ReprocessMetrics(processed=8, failed=0, left_out=0)
    assert max(Counter(titles(ollama)).values()) <= 2


def test_ollama_that_comes_back_is_waited_for(stage: Make, ollama: OllamaDouble) -> None:
    """The backend calls it processed; it says itself that Ollama is not there."""
    it, service = stage([news(number, **OLD) for number in (1, 2, 3)])
    port = int(ollama.url.rpartition(":")[2])
    revived: list[OllamaDouble] = []
    ollama.close()
    threading.Timer(1, lambda: revived.append(OllamaDouble(MODEL, port=port))).start()
    try:
        assert it.run(patience_s=30) == ReprocessMetrics(processed=3, failed=0, left_out=0)
    finally:
        revived[0].close()
    assert service.get("/api/items/1")["priority"] == "high"


def test_ollama_that_stays_away_ends_it(stage: Make, ollama: OllamaDouble) -> None:
    """One clear message, no failed item, and it goes on from there."""
    it, _ = stage([news(number) for number in range(1, 20)])
    ollama.close()
    with pytest.raises(EngineUnavailable, match="has not reached Ollama") as caught:
        it.run(patience_s=0.2)
    assert "driver reprocess --status" in caught.value.todo
    assert it.outcomes() == []


def test_what_the_first_one_found_is_kept(stage: Make) -> None:
    """A second reprocess by the same model does not overwrite it; another model has its own."""
    it, service = stage([news(1, **OLD), news(2, **OLD)])
    it.run()
    first = Record.find(it.root)
    files.write_json(it.root / "stage" / "result.json", {})
    it.run()
    assert Record.every(it.root)[0].folder == first.folder
    assert {i: state["summary"] for i, state in first.before().items()} == {
        "1": "Alt.",
        "2": "Alt.",
    }
    it.model = "digest of another model"
    it.run()
    newest = Record.every(it.root)[0]
    assert newest.folder != first.folder
    assert newest.before()["1"]["summary"] == service.get("/api/items/1")["summary"] != "Alt."


def test_it_is_kept_before_the_first_request(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([news(1, **OLD), news(2, **OLD)])
    seen: list[int] = []

    def look(_: str) -> str:
        seen.append(len(Record.find(it.root).before()))
        return good_answer()

    ollama.script = look
    it.run()
    assert seen == [2, 2]


def test_what_a_verification_has_kept_stays(stage: Make) -> None:
    """It has had some items analysed before; one of a model that failed it is in nobody's way."""
    it, service = stage([news(1, **OLD), news(2, **OLD)])
    state = {
        **reanalysis.state_of(service.get("/api/items/1"), STORAGE),
        "id": "1",
        "title": "Titel 1",
    }
    early = Record.of_model(it.root, "r", it.model, service.url)
    early.begin("r", it.model, service.url, {"1": {**state, "summary": "Noch davor."}}, 1)
    it.run()
    failed = Record.of_model(it.root, "s", "digest of a model that failed", service.url)
    failed.begin("s", "digest of a model that failed", service.url, {"1": state}, 1)
    found = Record.find(it.root)
    assert {i: kept["summary"] for i, kept in found.before().items()} == {
        "1": "Noch davor.",
        "2": "Alt.",
    }
    assert found.about().items == 2
    assert Record.of_model(it.root, "t", it.model, service.url).folder == found.folder


# --- damaged records -----------------------------------------------------------------------------
@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Return the record of a reprocess of two items, with one of them done."""
    record, state = Record(tmp_path / "reprocess" / "r"), {"is_manually_reviewed": False}
    record.folder.mkdir(parents=True)
    record.begin("r", "m", "b", {i: {"id": i, "summary": "Alt.", **state} for i in "12"}, 2)
    files.write_jsonl(
        record.folder / "outcomes.jsonl", [{"id": "1", "outcome": "processed", "reason": ""}]
    )
    return record


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1]", "no JSON object but a list"),
        ("null", "no JSON object but a NoneType"),
        ('{"id": "1"}', "its outcome is None, not one of processed, "),
        ('{"id": "1", "outcome": "nonsense", "reason": ""}', "its outcome is 'nonsense'"),
        ('{"id": "1", "outcome": [1], "reason": ""}', "its outcome is [1]"),
        ('{"id": "1", "outcome": "failed"}', "gives no reason"),
        ('{"id": "1", "until": "x", "before": null}', "until when to wait"),
        ('{"id": "1", "until": 5}', "does not say what the item held"),
        ('{"outcome": "failed", "reason": ""}', "names no item"),
        ('{"id": "1", "outcome": "failed", "reason": "", "at": "x"}', "its time is no number"),
    ],
)
def test_a_line_that_nobody_wrote_is_named(record: Record, line: str, why: str) -> None:
    path = record.folder / "outcomes.jsonl"
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    for reader in (record.lines, record.answers, lambda: Outcomes(record.folder)):
        with pytest.raises(FileUnusable, match=r"outcomes.jsonl, line 2 is damaged") as caught:
            reader()
        assert why in caught.value.why
    assert cli.main(["reprocess", "--status", "-w", str(record.folder.parents[1])]) == 32


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "the former answers of 0 items, and held those of 2"),
        ('{"id": "1", "is_manually_reviewed": false}\n', "answers of 1 items, and held those of 2"),
        ('{"x": 1}\n', "before.jsonl, line 1 is damaged"),
        ("garbage\n", "before.jsonl, line 1 is not JSON"),
    ],
)
def test_new_answers_never_become_the_former_ones(record: Record, content: str, told: str) -> None:
    """A before.jsonl that has lost states is no empty one: neither gone on with nor given back."""
    path = record.folder / "before.jsonl"
    path.write_text(content, encoding="utf-8")
    now = {i: {"id": i, "summary": "Neu.", "is_manually_reviewed": False} for i in "12"}
    for reader in (record.before, lambda: record.begin("r", "m", "b", now, 2)):
        with pytest.raises(FileUnusable) as caught:
            reader()
        assert told in str(caught.value)
        assert str(record.folder) in caught.value.todo
    assert path.read_text(encoding="utf-8") == content


def test_what_is_done_no_longer_in_the_backend_is_told(
    stage: Make, ollama: OllamaDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An older state of its database has come between two starts: done is not done there."""
    it, _ = stage([news(number, **OLD) for number in (1, 2, 3)])
    ollama.script = lambda message: "kein JSON" if "Titel 3" in message else good_answer()
    with pytest.raises(ReprocessFailed):
        it.run()
    with closing(sqlite3.connect(next(tmp_path.rglob("backend.sqlite")))) as database, database:
        database.execute("UPDATE items SET summary = 'Alt.'")
    ollama.script = lambda _: good_answer()
    it.run()
    said = capsys.readouterr().err
    assert "2 of 2 items no longer hold the answers of this reprocess" in said
    assert f"move {it.folder} out of {it.folder.parent}" in said


@pytest.mark.parametrize(
    "left",
    [lambda _: b"", lambda c: b"\0" * len(c), lambda c: c[:-40]],
    ids=["empty", "NUL", "truncated"],
)
def test_a_finished_one_that_has_lost_its_end_is_no_interrupted_one(
    stage: Make, ollama: OllamaDouble, left: Callable[[bytes], bytes]
) -> None:
    """Empty, filled with NUL by a power cut, or cut off: what is missing cannot be given back."""
    it, _ = stage([news(1, **OLD)])
    it.run()
    path = it.folder / "outcomes.jsonl"
    path.write_bytes(lost := left(path.read_bytes()))
    record = Record.find(it.root)
    for reader in (record.lines, record.answers, it.run):
        with pytest.raises(FileUnusable, match=r"outcomes.jsonl is damaged"):
            reader()
    assert path.read_bytes() == lost
    assert len(ollama.asked) == 1


def test_a_folder_in_the_place_of_the_repetition_before_is_named(stage: Make) -> None:
    it, _ = stage([news(1)])
    it.run()
    (it.folder / "outcomes.previous.jsonl").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        Outcomes(it.folder, again=True)
    assert str(caught.value.filename) == str(it.folder / "outcomes.previous.jsonl")


def test_an_item_named_twice_is_asked_once(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([news(1), news(2)])
    path = it.root / "items.jsonl"
    files.write_jsonl(path, [*files.read_jsonl(path)] * 2)
    assert it.run().processed == 2
    assert titles(ollama) == ["Titel 1", "Titel 2"]
