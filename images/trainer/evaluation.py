"""The validation loss as nats a token, whatever the rows at once.

transformers takes the mean over batches, so a batch of two short answers weighs as much as one of
eight long ones: another micro-batch would be another figure, and might make another checkpoint the
best one.

Imported only once the backend is chosen, as sft.py.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import SFTTrainer

from images.trainer.rows import IGNORED


class TokenMeanTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """`SFTTrainer` whose evaluation counts every learnt token once."""

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **more: Any) -> Any:
        """Evaluate; the loss among the metrics is summed nats by tokens."""
        self._nats, self._tokens = 0.0, 0
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **more)
        nats, tokens = self.in_all(self._nats, self._tokens)
        output.metrics[f"{metric_key_prefix}_loss"] = nats / max(tokens, 1)
        return output

    def in_all(self, nats: float, tokens: int) -> tuple[float, int]:
        """Return both sums over all processes; there is one."""
        return nats, tokens

    def prediction_step(
        self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **more: Any
    ) -> Any:
        """Return transformers' triple for a batch, its loss first; keep the sum."""
        found = super().prediction_step(model, inputs, *args, **more)
        tokens = int((inputs["labels"][:, 1:] != IGNORED).sum())
        self._nats += float(found[0]) * tokens  # the batch's own mean
        self._tokens += tokens
        return found
