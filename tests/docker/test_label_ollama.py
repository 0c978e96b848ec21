"""The label stage against a real Ollama that dies in the middle: no item is lost, none is twice.

The model is tiny and knows nothing, so that every answer ends in the quarantine: what is tested is
that each item gets there once. tests/e2e has a teacher whose answers pass.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable
from contracts.stage import Event
from contracts.stages import LABEL
from images.labeler import label as label_stage
from serving.ollama import Ollama
from tasks import load_task
from tests.docker.engine import docker
from tests.docker.stage_compose import ROOT
from tests.tiny_gguf import tiny_gguf
from tests.unit.labeler_stage import StageRun, read_jsonl, write_jsonl

__all__ = ["tiny_gguf"]

pytestmark = pytest.mark.docker

ITEMS = 120
DEAD_S = 2.0


class Server:
    """An Ollama in a container of its own, whose address stays the same over a restart."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        publish = f"127.0.0.1:{port}:11434"
        self._name = docker(
            *("run", "--detach", "--publish", publish, "--env", "OLLAMA_NUM_PARALLEL=2"), _image()
        )

    def kill(self) -> None:
        docker("kill", self._name)
        # In a thread of its own: the stage goes on meanwhile, and finds nobody.
        threading.Timer(DEAD_S, docker, ("start", self._name)).start()

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self._name)

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                Ollama(self.address).version()
            except EngineUnavailable:
                assert time.monotonic() < deadline, "Ollama did not start"
                time.sleep(0.1)
            else:
                return


def _image() -> str:
    """Return the image that tests/services/compose.yml names for Ollama."""
    compose = ["compose", "-f", str(ROOT / "tests/services/compose.yml")]
    return next(
        line
        for line in docker(*compose, "config", "--images").splitlines()
        if line == os.environ.get("OLLAMA_IMAGE", line) and "backend" not in line
    )


@pytest.fixture
def server(docker_engine: str, tiny_gguf: Path) -> Iterator[Server]:
    assert docker_engine
    server = Server()
    try:
        server.wait()
        modelfile = load_task("liga_relevance").modelfile()
        Ollama(server.address).create("teacher", tiny_gguf, modelfile)
        yield server
    finally:
        server.remove()


class DyingServer(list[Event]):
    """The stage's events; the server is killed at the one that says that 20 items are done."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.killed_at = 0.0
        self._server = server

    def append(self, event: Event) -> None:
        super().append(event)
        if not self.killed_at and (event.done or 0) >= 20:
            self.killed_at = event.done or 0
            self._server.kill()


def test_ollama_is_killed_in_the_middle(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.address)
    monkeypatch.delenv("RETRAIN_ENGINE", raising=False)
    monkeypatch.delenv("RETRAIN_TEACHERS", raising=False)
    stage = StageRun(LABEL, tmp_path)
    stage.events = events = DyingServer(server)
    ids = [f"i{n}" for n in range(ITEMS)]
    rows = [{"id": key, "title": key, "content": f"Das Land kürzt bei {key}."} for key in ids]
    write_jsonl(tmp_path / "items.jsonl", rows)
    write_jsonl(tmp_path / "reviewed.jsonl", [])
    params: dict[str, Any] = {"teacher": "teacher", "min_labelled": 0, "max_attempts": 1}

    params |= {"num_predict": 16, "num_ctx": 8192}

    metrics = stage.run(label_stage.work, **params, patience_s=60)

    assert 20 <= events.killed_at < ITEMS
    assert (metrics.asked, metrics.cached, metrics.quarantined) == (ITEMS, 0, ITEMS)
    assert [row["id"] for row in read_jsonl(stage.out / "quarantine.jsonl")] == ids
    assert all(
        [attempt["reason"] for attempt in row["attempts"]] == ["length"] and not row["failure"]
        for row in read_jsonl(stage.out / "quarantine.jsonl")
    )
    again = stage.run(label_stage.work, **params)
    assert (again.asked, again.cached) == (0, ITEMS)
