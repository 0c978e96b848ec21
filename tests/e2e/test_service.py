"""The whole pipeline in containers, against a real engine, a real Ollama, and a running backend."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_docker.plugin import Services

from contracts import files
from contracts.errors import BackendUnavailable
from contracts.stage import Result
from driver.adapters.backend import Backend
from driver.store import Store
from serving import connect
from tasks import load_task
from tests.e2e.teacher import train_teacher

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SAMPLE = files.ROOT / "examples/liga-sample"
TASK = load_task("liga_relevance")
ALIAS = "e2e-relevance"
TEACHER = "e2e-teacher"
CONTAINER = "retrain-e2e-backend"
IMAGE = "retrain-test/backend:local"
IRRELEVANT, RELEVANT = 20, 4


@dataclass(frozen=True)
class Host:
    """A GPU host without the GPU: everything else on it is real."""

    folder: Path
    base: Path
    ollama: str
    backend: Backend

    def settings(self) -> dict[str, Any]:
        """Return settings as of production, but for the sizes and the device."""
        return {
            "workspace": str(self.folder / "workspace"),
            "runner": "docker",
            "engine": "ollama",
            "backend": {"url": self.backend.url, "container": CONTAINER, "stop_timeout_s": 20},
            "snapshot": {"source": "backend"},
            "fetch": {"path": str(self.base)},
            "label": {
                "teacher": TEACHER,
                "num_predict": 600,
                "max_attempts": 2,
                "min_labelled": 0.5,
            },
            "split": {"validation": 0.2, "test": 0.2},
            "train": {
                "backend": "transformers",
                "device": "cpu",
                "load_in": "fp32",
                "rank": 32,
                "alpha": 32,
                "learning_rate": 5e-3,
                "max_steps": 70,
                "micro_batch_size": 4,
                "eval_steps": 35,
            },
            "evaluate": {"limit": 2, "min_valid": 0},
            "deploy": {"name": ALIAS},
            "reprocess": {"max_error_share": 1.0},
            "verify": {"constrained": True},
        }

    def driver(self, command: str, *overrides: str) -> subprocess.CompletedProcess[str]:
        """Call `python -m driver` as a user does."""
        file = self.folder / "settings.yaml"
        file.write_text(json.dumps(self.settings()), encoding="utf-8")
        arguments = [sys.executable, "-m", "driver", command, "-c", str(file)]
        return subprocess.run(
            [*arguments, *(f"--set={each}" for each in overrides)],
            cwd=files.ROOT,
            env={**os.environ, "OLLAMA_HOST": self.ollama},
            capture_output=True,
            text=True,
            check=False,
        )

    def result(self, stage: str) -> Result:
        """Return a stage's newest result."""
        found = Store(self.folder / "workspace").latest(stage)
        assert found is not None, stage
        return found[1]


