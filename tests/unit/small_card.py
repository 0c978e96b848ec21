"""A DOUBLE of a GPU that is too small: torch's out-of-memory error where a batch is too large.

Imported by tests; called as `python -m tests.unit.small_card ROWS STEP JOB.json` it is the train
stage's process on such a card, and with a PORT behind it a rank; the first has room enough then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch


class SmallCard:
    """Computes losses as loss.py does, but has no room for more than `rows` rows from `step` on.

    `seen` holds the token ids of every row that was trained on, in order.
    """

    def __init__(self, rows: int, step: int, compute: Callable[..., Any]) -> None:
        self.rows, self.step = rows, step
        self.seen: list[tuple[int, ...]] = []
        self._compute = compute

    def __call__(self, model: Any, batch: dict[str, torch.Tensor]) -> Any:
        """Stand in for `answer_loss`."""
        if not torch.is_grad_enabled():
            return self._compute(model, batch)  # an evaluation keeps nothing for later
        if len(self.seen) // 4 >= self.step and len(batch["input_ids"]) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore")
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            self.seen.append(tuple(ids[mask.bool()].tolist()))
        return self._compute(model, batch)


if __name__ == "__main__":
    from unittest.mock import patch

    from contracts.entrypoint import main
    from contracts.stages import TRAIN
    from images.trainer import rank, sft, spread, train
    from images.trainer.loss import answer_loss

    rows, step, job, *port = sys.argv[1:]
    card = SmallCard(int(rows), int(step), answer_loss)
    if not port:
        with patch.object(sft, "answer_loss", card):
            sys.exit(main([sys.argv[0], job], {TRAIN: train.work}))
    with patch.object(spread, "answer_loss", card if os.environ["RANK"] == "1" else answer_loss):
        os._exit(rank.main([sys.argv[0], job, *port]))
