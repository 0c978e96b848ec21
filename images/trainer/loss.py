"""The loss on the answer tokens only, at the cost of the answer tokens only.

Two things are computed once, or not at all, without any change to the result:

- Logits of the prompt. Qwen3's head is 151,936 wide; over a prompt of 900 tokens it costs more
  than the rest of a small model. TRL 1.15 leaves them out as well, but in a Triton kernel, which
  a CPU cannot run; here it is plain torch.
- The system prompt, which every row begins with. Its keys and values are computed once and shared,
  gradients included, and each row goes on from there by itself, without padding: 8 rows of 990
  tokens with 750 in common take the work of 2,700 tokens instead of 7,900.
"""

from __future__ import annotations

import math
from typing import Any

import torch

CHUNK_TOKENS = 128
"""Answer tokens a piece: logits and softmax take 78 MB each in fp32. Smaller pieces read the head
more often, larger ones spend their time in page faults."""
_SMALLEST = torch.finfo(torch.float32).tiny
_SHARED_AT_LEAST = 64


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
    """Return (summed loss, answer tokens) of a batch.

    `model` is a causal language model, or a PEFT model around one, with a frozen head without
    bias. `batch` holds input_ids, attention_mask and labels, each [rows, tokens], padded right.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    shared = shared_tokens(batch)
    # Checkpointing recomputes the layers in the backward pass, and cannot with a cache.
    if shared < _SHARED_AT_LEAST or (causal.is_gradient_checkpointing and causal.training):
        shared = 0
    read = _after_shared if shared else _all_at_once
    hidden, targets = read(causal.model, batch, shared)
    loss = AnswerLoss.apply(hidden, causal.get_output_embeddings().weight, targets)
    return loss, len(targets)


def shared_tokens(batch: dict[str, torch.Tensor]) -> int:
    """Return how many leading tokens all rows have in common; 0 for a single row.

    The token before the first label is left out, since its hidden state predicts that label.
    """
    ids, labels = batch["input_ids"], batch["labels"]
    if len(ids) < 2:
        return 0
    same = (ids == ids[0]).all(dim=0) & (labels == -100).all(dim=0)
    same &= batch["attention_mask"].bool().all(dim=0)
    return max(0, int(same.long().cumprod(dim=0).sum()) - 1)


def _all_at_once(
    backbone: Any, batch: dict[str, torch.Tensor], _shared: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hidden states [n, h] before the learnt tokens, and those tokens [n]."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    hidden = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return _learnt(hidden, batch["labels"])


def _after_shared(
    backbone: Any, batch: dict[str, torch.Tensor], shared: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same, with the first `shared` tokens computed for the first row only."""
    from transformers import DynamicCache

    ids = batch["input_ids"]
    cache = backbone(input_ids=ids[:1, :shared], use_cache=True).past_key_values
    common = [(layer.keys, layer.values) for layer in cache.layers]
    found = []
    for row, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
        own = DynamicCache(common)  # adding to it leaves the common tensors as they are
        rest = ids[row : row + 1, shared:length]
        hidden = backbone(input_ids=rest, past_key_values=own, use_cache=True).last_hidden_state
        found.append(_learnt(hidden, batch["labels"][row : row + 1, shared:length]))
    return torch.cat([hidden for hidden, _ in found]), torch.cat([ids for _, ids in found])


def _learnt(hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    targets = labels[:, 1:]  # a position predicts the token after it
    learnt = targets != -100
    return hidden[:, :-1][learnt], targets[learnt]
