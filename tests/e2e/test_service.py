"""The whole pipeline in containers, against a real engine, a real Ollama, and a running backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from pytest_docker.plugin import Services

from contracts import files
from contracts.errors import BackendUnavailable
from driver.adapters.backend import Backend
from serving import connect
from tests.docker.engine import docker
from tests.e2e.host import (
    ALIAS,
    TASK,
    TEACHER,
    Host,
    Labelled,
    choose_labelled,
    running_backend,
)
from tests.e2e.teacher import train_teacher

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def labelled() -> Labelled:
    return choose_labelled()


@pytest.fixture(scope="module")
def host(
    docker_services: Services,
    stage_images: dict[str, str],
    ollama_server: str,
    tiny_base: Path,
    labelled: Labelled,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Host]:
    """Return a host with a teacher in Ollama and a backend full of unlabelled items."""
    assert set(stage_images) == {"labeler", "trainer", "merger", "gguf"}
    folder = tmp_path_factory.mktemp("e2e")
    engine = connect({"OLLAMA_HOST": ollama_server}, folder)
    gguf = train_teacher(folder / "teacher", tiny_base, TASK, labelled)
    engine.create(TEACHER, gguf, TASK.modelfile())
    engine.close()
    with running_backend(folder, ollama_server, labelled) as (url, container):
        backend = Backend(url)
        backend.wait_healthy(timeout_s=60)
        yield Host(folder, tiny_base, ollama_server, backend, container)


def test_a_backend_that_asks_another_model_is_found_before_it_is_stopped(host: Host) -> None:
    started = docker("inspect", "--format={{.State.StartedAt}}", host.container)
    refused = host.driver("run", "deploy.name=another")
    assert refused.returncode == BackendUnavailable.exit_code, refused.stdout + refused.stderr
    assert f"the backend asks {ALIAS}:latest, not the deployed model another" in refused.stderr
    assert not (host.workspace / "runs").exists()
    assert docker("inspect", "--format={{.State.StartedAt}}", host.container) == started


@pytest.fixture(scope="module")
def finished(host: Host) -> Host:
    """Run the pipeline once."""
    done = host.driver("run")
    assert done.returncode == 0, done.stdout + done.stderr
    (host.folder / "stdout.txt").write_text(done.stdout, encoding="utf-8")
    return host


def test_the_backend_is_away_for_the_gpu_and_healthy_again(finished: Host) -> None:
    """The engine itself tells when the container was stopped and started."""
    state = json.loads(docker("inspect", finished.container))[0]["State"]
    assert state["Running"]
    assert finished.backend.healthy()
    stopped, started = (_time(state[key]) for key in ("FinishedAt", "StartedAt"))
    assert stopped < started
    train = finished.result("train")
    trained = datetime.fromisoformat(train.finished_at).timestamp()
    assert stopped < trained - train.seconds + 1, "it was stopped before the training began"
    assert trained <= started + 1, "it was started after the training ended"
    assert finished.result("restore").metrics["away_s"] > train.seconds
    assert not (finished.workspace / "window.json").exists()


def test_the_items_came_from_the_backend_and_the_labels_from_the_teacher(
    finished: Host, labelled: Labelled
) -> None:
    assert finished.result("snapshot").metrics == {
        "items": len(labelled),
        "reviewed": 0,
        "unusable_reviews": 0,
    }
    label = finished.result("label").metrics
    assert label["asked"] == len(labelled)
    rows = list(
        files.read_jsonl(finished.workspace / finished.result("label").outputs["labels"].path)
    )
    assert {row["origin"] for row in rows} == {"teacher"}
    assert {row["id"] for row in rows} <= {item.id for item, _ in labelled}
    for row in rows:
        assert TASK.parse(json.dumps(row["label"], ensure_ascii=False))


def test_the_next_request_of_the_backend_is_answered_by_the_new_model(finished: Host) -> None:
    """By digest in /api/ps, after an unload: names alone prove nothing about a shared runner."""
    deployed = finished.result("deploy").metrics
    engine = connect({"OLLAMA_HOST": finished.ollama}, finished.folder)
    for model in engine.loaded():
        engine.unload(model.tag)
    before = finished.backend.item("1")
    finished.backend.reprocess_item("1")
    for _ in range(300):
        running = requests.get(f"{finished.ollama}/api/ps", timeout=10).json()["models"]
        after = finished.backend.item("1")
        if after["metadata"] != before["metadata"]:
            break
    engine.close()
    assert [model["digest"] for model in running] == [deployed["digest"]]
    assert running[0]["name"] == f"{ALIAS}:latest"
    assert after["metadata"]["llm_analysis"]["model"] == f"{ALIAS}:latest"


def test_every_item_was_reprocessed(finished: Host, labelled: Labelled) -> None:
    metrics = finished.result("reprocess").metrics
    assert metrics["processed"] + metrics["failed"] == len(labelled)
    assert metrics["processed"] > 0


def test_no_stage_container_is_left(finished: Host) -> None:
    assert docker("ps", "--all", "--quiet", *_of(finished)) == ""


def test_nothing_is_done_twice(finished: Host) -> None:
    away = json.loads(docker("inspect", finished.container))[0]["State"]["StartedAt"]
    done = finished.driver("run")
    assert done.returncode == 0, done.stderr
    assert "Nothing has changed" in done.stdout
    assert json.loads(docker("inspect", finished.container))[0]["State"]["StartedAt"] == away


def test_a_stage_that_fails_brings_the_backend_back(finished: Host) -> None:
    """A row over the limit ends the training; the service must not notice more than the window."""
    done = finished.driver("run", "train.max_length=64")
    assert done.returncode == 25, done.stdout + done.stderr
    assert "max_length" in done.stderr
    assert finished.backend.healthy()
    assert not (finished.workspace / "window.json").exists()
    live = finished.result("deploy").metrics["digest"]
    tags = requests.get(f"{finished.ollama}/api/tags", timeout=10).json()["models"]
    assert {tag["name"]: tag["digest"] for tag in tags}[f"{ALIAS}:latest"] == live


def _of(host: Host) -> tuple[str, str]:
    return "--filter", f"label=retrain.workspace={host.workspace.resolve()}"


def _time(stamp: str) -> float:
    """Return Docker's time with nanoseconds in seconds since the epoch."""
    return datetime.fromisoformat(stamp[:26].rstrip("Z")).replace(tzinfo=UTC).timestamp()
