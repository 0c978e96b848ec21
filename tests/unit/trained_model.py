"""A short real training, its merge and its GGUF, for tests of what is compared with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.stages import CONVERT, MERGE, TRAIN
from images.gguf import convert
from images.merger import merge
from images.trainer import train
from tests.unit.model_stages import TRAINING, folder_of, rows, run, workspace

CONVERTER = Path(os.environ.get("LLAMA_CPP_DIR", files.ROOT / ".cache" / "llama.cpp"))


def train_briefly(root: Path, base: Path) -> dict[str, Path]:
    """Return the inputs of a merge: base, adapter and record of twenty steps."""
    inputs = workspace(root, base, rows(10))
    settings = {**TRAINING, "max_steps": 20, "eval_steps": 20}
    metrics = run(root, TRAIN, train.work, inputs, settings).metrics
    assert metrics["effect"] > 0.5
    assert metrics["held_drift"] < 1e-6
    out = folder_of(root, TRAIN) / "out"
    return {
        "base": base,
        "lora_adapter": out / "lora_adapter",
        "reference": out / "reference.json",
    }


def merged(root: Path, trained: dict[str, Path], **params: Any) -> dict[str, Any]:
    """Merge and return the metrics; the model lies in `merged_model(root)`."""
    (root / "in").mkdir(parents=True)
    inputs = {name: root / "in" / path.name for name, path in trained.items()}
    for name, path in trained.items():
        inputs[name].symlink_to(path)
    return run(root, MERGE, merge.work, inputs, params).metrics


def merged_model(root: Path) -> Path:
    """Return the folder that a merge below `root` has left."""
    return folder_of(root, MERGE) / "out" / "merged"


def converted(root: Path, model: Path, record: Path) -> Path:
    """Return the q8_0 file of a model, by the stage gguf."""
    if not (CONVERTER / "convert_hf_to_gguf.py").is_file():
        pytest.skip("LLAMA_CPP_DIR has no converter")
    (root / "in").mkdir(parents=True)
    inputs = {"merged": root / "in" / "merged", "reference": root / "in" / "reference.json"}
    inputs["merged"].symlink_to(model)
    inputs["reference"].symlink_to(record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_CPP_DIR", str(CONVERTER))
        run(root, CONVERT, convert.work, inputs, {})
    return folder_of(root, CONVERT) / "out" / "model.gguf"
