"""A copy of the checkout and all that is around it, for tests/smoke/test_one_definition.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from contracts import files
from contracts.stage import Artifact, Stage
from driver.host_stages.record import Record
from driver.store import Store
from serving import connect
from tasks import load_task
from tests.services.ollama_double import OllamaDouble
from tests.services.running_backend import BackendProcess, RunningBackend
from tests.services.simulated_teacher import MODEL, Asked, SimulatedTeacher
from tests.small_demo import FIRST, SAMPLE, Row

B = TypeVar("B", bound=RunningBackend)
TASK = load_task(FIRST)
ALIAS = "liga-demo"
DAY = "2026-03-31"
RELEVANT, IRRELEVANT = 24, 8
SEEDED = (1, 2)
"""Which items the backends have: relevant ones, as the tiny model answers alike of all items."""
REUSED = ("snapshot", "fetch", "label", "split", "train")
FEW, ENOUGH = "train.max_steps=2", "train.max_steps=50"
"""Two steps show whether training is done again; with 50 the tiny model writes answers."""
SOCIAL: Row = {
    "summary": "Es geht um soziale Hilfe.",
    "detailed_analysis": "Die Meldung betrifft soziale Einrichtungen.",
    "argumentationskette": ["Hilfe braucht Geld.", "Wer hilft, verdient Schutz."],
    "relevant": True,
    "relevance_score": 0.9,
    "priority": "low",
    "assigned_aks": ["AK1"],
    "tags": ["Soziales"],
    "reasoning": "Es geht um soziale Hilfe.",
}
OTHER: Row = {
    "summary": None,
    "detailed_analysis": None,
    "argumentationskette": [],
    "relevant": False,
    "relevance_score": 0.1,
    "priority": None,
    "assigned_aks": [],
    "tags": ["Sonstiges"],
    "reasoning": "Es fehlt eine soziale Seite.",
}
"""What the teacher says of all relevant items, and of all others: a tiny model learns it soon."""
COPIED = ("contracts", "driver", "images", "serving", "tasks", "tests/services/backend")


@dataclass
class World:
    """A copy of the checkout, a workspace, a teacher, and a backend's checkout."""

    folder: Path
    base: Path
    teacher: SimulatedTeacher
    chosen: list[tuple[Row, Row]]
    """Items with their labels."""
    asked: list[Asked]
    """What the teacher was asked."""

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    def call(self, *words: str, settings: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Call the driver of the checkout as a user does."""
        given = (
            f"snapshot.items=[{self.folder / 'items.jsonl'}]",
            "snapshot.reviewed=[]",
            f"fetch.path={self.base}",
            f"teachers=[{self.teacher.word('ollama')}]",
            f"label.teacher={MODEL}",
            "evaluate.limit=2",
            "evaluate.drift_positions=4",
            *settings,
        )
        command = [sys.executable, "-m", "driver", *words]
        command += ["-c", str(SAMPLE / "demo.yaml"), "-w", str(self.workspace)]
        return subprocess.run(
            [*command, *(f"--set={each}" for each in given)],
            cwd=self.checkout,
            env={**os.environ, "PYTHONPATH": str(self.checkout), "COLUMNS": "300"},
            capture_output=True,
            text=True,
            check=False,
        )

    def driver(self, *words: str, settings: tuple[str, ...] = ()) -> str:
        """Return what a call prints that has to go well."""
        done = self.call(*words, settings=settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def outputs(self) -> dict[str, str]:
        """Return the digest of all that each of these stages has given last, by where it lies."""
        found = (Store(self.workspace).latest(name) for name in REUSED)
        paths = [each.path for last in found if last for each in last[1].outputs.values()]
        return self.digests(paths)

    def digests(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the digests of files and folders of the workspace."""
        return {path: files.digest_path(self.workspace / path) for path in paths}

    def rows(self, stage: Stage, artifact: Artifact) -> list[Row]:
        """Return the lines of what a stage has given last."""
        last = Store(self.workspace).latest(stage.name)
        assert last is not None
        return list(files.read_jsonl(self.workspace / last[1].outputs[artifact.name].path))

    def told(self, backend: str) -> Told:
        """Return what the commands say of the task as it is."""
        rendered, repository = self.folder / "rendered", self.folder / "backend checkout"
        self.driver("task", "render", "--out", str(rendered))
        first = min(each.name for each in (self.workspace / "runs").iterdir())
        return Told(
            {each.name: each.read_text(encoding="utf-8") for each in rendered.iterdir()},
            self.call("task", "check", "--repository", str(repository), settings=at(backend)),
            self.driver("task", "diff", first),
            self.driver("plan", settings=(FEW,)),
        )


@dataclass(frozen=True)
class Told:
    """What the commands have said of one state of the task."""

    rendered: dict[str, str]
    check: subprocess.CompletedProcess[str]
    diff: str
    plan: str

    def planned(self) -> dict[str, str]:
        """Return what the plan does with each stage."""
        return dict(re.findall(r"│ (\w+) +│ (run|reuse) ", self.plan))


def at(backend: str) -> tuple[str, ...]:
    """Return the settings of a backend."""
    return (f"backend.url={backend}", "backend.container=news")


@dataclass(frozen=True)
class Before:
    """The world before the edit."""

    source: str
    """Digest of the checkout."""
    asked: int
    labels: list[Row]
    outputs: dict[str, str]
    told: Told


@dataclass(frozen=True)
class Added:
    """What came of the edit, up to the reprocess."""

    told: Told
    asked: list[Asked]
    labels: list[Row]
    refused: subprocess.CompletedProcess[str]
    mended: str
    """What `task check` says of the backend that has got the column."""
    report: str
    answers: list[Row]
    items: list[Row]
    """As the backend shows them after the reprocess."""
    record: Record


def choose() -> list[tuple[Row, Row]]:
    """Return the shortest items of the sample, numbered as a backend does, and their labels."""
    items = {row["id"]: row for row in files.read_jsonl(SAMPLE / "items.jsonl")}
    labelled = [(items[r["id"]], r["label"]) for r in files.read_jsonl(SAMPLE / "labels.jsonl")]
    labelled.sort(key=lambda pair: len(pair[0]["content"]))
    relevant = [(row, SOCIAL) for row, label in labelled if label["relevant"]][:RELEVANT]
    others = [(row, OTHER) for row, label in labelled if not label["relevant"]][:IRRELEVANT]
    return [({**row, "id": str(n)}, said) for n, (row, said) in enumerate(relevant + others, 1)]


def started(world: World, kind: type[B], folder: Path) -> Iterator[B]:
    """Yield a backend with a few items, in front of the deployed model."""
    folder.mkdir(exist_ok=True)
    engine = connect({"RETRAIN_ENGINE": "llamacpp"}, world.workspace)
    double = OllamaDouble(f"{ALIAS}:latest")
    double.script = lambda asked: (
        engine.chat(
            ALIAS,
            [{"role": "user", "content": asked}],
            options=TASK.modelfile().parameters,
            timeout_s=120,
        ).text
    )
    seeded = [world.chosen[number - 1][0] for number in SEEDED]
    backend = kind(folder, seeded, OLLAMA_URL=double.url, OLLAMA_MODEL=f"{ALIAS}:latest")
    if isinstance(backend, BackendProcess):
        backend.root = folder / "checkout"
    backend.start()
    try:
        yield backend
    finally:
        backend.kill()
        double.close()
        engine.close()
