"""Doubles of the outside: the test backend in front of a double of Ollama, and of NVML."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.services.ollama_double import OllamaDouble
from tests.services.running_backend import BackendProcess, RunningBackend
from tests.unit.checkout import lay_out
from tests.unit.nvml_double import RecordedNvml, recording
from tests.unit.reprocess_stage import ReprocessStage

MODEL = "liga-relevance:latest"

B = TypeVar("B", bound=RunningBackend)


@pytest.fixture
def ollama() -> Iterator[OllamaDouble]:
    """Return a double of Ollama that has the deployed model."""
    double = OllamaDouble(MODEL)
    yield double
    double.close()


def _starter(kind: type[B], folder: Path, url: str) -> Iterator[Callable[..., B]]:
    started: list[B] = []

    def start(rows: Iterable[dict[str, Any]], **environment: str) -> B:
        own = folder / f"{kind.__name__}-{len(started)}"
        own.mkdir()
        service = kind(own, rows, **{"OLLAMA_URL": url, "OLLAMA_MODEL": MODEL, **environment})
        started.append(service)
        service.start()
        return service

    yield start
    for service in started:
        service.kill()


@pytest.fixture
def start_backend(tmp_path: Path, ollama: OllamaDouble) -> Iterator[Callable[..., RunningBackend]]:
    """Return a function (rows, **environment) that starts a backend; stopped at the end."""
    yield from _starter(RunningBackend, tmp_path, ollama.url)


@pytest.fixture
def start_process(tmp_path: Path, ollama: OllamaDouble) -> Iterator[Callable[..., BackendProcess]]:
    """Return the same for a process of its own, for tests that stop or kill it."""
    yield from _starter(BackendProcess, tmp_path, ollama.url)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], RecordedNvml]:
    """Return a function that puts a double with these answers in the place of nvidia-ml-py."""

    def put(answers: Any) -> RecordedNvml:
        double = RecordedNvml(recording(answers) if isinstance(answers, str) else answers)
        monkeypatch.setitem(sys.modules, "pynvml", double)
        return double

    return put


@pytest.fixture
def stage(
    tmp_path: Path, start_backend: Callable[..., RunningBackend]
) -> Callable[..., tuple[ReprocessStage, RunningBackend]]:
    """Return a function that starts a backend on rows, and the stage on the same rows."""

    def make(
        rows: list[dict[str, Any]], **environment: str
    ) -> tuple[ReprocessStage, RunningBackend]:
        service = start_backend(rows, **environment)
        return ReprocessStage(tmp_path, rows, service.url), service

    return make


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a small backend's checkout that agrees with the news task."""
    return lay_out(tmp_path / "backend checkout")
