"""The loss on the answer tokens only, at the cost of the answer tokens only.

Two things are computed once, or not at all, without any change to the result:

- Logits of the prompt. Qwen3's head is 151,936 wide; over a prompt of 900 tokens it costs more
  than the rest of a small model. TRL 1.15 leaves them out as well, but in a Triton kernel, which
  a CPU cannot run; here it is plain torch.
- Padding, and all copies but one of the system prompt, which every row begins with (packing.py).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from images.trainer.packing import pack, packs
from images.trainer.rows import IGNORED

CHUNK_TOKENS = 128
"""Answer tokens a piece: logits and softmax take 78 MB each in fp32. Smaller pieces read the head
more often, larger ones spend their time in page faults."""
_SMALLEST = torch.finfo(torch.float32).tiny


class AnswerLoss(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """Summed negative log-likelihood (nats) of target tokens under a frozen linear head.

    The gradient of softmax cross-entropy in the logits is `softmax - one_hot(target)`, so it is
    made in the forward pass, chunk by chunk, while the softmax is there: no logits are kept. The
    idea is that of the fused linear cross-entropy of Liger (Hsu et al. 2024, arXiv:2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the summed loss.

        Shapes: hidden [n, h], head [vocabulary, h], targets [n]. The head gets no gradient. A
        target of a share below 1e-38 counts as 87 nats; its gradient is right all the same.
        """
        head = head.detach()
        # Pieces of like size: BLAS sums 151,936 products for a handful of rows with an error of
        # 1e-4, for 14 rows and more with one of 1e-6.
        pieces = max(1, math.ceil(len(targets) / CHUNK_TOKENS))
        chunk = max(1, math.ceil(len(targets) / pieces))
        logits = hidden.new_empty((chunk, len(head)), dtype=torch.float32)
        softmax = torch.empty_like(logits)
        total = hidden.new_zeros((), dtype=torch.float32)
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        for start in range(0, len(targets), chunk):
            rows = hidden[start : start + chunk].detach()
            wanted = targets[start : start + chunk, None]
            scores, shares = logits[: len(rows)], softmax[: len(rows)]
            if hidden.dtype is torch.float32:
                torch.mm(rows, head.T, out=scores)
            else:
                scores.copy_(rows @ head.T)
            torch.softmax(scores, dim=-1, out=shares)
            share = shares.gather(1, wanted)
            total -= share.clamp_min(_SMALLEST).log().sum()
            if gradient is not None:
                shares.scatter_(1, wanted, share - 1)
                gradient[start : start + chunk] = shares.to(head.dtype) @ head
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the gradient in `hidden`, scaled by the outer one (a scalar)."""
        return ctx.gradient * outer.to(ctx.gradient.dtype), None, None


def answer_loss(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Return (summed loss, answer tokens) of a batch as `learnt_positions` takes it.

    The model's head is frozen, and has no bias.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden, targets = learnt_positions(causal, batch)
    loss = AnswerLoss.apply(hidden, causal.get_output_embeddings().weight, targets)
    return loss, len(targets)


def learnt_positions(
    model: Any, batch: dict[str, torch.Tensor], *, packed: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hidden states [n, h] that predict the n answer tokens, and those tokens [n].

    `model` is a causal language model, or a PEFT model around one. `batch` holds input_ids,
    attention_mask and labels, each [rows, tokens], padded right. Its rows are packed if the
    model's attention can keep them apart, and `packed` does not forbid it.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    if packed and packs(causal) and len(batch["input_ids"]) > 1:
        together = pack(batch)
        labels = together.labels
        read = causal.model(
            input_ids=together.ids,
            position_ids=together.positions,
            attention_mask={"full_attention": together.layout},
            use_cache=False,
        )
    else:
        labels = batch["labels"]
        read = causal.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        )
    targets = labels[:, 1:]  # a position predicts the token after it
    learnt = targets != IGNORED
    return read.last_hidden_state[:, :-1][learnt], targets[learnt]
