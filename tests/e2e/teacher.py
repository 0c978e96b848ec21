"""A tiny teacher for the tests: trained by the stages themselves to know a few items by heart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import files
from contracts.params import (
    TrainParams,
)
from contracts.stage import Artifact, InputRef, Params, Result, Stage
from contracts.stages import (
    BASE,
    CONVERT,
    GGUF,
    LORA_ADAPTER,
    MERGE,
    MERGED,
    REFERENCE,
    TRAIN,
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
)
from driver.runners.outcome import Limits
from driver.runners.process import ProcessRunner
from driver.store import Store
from tasks.definition import Item, Task
from tests.jobs import job_of

Row = dict[str, Any]
EPOCHS = 14
"""Passes over the rows until a tiny model repeats them."""


@dataclass(frozen=True)
class Bench:
    """A workspace in which single stages are run as processes."""

    store: Store
    task: Task

    def run(self, stage: Stage, params: Params, **inputs: InputRef) -> Result:
        """Run one stage and return its result."""
        place = f"{stage.name:0<16}"
        job = job_of(
            stage,
            params,
            inputs,
            run="bench",
            fingerprint=place,
            code_digest=files.code_digest(*stage.code),
            task=self.task.name,
            task_digest=self.task.digest(),
        )
        path = self.store.prepare(job)
        log = self.store.root / f"{stage.name}.log"
        ProcessRunner().run(stage, path, log, lambda _event: None, {}, Limits(600))
        result = self.store.result(stage.name, place)
        assert result is not None
        return result

    def file(self, path: Path) -> InputRef:
        """Return a reference to a file or folder below the workspace."""
        relative = path.relative_to(self.store.root).as_posix()
        return InputRef(path=relative, digest=files.digest_path(path), bytes=files.size_of(path))


def train_teacher(
    workspace: Path, base: Path, task: Task, labelled: Sequence[tuple[Item, Any]]
) -> Path:
    """Return the GGUF of a model that answers the labelling prompt with these labels."""
    bench = Bench(Store(workspace), task)
    rows = [
        {
            "id": item.id,
            "messages": [
                *task.label_messages(item),
                {"role": "assistant", "content": task.answer_text(label)},
            ],
            "stratum": task.stratum(label),
        }
        for item, label in labelled
    ]
    splits = workspace / "train.jsonl", workspace / "validation.jsonl"
    files.write_jsonl(splits[0], rows)
    files.write_jsonl(splits[1], rows[:4])
    local_base = workspace / "base"
    local_base.mkdir()
    for path in base.iterdir():
        (local_base / path.name).write_bytes(path.read_bytes())

    params = TrainParams(
        backend="transformers",
        device="cpu",
        load_in="fp32",
        rank=32,
        alpha=32,
        learning_rate=5e-3,
        epochs=EPOCHS,
        micro_batch_size=4,
        max_length=8192,
        eval_steps=1000,
    )
    references = {
        BASE.name: bench.file(local_base),
        TRAIN_SPLIT.name: bench.file(splits[0]),
        VALIDATION_SPLIT.name: bench.file(splits[1]),
    }
    trained = bench.run(TRAIN, params, **references)
    record = _output(trained, REFERENCE)
    adapted = {BASE.name: references[BASE.name], LORA_ADAPTER.name: _output(trained, LORA_ADAPTER)}
    merged = bench.run(MERGE, MERGE.params(), **adapted, **{REFERENCE.name: record})
    given = {MERGED.name: _output(merged, MERGED), REFERENCE.name: record}
    made = bench.run(CONVERT, CONVERT.params(), **given)
    return workspace / made.outputs[GGUF.name].path


def _output(result: Result, artifact: Artifact) -> InputRef:
    """Return what a stage has given, as the next one takes it."""
    return InputRef.model_validate(result.outputs[artifact.name].model_dump())
