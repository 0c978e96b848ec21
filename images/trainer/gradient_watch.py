"""The sentinel on gradients: whether they reach the adapter, all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from transformers import TrainerCallback

from contracts.errors import SentinelTripped
from images.trainer.sharding import whole

WATCHED_STEPS = 3
"""Steps in which each module has to get a gradient once; counted anew after a resume."""


class GradientWatch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Sees in the first steps that a gradient reaches every module of the adapter.

    It looks at B only: A's gradient is zero as long as B is, as it is at the start.
    """

    def __init__(self) -> None:
        self._steps_left = WATCHED_STEPS
        self._silent: set[str] = set()

    def on_pre_optimizer_step(
        self, _args: Any, state: Any, _control: Any, *, model: Any, **_: Any
    ) -> None:
        """Raise `SentinelTripped` if some module has had none in the steps watched."""
        if not self._steps_left:
            return
        weights = {name: p for name, p in model.named_parameters() if "lora_B" in name}
        silent = {name for name, weight in weights.items() if not _has_gradient(weight)}
        first = self._steps_left == WATCHED_STEPS
        self._silent = silent if first else self._silent & silent
        self._steps_left -= 1
        last = not self._steps_left or state.global_step + 1 == state.max_steps
        if not weights or (self._silent and last):
            raise SentinelTripped(
                f"sentinel adapter_gradient: no gradient reaches {len(self._silent)} of "
                f"{len(weights)} modules of the adapter",
                why=_by_projection(self._silent) or "the model has no LoRA",
                todo="Set train.gradient_checkpointing=off or train.backend=transformers, "
                "to see which of the two loses it.",
            )


def _has_gradient(weight: torch.nn.Parameter) -> bool:
    # Whole: of a divided gradient, `any` would tell of this process's share alone.
    return weight.grad is not None and bool(whole(weight.grad).any())


def _by_projection(names: Iterable[str]) -> str:
    counts = Counter(name.split(".lora_B")[0].rsplit(".", maxsplit=1)[-1] for name in names)
    return ", ".join(f"{count} {projection}" for projection, count in sorted(counts.items()))
