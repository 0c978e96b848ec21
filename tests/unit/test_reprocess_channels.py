"""A reprocess channel by channel, where one request loses nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import ReprocessFailed
from contracts.params import ReprocessMetrics
from driver.adapters.backend import Backend
from driver.host_stages.record import Record
from tests.services.ollama_double import OllamaDouble, good_answer
from tests.services.running_backend import BackendProcess, RunningBackend
from tests.unit.reprocess_stage import OLD, ReprocessStage, Row, news, titles

Make = Callable[..., tuple[ReprocessStage, RunningBackend]]
StartProcess = Callable[..., BackendProcess]


def _channels(rows: list[Row]) -> list[Row]:
    return [{**row, "source": f"Quelle {row['id'] % 3}"} for row in rows]


def test_a_channel_by_one_request(
    stage: Make, ollama: OllamaDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """One with a reviewed item goes item by item, and so does what fails in the bulk run."""
    rows = _channels([news(number, **OLD) for number in range(1, 13)])
    rows[0]["is_manually_reviewed"] = True
    it, service = stage(rows)
    failed: list[str] = []

    def once(message: str) -> str:
        if "Titel 2\n" in message and not failed:
            failed.append(message)
            return "kein JSON"
        return good_answer()

    ollama.script = once
    metrics = it.run(mode="channel")
    assert metrics == ReprocessMetrics(processed=11, failed=0, left_out=1)
    assert service.get("/api/items/1")["summary"] == "Alt."
    assert Counter(titles(ollama)) == Counter(
        {"Titel 2": 2, **{f"Titel {n}": 1 for n in range(3, 13)}}
    )
    said = capsys.readouterr().err
    assert "2 channels by one request each (8 items)" in said
    assert "1 channels item by item: reviewed items would be overwritten" in said


def test_a_channel_that_is_not_whole_goes_item_by_item(
    stage: Make, ollama: OllamaDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bulk call would take what this run does not know, or has done before."""
    rows = _channels([news(number, **OLD) for number in range(1, 7)])
    it, service = stage(rows)
    items = [{"id": str(row["id"]), "title": row["title"]} for row in rows]
    files.write_jsonl(it.root / "items.jsonl", items[:5])  # 6 is in the channel of 3
    ollama.script = lambda message: good_answer() if "Titel 1\n" in message else "kein JSON"
    with pytest.raises(ReprocessFailed):
        it.run()
    ollama.asked.clear()
    ollama.script = lambda _: good_answer()
    assert it.run(mode="channel").processed == 5
    assert sorted(titles(ollama)) == [f"Titel {number}" for number in range(2, 6)]
    assert service.get("/api/items/6")["summary"] == "Alt."
    said = capsys.readouterr().err
    assert "they hold items that this run does not know" in said
    assert "an earlier start has begun with them" in said


def _came_in(tmp_path: Path, number: int, *, like: int) -> None:
    """Let a reviewed item come into the channel of another one."""
    (file,) = tmp_path.rglob("backend.sqlite")
    with closing(sqlite3.connect(file)) as store, store:
        store.execute("CREATE TEMP TABLE came AS SELECT * FROM items WHERE id = ?", (like,))
        changed = (number, f"Titel {number}", f"http://x/{number}", "Von Hand.")
        store.execute(
            "UPDATE came SET id = ?, title = ?, url = ?, summary = ?, is_manually_reviewed = 1",
            changed,
        )
        store.execute("INSERT INTO items SELECT * FROM came")


def test_a_channel_is_looked_at_anew_right_before_its_request(
    stage: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The first may take an hour; who reviews an item that came in since is not overwritten."""
    it, service = stage(_channels([news(number, **OLD) for number in (1, 2)]))
    asked, real = [], Backend.reprocess_channel

    def first_then_more(self: Backend, channel_id: int) -> int:
        asked.append(channel_id)
        _came_in(tmp_path, 9, like=2)
        return real(self, channel_id)

    monkeypatch.setattr(Backend, "reprocess_channel", first_then_more)
    assert it.run(mode="channel", everything=True).processed == 2
    assert len(asked) == 1
    assert service.get("/api/items/9")["summary"] == "Von Hand."
    assert "goes item by item: it has changed meanwhile" in capsys.readouterr().err


def test_what_comes_in_with_the_request_itself_is_kept(
    stage: Make,
    ollama: OllamaDouble,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Nothing outside can keep the backend from it; but nothing is lost, and it is said."""
    it, service = stage([news(1, **OLD)])
    request, add, is_kept = Backend.reprocess_channel, Record.add, threading.Event()

    def with_another(self: Backend, channel_id: int) -> int:
        _came_in(tmp_path, 9, like=1)
        return request(self, channel_id)

    def kept_first(self: Record, now: dict[str, Row]) -> None:
        add(self, now)
        is_kept.set()

    monkeypatch.setattr(Backend, "reprocess_channel", with_another)
    monkeypatch.setattr(Record, "add", kept_first)
    ollama.script = lambda _: good_answer() if is_kept.wait(60) else "kein JSON"
    it.run(mode="channel")
    kept = Record.find(it.root).before()
    assert kept["9"]["summary"] == "Von Hand."
    assert service.get("/api/items/9")["summary"] != "Von Hand."
    said = capsys.readouterr().err
    assert "takes 2 items, 1 are known" in said
    assert "REVIEWED ITEMS ARE OVERWRITTEN: 9" in said


def test_without_a_listing_all_go_item_by_item(
    stage: Make, ollama: OllamaDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """One stored value that cannot be shown makes its whole page fail."""
    it, _ = stage([news(number, **OLD) for number in (1, 2)])
    ollama.script = lambda message: good_answer(
        assigned_aks="AK1" if "Titel 1\n" in message else ["AK1"]
    )
    with pytest.raises(ReprocessFailed):
        it.run(timeout_s=0.5)
    ollama.script = lambda _: good_answer()
    assert it.run(mode="channel").processed == 2
    assert "cannot list what is in its channels" in capsys.readouterr().err


def test_a_bulk_run_that_is_lost_is_done_item_by_item(
    tmp_path: Path, start_process: StartProcess, ollama: OllamaDouble
) -> None:
    """A backend that is killed loses the whole transaction."""
    rows = [news(number, **OLD) for number in range(1, 5)]
    service = start_process(rows)
    it = ReprocessStage(tmp_path, rows, service.url)
    killed = threading.Event()

    def kill_at_the_last(message: str) -> str:
        if "Titel 1\n" in message and not killed.is_set():
            killed.set()
            service.kill()
            threading.Thread(target=service.start).start()
        return good_answer()

    ollama.script = kill_at_the_last
    metrics = it.run(mode="channel", patience_s=30, timeout_s=2)
    assert metrics == ReprocessMetrics(processed=4, failed=0, left_out=0)
