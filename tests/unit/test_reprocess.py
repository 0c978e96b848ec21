"""The reprocess stage on the running test backend."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from contracts import files
from contracts.errors import BackendUnavailable, ReprocessFailed
from contracts.params import DeployParams, ReprocessMetrics
from contracts.stage import Stage
from contracts.stages import DEPLOY, REPROCESS, RESTORE
from driver import preflight
from driver.settings import BackendSettings, ComposeSettings
from tests.services.ollama_double import OllamaDouble, good_answer
from tests.services.running_backend import RunningBackend
from tests.unit.reprocess_stage import OLD, ReprocessStage, news, titles

Make = Callable[..., tuple[ReprocessStage, RunningBackend]]


def test_every_item_gets_the_new_answer(stage: Make) -> None:
    """Reviewed ones keep theirs; one that the backend does not have is no failure."""
    rows = [news(1), news(2, **OLD), news(3, **OLD, is_archived=True)]
    rows.append(news(4, **OLD, is_manually_reviewed=True))
    it, service = stage(rows)
    files.write_jsonl(
        it.root / "items.jsonl",
        [*({**row, "id": str(row["id"])} for row in rows), {"id": "liga-9", "title": "x"}],
    )
    metrics = it.run()
    assert metrics == ReprocessMetrics(processed=3, failed=0, left_out=1)
    assert [service.get(f"/api/items/{i}")["priority"] for i in (1, 2, 3, 4)] == [
        "high",
        "high",
        "high",
        "low",
    ]
    assert [row["outcome"] for row in it.outcomes()] == [
        "processed",
        "processed",
        "processed",
        "left_out",
        "not_there",
    ]
    assert [event.done for event in it.events] == [0, 1, 2, 3, 4, 5]


def test_another_article_under_the_id(stage: Make, ollama: OllamaDouble) -> None:
    """Items from files may carry the same numbers as the backend's own."""
    it, _ = stage([news(1)])
    files.write_jsonl(it.root / "items.jsonl", [{"id": "1", "title": "Ganz anderes"}])
    assert it.run() == ReprocessMetrics(processed=0, failed=0, left_out=0)
    assert ollama.asked == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (500, "still the old one"),  # Ollama fails
        ("Das weiß ich nicht.", "could not be read"),
        ('{"summary": "Das Land', "could not be read"),  # cut off
    ],
)
def test_a_hidden_failure_is_seen(
    stage: Make, ollama: OllamaDouble, said: str | int, reason: str
) -> None:
    """Each of these the backend calls processed, and the old summary stays."""
    it, service = stage([news(1, **OLD), news(2)])
    ollama.script = lambda message: said if "Titel 1" in message else good_answer()
    assert it.run(max_error_share=1) == ReprocessMetrics(processed=1, failed=1, left_out=0)
    assert service.get("/api/items/1")["summary"] == "Alt."
    failed = it.outcomes()[0]
    assert failed["outcome"] == "failed"
    assert reason in failed["reason"]


