"""The trainings that are compared, each a process: what it is told, and what was seen of it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.prepare import PREPARED
from benchmarks.gpu.watch import Watched, watch
from contracts import files
from contracts.errors import OutOfMemory, StageFailed, StageTimedOut
from contracts.fit import halved
from contracts.params import TrainParams
from contracts.stages import TRAIN
from contracts.vram import Shape, Training
from images.trainer.order import training_order
from tests.jobs import inputs_in, job_of


@dataclass(frozen=True)
class Trained:
    """What was seen of a training."""

    tokens_per_s: float
    """Of the rows as they are: padding does not count, a shared prompt counts for each row."""
    start_s: float
    """From the start of the process to that of the first step: imports, loading, quantising, and
    with ours the evaluation of the untrained model."""
    peak_mib: float
    """Of the device, for this process: CUDA's context included."""
    rows_at_once: int
    steps: int
    metrics: dict[str, Any]
    """What the stage reports; empty for TRL, and for a stage whose time was up."""


@dataclass(frozen=True)
class Place:
    """Where everything lies, and what all trainings have in common."""

    folder: Path
    logs: Path
    settings: Mapping[str, Any]
    """Of the train stage."""
    environ: Mapping[str, str]
    memory: Callable[[int], float]
    """MiB that a process (by its id) takes now."""

    def params(self, **more: Any) -> TrainParams:
        """Return the settings of one training."""
        return TrainParams(**{**self.settings, **more})

    def tokens(self, split: str) -> list[int]:
        """Return the tokens of each row of train, validation or sample."""
        found: list[int] = json.loads((self.folder / PREPARED).read_text(encoding="utf-8"))[split]
        return found

    def run(self, name: str, limit_s: float, command: list[str]) -> Watched:
        """Run a module of Python; its stderr goes to a file of this name."""
        return watch(
            [sys.executable, "-m", *command],
            limit_s=limit_s,
            environ=self.environ,
            log=self.logs / f"{name}.log",
            memory=self.memory,
        )


def ours(place: Place, name: str, limit_s: float, **settings: Any) -> Trained:
    """Run the train stage, by the command that runs in its container."""
    params = place.params(**settings)
    folder = place.folder / "store" / TRAIN.name / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = job_of(
        TRAIN, params, inputs_in(place.folder, TRAIN), code_digest=files.code_digest(*TRAIN.code)
    )
    files.write_json(folder / "job.json", job.model_dump(mode="json"))
    seen = place.run(name, limit_s, ["images.trainer", str(folder / "job.json")])
    metrics = {}
    if seen.code == 0:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        metrics = result["metrics"]
    batching = folder / "work" / "batching.json"
    rows = json.loads(batching.read_text(encoding="utf-8"))["rows_at_once"] if seen.steps() else 0
    lengths = place.tokens("train")
    order = training_order(
        lengths, steps=params.max_steps, batch_size=params.batch_size, seed=params.seed
    )
    return _trained(place, name, seen, [lengths[row] for row in order], rows, metrics)


def plain_trl(place: Place, limit_s: float, *, rows_at_once: int) -> Trained:
    """Run TRL's recipe with so many rows at once, or with fewer where these are too many."""
    name = "trl"
    params = place.params(backend="transformers", micro_batch_size=rows_at_once)
    given = json.dumps(params.model_dump(mode="json"))
    command = ["benchmarks.gpu.plain_trl", str(place.folder), "--params", given]
    seen = place.run(name, limit_s, command)
    if seen.code == OutOfMemory.exit_code and rows_at_once > 1:
        return plain_trl(place, limit_s, rows_at_once=halved(rows_at_once))
    return _trained(place, name, seen, place.tokens("train"), rows_at_once, {})


def estimated_mib(place: Place, rows: int) -> tuple[float, str]:
    """Return what the project takes such a training for, and its terms in words."""
    longest = max(place.tokens("train") + place.tokens("validation"))
    shape = Shape.read(place.folder / "base")
    memory = Training.of(place.params(), shape, rows=rows, length=longest).memory()
    return memory.total, memory.text()


def _trained(
    place: Place,
    name: str,
    seen: Watched,
    lengths: list[int],
    rows: int,
    metrics: dict[str, Any],
) -> Trained:
    """Return the figures of the steps after the first, whose kernels are loaded and compiled."""
    ends = seen.steps()
    log = place.logs / f"{name}.log"
    if seen.code not in {0, None}:
        raise StageFailed(f"{name} ended with exit code {seen.code}", why=tail(log))
    if len(ends) < 3:
        raise StageTimedOut(f"{name} came to {len(ends)} steps in its time", why=tail(log))
    batch = place.params().batch_size
    tokens = sum(lengths[batch : len(ends) * batch])
    step = (ends[-1] - ends[0]) / (len(ends) - 1)
    return Trained(
        tokens_per_s=tokens / (ends[-1] - ends[0]),
        start_s=max(0.0, ends[0] - seen.started - step),
        peak_mib=seen.peak_mib,
        rows_at_once=rows,
        steps=len(ends),
        metrics=metrics,
    )


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
