"""One host for all tests of this folder, and the first run on it, which takes minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_docker.plugin import Services

from driver.adapters.backend import Backend
from serving import connect
from tests.e2e.host import ALIAS, TASK, TEACHER, Host, Labelled, choose_labelled, running_backend
from tests.e2e.teacher import train_teacher


@pytest.fixture(scope="package")
def labelled() -> Labelled:
    """Return the backend's items, and what the teacher knows about them."""
    return choose_labelled()


@pytest.fixture(scope="package")
def host(
    docker_services: Services,
    stage_images: dict[str, str],
    ollama_server: str,
    tiny_base: Path,
    labelled: Labelled,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Host]:
    """Return a host with a teacher in Ollama and a backend full of unlabelled items.

    Its models go at the end: the next host on this Ollama has none that is live.
    """
    assert set(stage_images) == {"labeler", "trainer", "merger", "gguf"}
    folder = tmp_path_factory.mktemp("e2e")
    engine = connect({"OLLAMA_HOST": ollama_server}, folder)
    engine.create(
        TEACHER, train_teacher(folder / "teacher", tiny_base, TASK, labelled), TASK.modelfile()
    )
    with running_backend(folder, ollama_server, labelled) as (url, container):
        backend = Backend(url)
        backend.wait_healthy(timeout_s=60)
        yield Host(folder, tiny_base, ollama_server, backend, container)
    for tag in engine.models():
        if tag.partition(":")[0] in {ALIAS, TEACHER}:
            engine.unload(tag)
            engine.delete(tag)
    engine.close()


@pytest.fixture(scope="package")
def finished(host: Host) -> Host:
    """Run the pipeline once: its model goes live where none was before."""
    done = host.driver("run")
    assert done.returncode == 0, done.stdout + done.stderr
    return host
