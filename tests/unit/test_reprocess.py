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

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import BackendUnavailable, ReprocessFailed
from contracts.params import (
    DeployParams,
    ReprocessMetrics,
    ReprocessParams,
)
from contracts.stage import Event, InputRef, Job, Stage
from contracts.stages import (
    DEPLOY,
    REPROCESS,
    RESTORE,
)
from driver import preflight
from driver.host_stages import reanalysis, reprocess
from driver.host_stages.record import Record
from driver.settings import BackendSettings, ComposeSettings
from tests.services.ollama_double import OllamaDouble, good_answer
from tests.services.running_backend import BackendProcess, RunningBackend

Row = dict[str, Any]
Start = Callable[..., RunningBackend]
StartProcess = Callable[..., BackendProcess]
OLD: Row = {**json.loads(good_answer("low")), "summary": "Alt.", "reasoning": "Alt."}


def _news(number: int, **changed: Any) -> Row:
    return {"id": number, "title": f"Titel {number}", "content": "Inhalt", **changed}


class _Stage:
    """The stage in a folder of its own, which survives from call to call."""

    def __init__(self, root: Path, rows: list[Row], backend_url: str) -> None:
        self.root = root
        self.backend_url = backend_url
        self.model = "digest of the model"
        files.write_jsonl(root / "items.jsonl", [{**row, "id": str(row["id"])} for row in rows])
        self.events: list[Event] = []

    def run(self, **params: Any) -> ReprocessMetrics:
        path = self.root / "items.jsonl"
        reference = InputRef(path=path.name, digest="", bytes=files.size_of(path))
        job = Job(
            stage="reprocess",
            run="r",
            fingerprint="f",
            code_digest="",
            environment="",
            task="liga_relevance",
            task_digest="",
            params={},
            inputs={"items": reference, "gguf": InputRef(path="", digest=self.model, bytes=0)},
        )
        known = {"timeout_s": 10, "concurrency": 1, "patience_s": 0}
        parsed = ReprocessParams(**{**known, **params})
        folder = self.root / "stage"
        return reprocess.work(
            StageContext(REPROCESS, job, parsed, self.root, folder, self.events.append),
            self.backend_url,
            "liga-relevance",
        )

    @property
    def folder(self) -> Path:
        return Record.find(self.root).folder

    def outcomes(self) -> list[Row]:
        return [line for line in Record.find(self.root).lines() if "outcome" in line]


@pytest.fixture
def stage(tmp_path: Path, start_backend: Start) -> Callable[..., tuple[_Stage, RunningBackend]]:
    """Return a function that starts a backend on rows, and the stage on the same rows."""

    def make(rows: list[Row], **environment: str) -> tuple[_Stage, RunningBackend]:
        service = start_backend(rows, **environment)
        return _Stage(tmp_path, rows, service.url), service

    return make


Make = Callable[..., tuple[_Stage, RunningBackend]]


def test_every_item_gets_the_new_answer(stage: Make) -> None:
    """Reviewed ones keep theirs; one that the backend does not have is no failure."""
    rows = [_news(1), _news(2, **OLD), _news(3, **OLD, is_archived=True)]
    rows.append(_news(4, **OLD, is_manually_reviewed=True))
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
    assert [event.done for event in it.events] == [0, 0, 1, 2, 3, 4, 5]


def test_another_article_under_the_id(stage: Make, ollama: OllamaDouble) -> None:
    """Items from files may carry the same numbers as the backend's own."""
    it, _ = stage([_news(1)])
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
    it, service = stage([_news(1, **OLD), _news(2)])
    ollama.script = lambda message: said if "Titel 1" in message else good_answer()
    assert it.run(max_error_share=1) == ReprocessMetrics(processed=1, failed=1, left_out=0)
    assert service.get("/api/items/1")["summary"] == "Alt."
    failed = it.outcomes()[0]
    assert failed["outcome"] == "failed"
    assert reason in failed["reason"]