def test_an_error_on_a_new_item(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([news(1)])
    ollama.script = lambda _: 500
    with pytest.raises(ReprocessFailed, match="1 of 1 items failed") as caught:
        it.run()
    assert "no analysis is stored" in caught.value.why


def test_good_answers_in_odd_clothes(stage: Make, ollama: OllamaDouble) -> None:
    """Fences, text around it, one assigned_ak, an irrelevant article after a failed analysis."""
    fallback = {**OLD, "summary": "Automatische Analyse nicht verfügbar."}
    it, service = stage([news(1), news(2), news(3, **fallback)])
    single = json.loads(good_answer(assigned_ak="AK3"))
    del single["assigned_aks"]
    irrelevant = good_answer(None, relevant=False, summary=None, detailed_analysis=None)
    said = {
        "Titel 1": f"```json\n{good_answer()}\n```",
        "Titel 2": f"Gern: {json.dumps(single)} {{}}",
        "Titel 3": irrelevant,
    }
    ollama.script = lambda message: said[message.splitlines()[0].removeprefix("Titel: ")]
    assert it.run().processed == 3
    assert service.get("/api/items/2")["assigned_aks"] == ["AK3"]


def test_an_unreadable_item_is_mended(stage: Make, ollama: OllamaDouble) -> None:
    """`assigned_aks: "AK1"` makes the item's page a 500; a new analysis puts that right."""
    it, _ = stage([news(1)])
    ollama.script = lambda _: good_answer(assigned_aks="AK1")
    with pytest.raises(ReprocessFailed):
        it.run(timeout_s=1)
    ollama.script = lambda _: good_answer()
    assert it.run().processed == 1


def test_a_slow_item_fails(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([news(1), news(2)])
    ollama.open.clear()
    assert it.run(timeout_s=0.5, max_error_share=1).failed == 2
    assert "did not change within" in it.outcomes()[0]["reason"]


def test_stops_when_too_many_fail(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([news(number) for number in range(1, 16)])
    ollama.script = lambda _: "kein JSON"
    with pytest.raises(ReprocessFailed, match="10 of 10"):
        it.run()
    assert len(ollama.asked) == 10
    ollama.script = lambda _: good_answer()
    assert it.run().processed == 15  # the failed ones are tried again


def test_as_many_at_once_as_is_set(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([news(number) for number in range(1, 13)])
    most, now, lock = 0, 0, threading.Lock()

    def count(_: str) -> str:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.2)
        with lock:
            now -= 1
        return good_answer()

    ollama.script = count
    assert it.run(concurrency=3).processed == 12
    assert most == 3


def test_several_at_once_stop_when_too_many_fail(stage: Make, ollama: OllamaDouble) -> None:
    """No more than is under way is asked about after the limit."""
    it, _ = stage([news(number) for number in range(1, 31)])
    ollama.script = lambda _: "kein JSON"
    with pytest.raises(ReprocessFailed, match="10 of 10"):
        it.run(concurrency=4)
    assert len(ollama.asked) <= 10 + 4


def test_reviewed_items_only_if_that_is_set(stage: Make) -> None:
    it, service = stage([news(1, **OLD, is_manually_reviewed=True), news(2)])
    assert it.run() == ReprocessMetrics(processed=1, failed=0, left_out=1)
    assert it.run(reviewed=True) == ReprocessMetrics(processed=2, failed=0, left_out=0)
    assert service.get("/api/items/1")["priority"] == "high"


def test_a_review_while_the_analysis_is_under_way_is_told(
    stage: Make, ollama: OllamaDouble
) -> None:
    """The backend overwrites it, which nothing outside can keep it from."""
    it, service = stage(
        [news(1, **OLD)], ITEM_EDITS="PATCH", ITEM_EDIT_FIELDS="summary is_manually_reviewed"
    )

    def review(_: str) -> str:
        requests.patch(f"{service.url}/api/items/1", json={"summary": "Von Hand."}, timeout=30)
        return good_answer()

    ollama.script = review
    assert it.run() == ReprocessMetrics(processed=0, failed=0, left_out=1)
    assert "while its analysis was under way" in it.outcomes()[0]["reason"]


def test_what_has_come_in_since_the_snapshot(stage: Make, ollama: OllamaDouble) -> None:
    """Of a snapshot of this backend; an item without any text has nothing to analyse."""
    it, _ = stage([news(1), news(2), {"id": 3, "title": "", "content": ""}])
    files.write_jsonl(it.root / "items.jsonl", [{"id": "1", "title": "Titel 1"}])
    assert it.run().processed == 1
    assert it.run(everything=True).processed == 2
    assert titles(ollama) == ["Titel 1", "Titel 2"]


def test_the_backend_must_ask_the_deployed_model(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([news(1)], OLLAMA_MODEL="qwen3:14b")
    with pytest.raises(BackendUnavailable, match="asks qwen3:14b") as caught:
        it.run()
    assert "OLLAMA_MODEL=liga-relevance" in caught.value.todo
    assert ollama.asked == []


@pytest.mark.parametrize(
    ("environment", "running", "accepted"),
    [
        ({"OLLAMA_MODEL": "liga-relevance:latest"}, [RESTORE, REPROCESS], True),
        ({"OLLAMA_MODEL": "liga-relevance"}, [DEPLOY, RESTORE, REPROCESS], True),
        ({"OLLAMA_MODEL": "liga-relevance:latest"}, [REPROCESS], False),
        ({"OLLAMA_MODEL": "qwen3:14b"}, [RESTORE, REPROCESS], False),
        ({}, [RESTORE, REPROCESS], False),
    ],
)
def test_before_a_run_it_counts_whom_the_backend_will_ask(
    stage: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    running: list[Stage],
    *,
    accepted: bool,
) -> None:
    """A compose service is made anew by restore; the stage itself wants it to be so by then.

    What compose itself says is a double here: tests/docker/test_backend_containers.py asks it.
    """
    monkeypatch.setattr(
        "driver.service.model_asked_anew", lambda _: environment.get("OLLAMA_MODEL", "")
    )
    it, _ = stage([news(1)], OLLAMA_MODEL="qwen3:14b")
    compose = ComposeSettings(folder=tmp_path, service="backend", environment=environment)
    backend = BackendSettings(url=it.backend_url, compose=compose)
    session: Any = SimpleNamespace(
        settings=SimpleNamespace(backend=backend, deploy=DeployParams(name="liga-relevance")),
        backend_url=it.backend_url,
    )
    refused = pytest.raises(BackendUnavailable, match="asks qwen3:14b")
    with nullcontext() if accepted else refused:
        preflight.check_reprocess(session, running)
    with pytest.raises(BackendUnavailable, match="asks qwen3:14b"):
        it.run()


def test_analyses_that_are_switched_off(stage: Make) -> None:
    it, service = stage([news(1)], OLLAMA_MODEL="liga-relevance")  # without its tag
    service.post("/api/llm/disable")
    with pytest.raises(BackendUnavailable, match="switched off"):
        it.run()
    service.post("/api/llm/enable?auto_reprocess=false")
    assert it.run().processed == 1


def test_why_there_is_nothing_to_do(tmp_path: Path) -> None:
    without = ReprocessStage(tmp_path, [news(1)], "").run()
    assert without.summary() == "no backend, nothing to reprocess"
    off = ReprocessStage(tmp_path, [news(1)], "http://127.0.0.1:9").run(enabled=False)
    assert off.summary() == "reprocess.enabled=false leaves the items as they are"
