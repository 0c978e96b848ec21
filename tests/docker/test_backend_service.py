"""The test backend in a real engine: as a container that a driver stops and starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_docker.plugin import Services

from contracts import files
from driver.adapters.backend import Backend
from tests.services.ollama_double import OllamaDouble

pytestmark = pytest.mark.docker

CONTAINER = os.environ.get("BACKEND_CONTAINER", "retrain-test-backend")
IMAGE = "retrain-test/backend:local"
Run = Callable[..., tuple[str, Backend]]


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _state(container: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(_docker("inspect", container))[0]
    return state


@pytest.fixture
def run_backend(docker_services: Services) -> Iterator[Run]:
    """Return a function that starts a container of its own from the service's image.

    It shares the host's network, to reach a double of Ollama on the loopback.
    """
    started: list[str] = []

    def run(*options: str, **environment: str) -> tuple[str, Backend]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        variables = {"PORT": port, "HOST": "127.0.0.1", **environment}
        given = [part for item in variables.items() for part in ("--env", "=".join(item))]
        started.append(_docker("run", "--detach", "--network=host", *options, *given, IMAGE))
        return started[-1], Backend(f"http://127.0.0.1:{port}")

    yield run
    for container in started:
        _docker("rm", "--force", "--volumes", container)


def _backend(services: Services) -> Backend:
    """Return the adapter; a port that Docker picks is another one after each start."""
    assert services.port_for("backend", 8000)
    address = _docker("port", CONTAINER, "8000/tcp").splitlines()[0]
    return Backend(f"http://{address}")


def test_starts_seeded_and_comes_back(docker_services: Services) -> None:
    """Stop and start, as the service window does: the items stay, the exit is clean."""
    backend = _backend(docker_services)
    backend.wait_healthy(timeout_s=60)
    before = backend.items()
    assert len(before) > 300
    assert backend.admin_health().llm_available  # the real Ollama, by its name in the network
    _docker("stop", CONTAINER)
    assert not backend.healthy()
    assert _state(CONTAINER)["State"]["ExitCode"] == 0
    _docker("start", CONTAINER)
    backend = _backend(docker_services)
    backend.wait_healthy(timeout_s=60)
    assert backend.items() == before


def test_a_real_ollama_without_the_model(docker_services: Services) -> None:
    """Its 404 is called processed: the priority is gone, and no analysis is there."""
    backend = _backend(docker_services)
    backend.wait_healthy(timeout_s=60)
    assert backend.item("1")["priority"] == "low"
    backend.reprocess_item("1")
    deadline = time.monotonic() + 30
    while (item := backend.item("1"))["priority"] == "low":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert item["priority"] == "none"
    assert "llm_analysis" not in item["metadata"]


def test_crash_at_the_first_start(run_backend: Run) -> None:
    """It answers, exits with 3 and is restarted: only several answers in a row are healthy."""
    container, backend = run_backend("--restart=on-failure", CRASH_FIRST_STARTS="1")
    backend.wait_healthy(timeout_s=60, pause_s=0.5)
    assert _state(container)["RestartCount"] == 1


@pytest.mark.parametrize(
    ("stop_timeout_s", "exit_code"),
    [
        pytest.param("1", 137, id="killed"),
        pytest.param("20", 0, id="gives up before it is killed"),
    ],
)
def test_a_stop_loses_work(
    run_backend: Run, tmp_path: Path, stop_timeout_s: str, exit_code: int
) -> None:
    """Neither exit code says that anything was lost."""
    ollama = OllamaDouble()
    ollama.open.clear()
    seed = tmp_path / "seed.jsonl"
    files.write_jsonl(seed, [{"id": 1, "title": "Titel"}])
    container, backend = run_backend(
        f"--volume={seed}:/seed.jsonl:ro",
        OLLAMA_URL=ollama.url,
        SEED_FILE="/seed.jsonl",
        STOP_PATIENCE_S="3",
    )
    try:
        backend.wait_healthy(timeout_s=60, pause_s=0.2)
        assert [item["id"] for item in backend.items()] == [1]
        backend.reprocess_item("1")
        deadline = time.monotonic() + 30
        while not ollama.asked:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        _docker("stop", "--time", stop_timeout_s, container)
        assert _state(container)["State"]["ExitCode"] == exit_code
    finally:
        ollama.close()
    _docker("start", container)
    backend.wait_healthy(timeout_s=60, pause_s=0.2)
    assert "llm_analysis" not in backend.item("1")["metadata"]
