"""Checks that stop a training whose result would be worthless (docs/reference/sentinels.md).

Each stands for a failure that shows in nothing but the answers of the finished model. Those on the
base's precision, on gradients, on rows and on the finished adapter stand where these are made.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from contracts.errors import SentinelTripped
from images.trainer.loss import answer_loss
from images.trainer.rows import IGNORED


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
    """Raise `SentinelTripped` if a row's loss is another beside other rows than alone.

    `batch` is as for `answer_loss`, of two rows at least. In fp32 both are equal to about 1e-6;
    other types round differently at another place in the sequence.
    """
    exact = all(weight.dtype is torch.float32 for weight in model.parameters())
    tolerance = 1e-4 if exact else 0.02
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for row in range(len(batch["input_ids"])):
            others = torch.arange(len(batch["labels"]), device=batch["labels"].device) != row
            beside = batch | {"labels": batch["labels"].masked_fill(others[:, None], IGNORED)}
            length = int(batch["attention_mask"][row].sum())
            alone = {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}
            packed, single = (float(answer_loss(model, each)[0]) for each in (beside, alone))
            if not math.isclose(packed, single, rel_tol=tolerance):
                raise SentinelTripped(
                    "sentinel packing: a row has another loss beside other rows than alone",
                    why=f"row {row + 1} of {len(others)}: {packed:.5f} and {single:.5f} nats",
                    todo="Set train.packing=off.",
                )
    model.train(was_training)
