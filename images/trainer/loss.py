"""The loss on the answer tokens only, without the logits of all the others.

Qwen3's head is 151,936 wide. Over a prompt of 900 tokens it costs far more than the rest of a
small model, and none of it is used. TRL 1.15 computes at labelled positions too, but in a Triton
kernel, which a CPU cannot run; this is the same in plain torch.
"""

from __future__ import annotations

from typing import Any

import torch

CHUNK_TOKENS = 64
"""Answer tokens a piece; 64 rows of 151,936 logits take 39 MB in fp32, and twice that in all."""


class AnswerLoss(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """Summed negative log-likelihood (nats) of target tokens under a frozen linear head.

    The gradient of softmax cross-entropy in the logits is `softmax - one_hot(target)`, so it is
    made in the forward pass, chunk by chunk, while the softmax is there: no logits are kept. The
    idea is that of the fused linear cross-entropy of Liger (Hsu et al. 2024, arXiv:2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss and the number of targets that were the most likely token.

        Shapes: hidden [n, h], head [vocabulary, h], targets [n]. The head gets no gradient.
        """
        head = head.detach()
        chunk = min(CHUNK_TOKENS, max(1, len(targets)))
        logits = hidden.new_empty((chunk, len(head)), dtype=torch.float32)
        softmax = torch.empty_like(logits)
        total = hidden.new_zeros((), dtype=torch.float32)
        hits = torch.zeros((), dtype=torch.long, device=hidden.device)
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
            top, at = scores.max(dim=-1, keepdim=True)
            # log-sum-exp by way of the largest score, whose share can never underflow
            total += (top - shares.gather(1, at).log() - scores.gather(1, wanted)).sum()
            hits += (at == wanted).sum()
            if gradient is not None:
                shares.scatter_add_(1, wanted, torch.full_like(top, -1.0))
                gradient[start : start + chunk] = shares.to(head.dtype) @ head
        ctx.gradient = gradient
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the gradient in `hidden`, scaled by the outer one (a scalar)."""
        return ctx.gradient * outer[0].to(ctx.gradient.dtype), None, None


def answer_loss(
    model: Any, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return (summed loss, hits, answer tokens) of a batch.

    `model` is a causal language model, or a PEFT model around one, with a frozen head without
    bias. `batch` holds input_ids, attention_mask and labels, each [rows, tokens].
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state
    targets = batch["labels"][:, 1:]  # a position predicts the token after it
    learnt = targets != -100
    loss, hits = AnswerLoss.apply(
        hidden[:, :-1][learnt], causal.get_output_embeddings().weight, targets[learnt]
    )
    return loss, hits, int(learnt.sum())