def test_an_error_on_a_new_item(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([_news(1)])
    ollama.script = lambda _: 500
    with pytest.raises(ReprocessFailed, match="1 of 1 items failed") as caught:
        it.run()
    assert "no analysis is stored" in caught.value.why


def test_good_answers_in_odd_clothes(stage: Make, ollama: OllamaDouble) -> None:
    """Fences, text around it, one assigned_ak, an irrelevant article after a failed analysis."""
    fallback = {**OLD, "summary": "Automatische Analyse nicht verfügbar."}
    it, service = stage([_news(1), _news(2), _news(3, **fallback)])
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
    it, _ = stage([_news(1)])
    ollama.script = lambda _: good_answer(assigned_aks="AK1")
    with pytest.raises(ReprocessFailed):
        it.run(timeout_s=1)
    ollama.script = lambda _: good_answer()
    assert it.run().processed == 1


def test_a_slow_item_fails(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([_news(1), _news(2)])
    ollama.open.clear()
    assert it.run(timeout_s=0.5, max_error_share=1).failed == 2
    assert "did not change within" in it.outcomes()[0]["reason"]


def test_stops_when_too_many_fail(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([_news(number) for number in range(1, 16)])
    ollama.script = lambda _: "kein JSON"
    with pytest.raises(ReprocessFailed, match="10 of 10"):
        it.run()
    assert len(ollama.asked) == 10
    ollama.script = lambda _: good_answer()
    assert it.run().processed == 15  # the failed ones are tried again


def _titles(ollama: OllamaDouble) -> list[str]:
    return [message.splitlines()[0].removeprefix("Titel: ") for message in ollama.user_messages()]


def test_goes_on_where_it_was_killed(stage: Make, ollama: OllamaDouble) -> None:
    """What is finished is left alone, also with a line that the kill has left half written."""
    it, _ = stage([_news(number) for number in (1, 2, 3)])
    ollama.script = lambda message: good_answer() if "Titel 1" in message else "kein JSON"
    with pytest.raises(ReprocessFailed):
        it.run()
    with (it.folder / "outcomes.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"id": "2", "out')
    ollama.asked.clear()
    ollama.script = lambda _: good_answer()
    assert it.run().processed == 3
    assert _titles(ollama) == ["Titel 2", "Titel 3"]


def test_a_finished_one_is_done_again_only_if_its_result_was_published(
    stage: Make, ollama: OllamaDouble
) -> None:
    """Killed between its last line and result.json, it has nothing left to do."""
    it, _ = stage([_news(number) for number in (1, 2)])
    assert it.run().processed == 2
    assert it.run().processed == 2
    assert len(ollama.asked) == 2
    files.write_json(it.root / "stage" / "result.json", {})
    assert it.run().processed == 2
    assert len(ollama.asked) == 4


@pytest.mark.parametrize("answered", [True, False])
def test_an_open_request_is_looked_at_before_it_is_repeated(
    stage: Make, ollama: OllamaDouble, *, answered: bool
) -> None:
    """A kill between the request and the line on its outcome, with the analysis made or lost."""
    it, service = stage([_news(1, **OLD), _news(2, **OLD)])
    assert it.run().processed == 2
    lines = [json.loads(x) for x in (it.folder / "outcomes.jsonl").read_text().splitlines()]
    opened = next(line for line in lines if line["id"] == "1" and "until" in line)
    if not answered:
        opened |= {"before": reanalysis.state_of(service.get("/api/items/1")), "until": 0}
    done = [line for line in lines if line.get("id") == "2"]
    files.write_jsonl(it.folder / "outcomes.jsonl", [*done, opened])
    assert it.run().processed == 2
    assert _titles(ollama)[2:] == ([] if answered else ["Titel 1"])


def test_a_late_answer_is_waited_for(stage: Make, ollama: OllamaDouble) -> None:
    """The driver was killed, the backend works on: its answer still comes."""
    it, _ = stage([_news(1, **OLD)])
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
    rows = [_news(number) for number in (1, 2, 3)]
    service = start_process(rows)
    it = _Stage(tmp_path, rows, service.url)

    def kill_at_the_second(message: str) -> str:
        if "Titel 2" in message:
            threading.Thread(target=service.kill).start()
            return "kein JSON"
        return good_answer()

    ollama.script = kill_at_the_second
    with pytest.raises(BackendUnavailable):
        it.run(max_error_share=1)
    ollama.script = lambda _: good_answer()
    service.start()
    assert it.run().processed == 3
    assert sum("Titel 1" in message for message in ollama.user_messages()) == 1


def test_the_backend_must_ask_the_deployed_model(stage: Make, ollama: OllamaDouble) -> None:
    it, _ = stage([_news(1)], OLLAMA_MODEL="qwen3:14b")
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
    environment: dict[str, str],
    running: list[Stage],
    *,
    accepted: bool,
) -> None:
    """A compose service is made anew by restore; the stage itself wants it to be so by then."""
    it, _ = stage([_news(1)], OLLAMA_MODEL="qwen3:14b")
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
    it, service = stage([_news(1)], OLLAMA_MODEL="liga-relevance")  # without its tag
    service.post("/api/llm/disable")
    with pytest.raises(BackendUnavailable, match="switched off"):
        it.run()
    service.post("/api/llm/enable?auto_reprocess=false")
    assert it.run().processed == 1


def test_nothing_to_do(tmp_path: Path) -> None:
    nothing = ReprocessMetrics(processed=0, failed=0, left_out=0)
    assert _Stage(tmp_path, [_news(1)], "").run() == nothing
    assert _Stage(tmp_path, [_news(1)], "http://127.0.0.1:9").run(enabled=False) == nothing
