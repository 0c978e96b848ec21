"""Records of a training, for tests of the stages behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts import reference
from contracts.params import TrainParams
from contracts.reference import Reference, Trained


def empty() -> Reference:
    """Return a record of nothing: there is nothing that a later stage could differ from."""
    trained = Trained(
        chat_format="qwen3",
        chat_template="",
        turn_end="",
        control_tokens={},
        tokenizer="",
        context_length=40_960,
        load_in="fp32",
        probes={},
    )
    return Reference(trained=trained, of="original", texts={}, rows=())


def write_empty(path: Path) -> Path:
    """Write `empty` to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reference.write(path, empty())
    return path


def recorded(base: Path, adapter: Path, rows: list[dict[str, Any]], **params: Any) -> Reference:
    """Return the record of an adapter that nobody trained, by the trainer's own code."""
    from transformers import AutoTokenizer

    from images.trainer import reference as trainer
    from images.trainer.rows import encode
    from images.weights.predictions import likeliest
    from tasks.chat import QWEN3

    tokenizer = AutoTokenizer.from_pretrained(base)
    given = TrainParams(device="cpu", backend="transformers", load_in="fp32", **params)
    encoded = [encode(row, tokenizer, QWEN3) for row in rows]
    recorder = trainer.Recorder(base, encoded, tokenizer, QWEN3, given)
    predicted = trainer.of_original(base, adapter, recorder.rows, "cpu")
    return recorder.filled(likeliest(predicted), of="original")
