"""A host for faults: a real engine, a real Ollama, a running backend, and a run that is short.

Its base model knows the items already, so that a few steps of training are enough for a model that
goes live.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_docker.plugin import Services

from driver.adapters.backend import Backend
from serving import connect
from tests.e2e.host import TASK, TEACHER, Host, choose_labelled, running_backend
from tests.e2e.teacher import train_teacher
from tests.faults.machine import merged_model
from tests.faults.tally import TALLY, Tally


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash.setdefault(TALLY, Tally())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show what was survived, and how long the longest recovery took."""
    for number, line in enumerate(config.stash[TALLY].lines()):
        if not number:
            terminalreporter.section("faults")
        terminalreporter.write_line(line)


@pytest.fixture
def tally(pytestconfig: pytest.Config) -> Tally:
    """Return what counts the faults of this session."""
    return pytestconfig.stash[TALLY]


@pytest.fixture(scope="session")
def host(
    docker_services: Services,
    stage_images: dict[str, str],
    ollama_server: str,
    tiny_base: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Host]:
    """Return the host; nothing has been run on it yet."""
    assert set(stage_images) == {"labeler", "trainer", "merger", "gguf"}
    folder = tmp_path_factory.mktemp("faults")
    labelled = choose_labelled()
    engine = connect({"OLLAMA_HOST": ollama_server}, folder)
    engine.create(
        TEACHER, train_teacher(folder / "teacher", tiny_base, TASK, labelled), TASK.modelfile()
    )
    engine.close()
    with running_backend(folder, ollama_server, labelled) as (url, container):
        backend = Backend(url)
        backend.wait_healthy(timeout_s=60)
        yield Host(
            folder,
            merged_model(folder / "teacher"),
            ollama_server,
            backend,
            container,
            {
                # The base knows the items: which rows a split draws decides what is left to learn.
                "train": {"max_steps": 8, "eval_steps": 2, "min_loss_fall": 0},
                "retry": {"pause_s": 0.5},
            },
        )
