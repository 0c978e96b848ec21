"""The adapter against the running test backend."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from contracts.errors import BackendUnavailable
from driver.adapters.backend import Backend, ItemUnavailable
from tests.services.ollama_double import OllamaDouble, good_answer
from tests.services.running_backend import ROOT, BackendProcess, RunningBackend

Start = Callable[..., RunningBackend]
StartProcess = Callable[..., BackendProcess]


def _rows(count: int, **changed: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "title": f"Titel {number}",
            "content": f"Inhalt {number}",
            "source": f"Quelle {number % 3}",
            "published_at": f"2026-01-01T00:{number // 60:02}:{number % 60:02}",
            **changed,
        }
        for number in range(1, count + 1)
    ]


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_items_are_complete(start_backend: Start) -> None:
    """More than a page, archived, irrelevant and duplicate ones: every item, once, by id."""
    rows = _rows(230)
    for row in rows[:105]:
        row["is_archived"] = True
    for row in rows[200:]:
        row |= {"title": "Gleich", "priority": None}
    service = start_backend(rows)
    listed = Backend(service.url).items()
    assert [item["id"] for item in listed] == list(range(1, 231))
    assert [item["source"] for item in listed[:3]] == ["Quelle 1", "Quelle 2", "Quelle 0"]
    assert service.get("/api/items?page_size=100")["total"] < 230  # what the defaults hide


def test_no_part_of_the_items(start_backend: Start, ollama: OllamaDouble) -> None:
    """A row that breaks its page breaks the listing, with the page named."""
    ollama.script = lambda _: good_answer(assigned_aks="AK1")
    backend = Backend(start_backend(_rows(120)).url)
    backend.reprocess_item("1")  # the oldest: on page 2
    _wait(lambda: _unreadable(backend, "1"))
    with pytest.raises(BackendUnavailable, match="page=2") as caught:
        backend.items()
    assert "wrong type" in caught.value.todo


def _unreadable(backend: Backend, item_id: str) -> bool:
    try:
        backend.item(item_id)
    except ItemUnavailable as error:
        return not error.unknown
    return False


def test_a_listing_that_changes_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = iter([150, 151, 150, 150, 0, 150])
    asked: list[tuple[int, bool]] = []

    def page(self: Backend, number: int, *, archived: bool) -> tuple[list[dict[str, Any]], int]:
        asked.append((number, archived))
        ids = [] if archived else range(number * 100 - 99, min(number * 100, 150) + 1)
        row = {"content": "", "metadata": {}, "is_manually_reviewed": False}
        return [{"id": i, **row} for i in ids], next(totals)

    monkeypatch.setattr(Backend, "_page", page)
    assert len(Backend("http://backend").items()) == 150
    assert asked == [(1, False), (2, False), (1, False), (2, False), (1, True), (1, False)]


def test_a_listing_that_never_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = iter(range(101, 1000))

    def page(self: Backend, number: int, *, archived: bool) -> tuple[list[dict[str, Any]], int]:
        return [{"id": number}], next(totals)

    monkeypatch.setattr(Backend, "_page", page)
    with pytest.raises(BackendUnavailable, match="4 listings") as caught:
        Backend("http://backend").items()
    assert "on page 2" in caught.value.why


def test_one_item(start_backend: Start, ollama: OllamaDouble) -> None:
    service = start_backend(_rows(2))
    backend = Backend(service.url + "/")
    assert backend.item("2")["title"] == "Titel 2"
    for unknown in ("7", "liga-001", "../llm/status"):
        with pytest.raises(ItemUnavailable) as caught:
            backend.item(unknown)
        assert caught.value.unknown
    backend.reprocess_item("2")
    _wait(lambda: backend.item("2")["metadata"].get("llm_analysis"))
    assert ollama.user_messages() == [
        "Titel: Titel 2\nInhalt: Inhalt 2\nQuelle: Quelle 2\nDatum: 2026-01-01T00:00:02"
    ]
    with pytest.raises(ItemUnavailable):
        backend.reprocess_item("7")


def test_the_model_that_counts(start_backend: Start) -> None:
    service = start_backend(_rows(1), OLLAMA_MODEL="other")
    backend = Backend(service.url)
    assert _put(service, "liga-relevance") == 400  # an exact tag is wanted
    assert _put(service, "liga-relevance:latest") == 200
    assert backend.llm_model() == "liga-relevance:latest"
    assert backend.llm_status().model == "other"


@pytest.mark.parametrize("status", [401, 403])
def test_a_password_that_is_asked_for_is_set_in_the_address(status: int) -> None:
    """Of the address that a reprocess notes, nobody keeps it."""

    class Guarded(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Guarded) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        backend = Backend(f"http://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(BackendUnavailable) as asked:
                backend.admin_health()
            with pytest.raises(BackendUnavailable) as waited:
                backend.wait_healthy(timeout_s=0)
        finally:
            server.shutdown()
            thread.join()
    for caught in (asked, waited):
        assert "Set backend.url" in caught.value.todo
        assert "USER:PASSWORD@HOST" in caught.value.todo


def _put(service: RunningBackend, model: str) -> int:
    url = f"{service.url}/api/llm/model"
    return requests.put(url, json={"model": model}, timeout=10).status_code


def test_healthy(start_process: StartProcess) -> None:
    service = start_process(_rows(1))
    backend = Backend(service.url)
    backend.wait_healthy(timeout_s=10, pause_s=0.05)
    assert backend.admin_health().llm_enabled
    service.kill()
    assert not backend.healthy()
    with pytest.raises(BackendUnavailable, match="did not become healthy") as caught:
        backend.wait_healthy(timeout_s=0.2, pause_s=0.1)
    assert "does not answer" in caught.value.why


def test_one_good_answer_is_not_enough(start_process: StartProcess) -> None:
    """A service that answers and then exits, as at the first start on an empty database."""
    service = start_process(_rows(1), CRASH_FIRST_STARTS="1")
    backend = Backend(service.url)
    assert backend.healthy()
    with pytest.raises(BackendUnavailable):
        backend.wait_healthy(needed=3, timeout_s=3, pause_s=0.3)
    assert service.exit_code() == 3
    service.start()
    backend.wait_healthy(needed=3, timeout_s=10, pause_s=0.3)


def test_waits_for_a_slow_start(start_process: StartProcess) -> None:
    service = start_process(_rows(1))
    service.stop()
    service.start(wait=False, SLOW_START_S="1")
    Backend(service.url).wait_healthy(timeout_s=30, pause_s=0.1)


def test_something_else_answers(ollama: OllamaDouble) -> None:
    backend = Backend(ollama.url)
    for call in (backend.items, backend.llm_status, backend.sources):
        with pytest.raises(BackendUnavailable, match="does not answer as the backend"):
            call()
    assert not backend.healthy()


def test_a_server_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BackendUnavailable, match="does not answer") as caught:
            Backend(url, timeout_s=0.2).llm_status()
    assert "Timeout" in caught.value.why
    assert "backend.url" in caught.value.todo


def test_bulk_work_is_lost_when_stopped(start_process: StartProcess, ollama: OllamaDouble) -> None:
    """Why the driver waits for nothing and loses nothing: it never uses the bulk call."""
    service = start_process(_rows(3))
    gate = threading.Semaphore(2)

    def two_then_wait(_: str) -> str:
        gate.acquire(timeout=20)
        return good_answer()

    ollama.script = two_then_wait
    assert service.post("/api/items/reprocess?force=true")["count"] == 3
    _wait(lambda: len(ollama.asked) == 3)
    assert service.stop() == 0
    service.start()
    assert all("llm_analysis" not in service.get(f"/api/items/{i}")["metadata"] for i in (1, 2, 3))


def test_importing_is_cheap(tmp_path: Path) -> None:
    code = "import sys, driver.adapters.backend; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