def docker(*arguments: str) -> str:
    """Call the engine's own client, so that the driver is not checked by its own code."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def labelled() -> list[tuple[Any, Any]]:
    """Return short items of the sample and what the teacher is to know about them."""
    items = {row["id"]: row for row in files.read_jsonl(SAMPLE / "items.jsonl")}
    wanted = {True: RELEVANT, False: IRRELEVANT}
    chosen = []
    titles = set()
    for row in files.read_jsonl(SAMPLE / "labels.jsonl"):
        relevant, item = bool(row["label"]["relevant"]), items[row["id"]]
        if wanted[relevant] and len(item["content"]) < 220 and item["title"] not in titles:
            wanted[relevant] -= 1
            titles.add(item["title"])
            chosen.append((item, row["label"]))
    assert wanted == {True: 0, False: 0}
    # The backend numbers its items itself.
    return [
        (
            TASK.item.model_validate({**item, "id": str(number)}),
            TASK.parse(json.dumps(label, ensure_ascii=False)),
        )
        for number, (item, label) in enumerate(chosen, 1)
    ]


@pytest.fixture(scope="module")
def host(
    docker_services: Services,
    stage_images: dict[str, str],
    ollama_server: str,
    tiny_base: Path,
    labelled: list[tuple[Any, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Host]:
    """Return a host with a teacher in Ollama and a backend full of unlabelled items."""
    assert set(stage_images) == {"labeler", "trainer", "merger", "gguf"}
    folder = tmp_path_factory.mktemp("e2e")
    engine = connect({"OLLAMA_HOST": ollama_server}, folder)
    gguf = train_teacher(folder / "teacher", tiny_base, TASK, labelled)
    engine.create(TEACHER, gguf, TASK.modelfile())
    engine.close()
    url = _start_backend(folder, ollama_server, labelled)
    backend = Backend(url)
    try:
        backend.wait_healthy(timeout_s=60)
        yield Host(folder, tiny_base, ollama_server, backend)
    finally:
        docker("rm", "--force", "--volumes", CONTAINER)


def _start_backend(folder: Path, ollama: str, labelled: list[tuple[Any, Any]]) -> str:
    seed, prompt = folder / "seed.jsonl", folder / "prompt.md"
    files.write_jsonl(seed, [{**item.model_dump(mode="json"), "id": None} for item, _ in labelled])
    files.write_text(prompt, TASK.system_prompt)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "OLLAMA_URL": ollama,
        "OLLAMA_MODEL": f"{ALIAS}:latest",
        "NUM_PREDICT": "600",
        "SYSTEM_PROMPT_FILE": "/prompt.md",
        "SEED_FILE": "/seed.jsonl",
    }
    given = [part for pair in environment.items() for part in ("--env", "=".join(pair))]
    mounts = [f"--volume={seed}:/seed.jsonl:ro", f"--volume={prompt}:/prompt.md:ro"]
    subprocess.run(["docker", "rm", "--force", CONTAINER], capture_output=True, check=False)
    docker("run", "--detach", "--network=host", f"--name={CONTAINER}", *given, *mounts, IMAGE)
    return f"http://127.0.0.1:{port}"


def test_a_backend_that_asks_another_model_is_found_before_it_is_stopped(host: Host) -> None:
    started = docker("inspect", "--format={{.State.StartedAt}}", CONTAINER)
    refused = host.driver("run", "deploy.name=another")
    assert refused.returncode == BackendUnavailable.exit_code, refused.stdout + refused.stderr
    assert f"the backend asks {ALIAS}:latest, not the deployed model another" in refused.stderr
    assert not (host.folder / "workspace" / "runs").exists()
    assert docker("inspect", "--format={{.State.StartedAt}}", CONTAINER) == started


@pytest.fixture(scope="module")
def finished(host: Host) -> Host:
    """Run the pipeline once."""
    done = host.driver("run")
    assert done.returncode == 0, done.stdout + done.stderr
    (host.folder / "stdout.txt").write_text(done.stdout, encoding="utf-8")
    return host


def test_the_backend_is_away_for_the_gpu_and_healthy_again(finished: Host) -> None:
    """The engine itself tells when the container was stopped and started."""
    state = json.loads(docker("inspect", CONTAINER))[0]["State"]
    assert state["Running"]
    assert finished.backend.healthy()
    stopped, started = (_time(state[key]) for key in ("FinishedAt", "StartedAt"))
    assert stopped < started
    train = finished.result("train")
    trained = datetime.fromisoformat(train.finished_at).timestamp()
    assert stopped < trained - train.seconds + 1, "it was stopped before the training began"
    assert trained <= started + 1, "it was started after the training ended"
    assert finished.result("restore").metrics["away_s"] > train.seconds
    assert not (finished.folder / "workspace" / "window.json").exists()


def test_the_items_came_from_the_backend_and_the_labels_from_the_teacher(
    finished: Host, labelled: list[tuple[Any, Any]]
) -> None:
    assert finished.result("snapshot").metrics == {"items": len(labelled), "reviewed": 0}
    label = finished.result("label").metrics
    assert label["asked"] == len(labelled)
    rows = list(
        files.read_jsonl(
            finished.folder / "workspace" / finished.result("label").outputs["labels"].path
        )
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


def test_every_item_was_reprocessed(finished: Host, labelled: list[tuple[Any, Any]]) -> None:
    metrics = finished.result("reprocess").metrics
    assert metrics["processed"] + metrics["failed"] == len(labelled)
    assert metrics["processed"] > 0


def test_no_stage_container_is_left(finished: Host) -> None:
    assert docker("ps", "--all", "--quiet", "--filter", "label=retrain.stage") == ""


def test_nothing_is_done_twice(finished: Host) -> None:
    away = json.loads(docker("inspect", CONTAINER))[0]["State"]["StartedAt"]
    done = finished.driver("run")
    assert done.returncode == 0, done.stderr
    assert "Nothing has changed" in done.stdout
    assert json.loads(docker("inspect", CONTAINER))[0]["State"]["StartedAt"] == away


def test_a_stage_that_fails_brings_the_backend_back(finished: Host) -> None:
    """A row over the limit ends the training; the service must not notice more than the window."""
    done = finished.driver("run", "train.max_length=64")
    assert done.returncode == 25, done.stdout + done.stderr
    assert "max_length" in done.stderr
    assert finished.backend.healthy()
    assert not (finished.folder / "workspace" / "window.json").exists()
    live = finished.result("deploy").metrics["digest"]
    tags = requests.get(f"{finished.ollama}/api/tags", timeout=10).json()["models"]
    assert {tag["name"]: tag["digest"] for tag in tags}[f"{ALIAS}:latest"] == live


def _time(stamp: str) -> float:
    """Return Docker's time with nanoseconds in seconds since the epoch."""
    return datetime.fromisoformat(stamp[:26].rstrip("Z")).replace(tzinfo=UTC).timestamp()
