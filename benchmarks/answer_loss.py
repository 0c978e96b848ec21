"""One training step on a CPU: the trainer's loss against the model's own.

The case is the demo's: rows that share a system prompt of 740 tokens and differ in article and
answer (the sample's means: 160 and 127 tokens). The alternative computes logits of every position,
as transformers does when it is given labels.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.comparison import show
from contracts.params import (
    TrainParams,
)
from examples import tiny_qwen3
from images.trainer.backends import load_model
from images.trainer.loss import answer_loss
from images.trainer.packing import enable_packing

SHARED, ARTICLE, ANSWER = 740, 160, 127
IGNORED = -100


def batch(rows: int) -> dict[str, torch.Tensor]:
    """Return random rows [rows, tokens] of the sample's shape."""
    generator = torch.Generator().manual_seed(17)
    shared = torch.randint(0, 150_000, (1, SHARED), generator=generator).expand(rows, -1)
    own = torch.randint(0, 150_000, (rows, ARTICLE + ANSWER), generator=generator)
    ids = torch.cat([shared, own], dim=1)
    labels = ids.clone()
    labels[:, : SHARED + ARTICLE] = IGNORED
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def ours(model: Any, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return nats per answer token as the trainer computes them."""
    total, tokens = answer_loss(model, rows)
    return total / tokens


def theirs(model: Any, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the same from transformers, by way of all logits."""
    loss: torch.Tensor = model(**rows).loss
    return loss


def seconds(step: Callable[[], torch.Tensor], times: int) -> float:
    """Return the median time of a forward and backward pass, after one that is not counted."""
    taken = []
    for _ in range(times + 1):
        started = time.perf_counter()
        step().backward()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def main() -> None:
    """Print one line for each batch size; ratio above 1: ours is faster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 50 s on two cores")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        tiny_qwen3.make(base, hidden=64, layers=4)
        params = TrainParams(backend="transformers", device="cpu", load_in="fp32")
        model = load_model("transformers", base, params)
        enable_packing(model)
    for size in (2,) if quick else (2, 4, 8):
        rows = batch(size)
        mine, other = ours(model, rows), theirs(model, rows)
        if abs(mine.item() - other.item()) > 1e-3:
            raise SystemExit(f"the losses differ: {float(mine)} and {float(other)}")
        own = seconds(lambda rows=rows: ours(model, rows), 3)  # type: ignore[misc]
        their = seconds(lambda rows=rows: theirs(model, rows), 3)  # type: ignore[misc]
        show(f"training step, {size} rows", own, their, "s", digits=3)


if __name__ == "__main__":
    main()
