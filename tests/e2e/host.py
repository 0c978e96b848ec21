"""A GPU host without the GPU, for tests: a real engine, a real Ollama, and a running backend."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts import files
from contracts.stage import Result
from driver.adapters.backend import Backend
from driver.store import Store
from tasks import load_task
from tests.docker.engine import docker

SAMPLE = files.ROOT / "examples/liga-sample"
TASK = load_task("liga_relevance")
ALIAS = "e2e-relevance"
LIVE = f"{ALIAS}:latest"
TEACHER = "e2e-teacher"
IMAGE = "retrain-test/backend:local"
IRRELEVANT, RELEVANT = 20, 4
Labelled = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Host:
    """A host whose driver is called as a user calls it; `changed` are a test's own settings."""

    folder: Path
    base: Path
    ollama: str
    backend: Backend
    container: str
    """The backend's."""
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        """Return the driver's workspace."""
        return self.folder / "workspace"

    def settings(self) -> dict[str, Any]:
        """Return settings as of production, but for the sizes and the device."""
        settings: dict[str, Any] = {
            "workspace": str(self.workspace),
            "runner": "docker",
            "engine": "ollama",
            "backend": {"url": self.backend.url, "container": self.container, "stop_timeout_s": 20},
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
            "evaluate": {"limit": 2, "min_valid": 0, "min_rules": 0, "above_constant": False},
            "deploy": {"name": ALIAS},
            "reprocess": {"max_error_share": 1.0},
            "verify": {"constrained": True, "max_error_share": 1.0, "max_broken_share": 1.0},
        }
        for name, values in self.changed.items():
            settings[name] = settings.get(name, {}) | values
        return settings

    def command(self, command: str, *overrides: str) -> list[str]:
        """Return the words of a call of `python -m driver`; `command` is as in a shell."""
        file = self.folder / "settings.yaml"
        file.write_text(json.dumps(self.settings()), encoding="utf-8")
        words = [sys.executable, "-m", "driver", *shlex.split(command), "-c", str(file)]
        return [*words, *(f"--set={each}" for each in overrides)]

    @property
    def environ(self) -> dict[str, str]:
        """Return the driver's environment: no cell of a table is broken into lines."""
        return {**os.environ, "OLLAMA_HOST": self.ollama, "COLUMNS": "300"}

    def driver(self, command: str, *overrides: str) -> subprocess.CompletedProcess[str]:
        """Call `python -m driver` as a user does."""
        return subprocess.run(
            self.command(command, *overrides),
            cwd=files.ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def result(self, stage: str) -> Result:
        """Return a stage's newest result."""
        found = Store(self.workspace).latest(stage)
        assert found is not None, stage
        return found[1]


def choose_labelled() -> Labelled:
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


@contextmanager
def running_backend(
    folder: Path, ollama: str, labelled: Sequence[tuple[Any, Any]]
) -> Iterator[tuple[str, str]]:
    """Start a backend full of unlabelled items; yield its URL and its container's name."""
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
        "OLLAMA_MODEL": LIVE,
        "NUM_PREDICT": "600",
        "SYSTEM_PROMPT_FILE": "/prompt.md",
        "SEED_FILE": "/seed.jsonl",
    }
    given = [part for pair in environment.items() for part in ("--env", "=".join(pair))]
    mounts = [f"--volume={seed}:/seed.jsonl:ro", f"--volume={prompt}:/prompt.md:ro"]
    # Named by the process, since several test sessions may share an engine.
    name = f"retrain-e2e-backend-{os.getpid()}"
    docker("run", "--detach", "--network=host", f"--name={name}", *given, *mounts, IMAGE)
    try:
        yield f"http://127.0.0.1:{port}", name
    finally:
        docker("rm", "--force", "--volumes", name)
