"""The test backend in front of a double of Ollama, for the tests of what talks to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.backend_process import BackendProcess
from tests.services.ollama_double import OllamaDouble

MODEL = "liga-relevance:latest"

StartBackend = Callable[..., BackendProcess]


@pytest.fixture
def ollama() -> Iterator[OllamaDouble]:
    """Return a double of Ollama that has the deployed model."""
    double = OllamaDouble(MODEL)
    yield double
    double.close()


@pytest.fixture
def start_backend(tmp_path: Path, ollama: OllamaDouble) -> Iterator[StartBackend]:
    """Return a function (rows, **environment) that starts a backend; killed at the end."""
    started: list[BackendProcess] = []

    def start(rows: Iterable[dict[str, Any]], **environment: str) -> BackendProcess:
        folder = tmp_path / f"backend-{len(started)}"
        folder.mkdir()
        settings = {"OLLAMA_URL": ollama.url, "OLLAMA_MODEL": MODEL, **environment}
        service = BackendProcess(folder, rows, **settings)
        started.append(service)
        service.start()
        return service

    yield start
    for service in started:
        service.kill()
