"""Run the stages train, merge and gguf on a small workspace, and rows to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts import files
from contracts.entrypoint import StageContext, execute
from contracts.stage import Event, InputRef, Job, Result, Stage
from contracts.stages import REFERENCE
from tests.jobs import job_of
from tests.unit.references import write_empty

TASK = "liga_relevance"
TRAINING = {
    "backend": "transformers",
    "device": "cpu",
    "load_in": "fp32",
    "learning_rate": 0.01,
    "batch_size": 4,
    "micro_batch_size": 2,
    "max_steps": 4,
    "eval_steps": 2,
    "max_length": 256,
}
Emit = Callable[[Event], None]


def chat_row(row_id: str, question: str, answer: str) -> dict[str, Any]:
    """Return a row as the split stage writes it."""
    return {
        "id": row_id,
        "messages": [
            {"role": "system", "content": "Antworte mit einem Wort."},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        "stratum": "any",
    }


def rows(count: int) -> list[dict[str, Any]]:
    """Return rows whose questions differ in length."""
    return [
        chat_row(f"row-{i}", f"Frage {i}:" + " so" * (i % 5), f"Antwort {i % 3}")
        for i in range(count)
    ]


def workspace(root: Path, base: Path, train: list[dict[str, Any]]) -> dict[str, Path]:
    """Write the splits below `root` and return the inputs of the train stage."""
    (root / "in").mkdir(parents=True)
    (root / "in" / "base").symlink_to(base)
    files.write_jsonl(root / "in" / "train.jsonl", train)
    files.write_jsonl(root / "in" / "validation.jsonl", rows(4))
    return {
        "base": root / "in" / "base",
        "train_split": root / "in" / "train.jsonl",
        "validation_split": root / "in" / "validation.jsonl",
    }


def job(root: Path, stage: Stage, inputs: dict[str, Path], params: dict[str, Any]) -> Job:
    """Return a job on inputs below `root`; a record of the training is empty unless given."""
    if REFERENCE in stage.inputs and REFERENCE.name not in inputs:
        inputs = {**inputs, REFERENCE.name: write_empty(root / "in" / REFERENCE.filename)}
    references = {
        name: InputRef(
            path=path.relative_to(root).as_posix(),
            digest=files.digest_path(path),
            bytes=files.size_of(path),
        )
        for name, path in inputs.items()
    }
    return job_of(stage, params, references, run="run", fingerprint="f" * 8)


def run(
    root: Path,
    stage: Stage,
    work: Callable[[StageContext[Any]], Any],
    inputs: dict[str, Path],
    params: dict[str, Any],
    emit: Emit = lambda _event: None,
) -> Result:
    """Run a stage's work as its container would; outputs lie in `folder_of(root, stage)/out`."""
    folder = folder_of(root, stage)
    folder.mkdir(parents=True, exist_ok=True)
    return execute(stage, job(root, stage, inputs, params), root, folder, work, emit)


def folder_of(root: Path, stage: Stage) -> Path:
    """Return where a stage of the workspace lies."""
    return root / "store" / stage.name / ("f" * 8)
