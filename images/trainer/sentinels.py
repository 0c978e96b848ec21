"""Checks that stop a training whose result would be worthless (docs/reference/sentinels.md).

Each stands for a failure that shows in nothing but the answers of the finished model. Those on the
base's precision, on gradients, on rows and on the finished adapter stand where these are made.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from contracts.errors import SentinelTripped
from images.trainer.loss import learnt_positions

FLOOR_EXACT, FLOOR_ROUNDED = 1e-5, 0.02
"""What packing may change hidden states by at any rate, in fp32 and in other types. Seen on four
layers: 2e-7, and 0.4 to 0.8 % in bf16, int8 and nf4; rows that see each other: 9 %."""
TIMES_PADDING = 4
"""How much more than padding, which rounds differently as well, it may change them."""


def check_untrained(loss: float) -> None:
    """Raise `SentinelTripped` if the untrained model's validation loss is no number."""
    if not math.isfinite(loss):
        raise SentinelTripped(
            f"sentinel finite_loss: the validation loss is {loss} before the first step",
            why="the base computes no numbers as it was loaded",
            todo="Check the base model's files, or set another train.load_in.",
        )


def check_loss_fell(untrained: float, trained: float, *, share: float) -> None:
    """Raise `SentinelTripped` unless the validation loss fell by `share` at least; 0: no check."""
    if share and not trained <= untrained * (1 - share):
        raise SentinelTripped(
            f"sentinel loss_falls: the validation loss is {trained:.4f} after the training, and "
            f"was {untrained:.4f} before it",
            why=f"train.min_loss_fall asks for {share:.0%} less",
            todo="Look at the learning rate, the number of steps, and loss_curve.svg of a run "
            "with train.min_loss_fall=0.",
        )


def check_packing(model: Any, batch: dict[str, torch.Tensor]) -> None:
    """Raise `SentinelTripped` if rows are computed otherwise beside each other than alone.

    `batch` is as for `answer_loss`. What is compared are the hidden states before the answers'
    tokens. Rows that are padded show what rounding alone does in this model.
    """
    exact = all(weight.dtype is torch.float32 for weight in model.parameters())
    was_training = model.training
    model.eval()
    with torch.no_grad():
        rows = range(len(batch["input_ids"]))
        alone = torch.cat([learnt_positions(model, _alone(batch, row))[0] for row in rows])
        packed, padded = (learnt_positions(model, batch, packed=way)[0] for way in (True, False))
    model.train(was_training)
    distance, rounding = _distance(packed, alone), _distance(padded, alone)
    if not distance <= max(FLOOR_EXACT if exact else FLOOR_ROUNDED, TIMES_PADDING * rounding):
        raise SentinelTripped(
            "sentinel packing: rows are computed otherwise beside each other than alone",
            why=f"hidden states differ by {distance:.1e} in the mean, padded by {rounding:.1e}",
            todo="Set train.packing=off.",
        )


def _alone(batch: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    length = int(batch["attention_mask"][row].sum())
    return {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the mean relative distance of vectors [n, h]; 0 where there are none."""
    apart = (found - wanted).float().norm(dim=1) / wanted.float().norm(dim=1)
    return apart.mean().item() if len(apart) else 0.0
