"""Batches of random rows, and an attention that contaminates them."""

from __future__ import annotations

from typing import Any

import torch

from images.trainer.packing import Layout
from images.trainer.rows import IGNORED

Batch = dict[str, torch.Tensor]


def batch_of(shared: int, rows: list[tuple[int, int]], seed: int = 0) -> Batch:
    """Return random rows, padded right, that have `shared` leading tokens in common."""
    random = torch.Generator().manual_seed(seed)
    lengths = [shared + own + answer for own, answer in rows]
    ids = torch.randint(0, 140_000, (len(rows), max(lengths)), generator=random)
    ids[:, :shared] = ids[0, :shared]
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for row, (length, (_, answer)) in enumerate(zip(lengths, rows, strict=True)):
        labels[row, length - answer : length] = ids[row, length - answer : length]
        mask[row, :length] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def one_causal_sequence(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **more: Any
) -> Any:
    """Attend as a function does that knows nothing of the layout."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    mask = None if isinstance(attention_mask, Layout) else attention_mask
    return sdpa_attention_forward(module, query, key, value, mask, **more)
