"""Several rows in one sequence, each of which sees exactly what it would see alone.

The rows of a micro-batch begin with the same system prompt, so it is computed once and each row
branches off from it:

    sequence    [shared prompt] [rest of row 1] [rest of row 2] ...
    positions    0 … s-1         s …             s …
    sees         itself          shared, itself  shared, itself      (each up to the own token)

No padding is computed, nor the same prompt twice: 8 rows of 990 tokens with 750 in common are
2,700 tokens instead of 7,900. Gradients flow through the shared part as well. Rows without a
common beginning lie side by side (`shared` = 0).

A mask over the whole sequence would cost its length squared, so the attention goes row by row
instead: a row's queries meet the keys of the shared prompt and its own, and no others are there to
be seen by mistake. It is an attention function of its own in transformers, to which the layout is
handed in the mask's place; unlike a cache it works with gradient checkpointing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contracts.errors import SettingsInvalid
from contracts.params import TrainParams
from images.trainer.rows import IGNORED

PACKED = "packed_rows"
"""Name of the attention function in transformers."""
_PROVEN = {"qwen2", "qwen3"}
"""Architectures that hand on the mask as it comes, and for which the tests compare."""
_SHARED_AT_LEAST = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """Where the rows lie in a packed sequence; stands in the place of an attention mask."""

    shared: int
    """Leading tokens that all rows see."""
    rests: list[int]
    """Tokens of each row after the shared ones."""
    masks: list[torch.Tensor | None]
    """For each row [1, 1, rest, shared + rest], true where a token is seen; None: plain causal."""


@dataclass(frozen=True)
class Packed:
    """A micro-batch as one sequence; each tensor is [1, tokens]."""

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    layout: Layout


def choose_packing(backend: str, base: Path, params: TrainParams) -> bool:
    """Return whether rows are packed, and say so; raise `SettingsInvalid` if they cannot be.

    The micro-batch has to be settled.
    """
    hindrance = _hindrance(backend, base)
    if params.packing == "on" and hindrance:
        raise SettingsInvalid(
            "train.packing=on is not possible here",
            why=hindrance,
            todo="Set train.packing=auto, or train.backend=transformers.",
        )
    if params.rows_at_once == 1:
        _log.warning("one row at a time: nothing to pack, nothing to pad")
        return False
    if params.packing == "off" or hindrance:
        why = hindrance or "train.packing=off"
        _log.warning("rows are padded, those of like length together: %s", why)
        return False
    _log.warning("rows are packed: a shared prompt is computed once, and no padding")
    return True


def enable_packing(model: Any) -> None:
    """Give a model, or the PEFT model around it, the attention that honours a `Layout`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, sdpa_mask)  # for what is not packed
    _causal(model).set_attn_implementation(PACKED)


def packs(model: Any) -> bool:
    """Return whether a model has this attention."""
    return bool(_causal(model).config._attn_implementation == PACKED)  # noqa: SLF001


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attend row by row; query, key and value are [1, heads, tokens, size].

    Returns [1, tokens, heads, size]. With a tensor or nothing for a mask it is transformers' own.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if not isinstance(attention_mask, Layout):
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **more
        )
        return plain
    shared = attention_mask.shared
    lengths = [shared, *attention_mask.rests]
    (first, *queries), (key0, *keys), (value0, *values) = (
        each.split(lengths, dim=2) for each in (query, key, value)
    )
    found = [sdpa_attention_forward(module, first, key0, value0, None, **more)[0]] if shared else []
    for own, k, v, mask in zip(queries, keys, values, attention_mask.masks, strict=True):
        if shared:
            k, v = torch.cat([key0, k], dim=2), torch.cat([value0, v], dim=2)  # noqa: PLW2901
        found.append(sdpa_attention_forward(module, own, k, v, mask, **more)[0])
    return torch.cat(found, dim=1), None


def pack(batch: dict[str, torch.Tensor]) -> Packed:
    """Return the rows of a batch as one sequence.

    `batch` holds input_ids, attention_mask and labels, each [rows, tokens], padded on the right.
    """
    shared = shared_tokens(batch)
    if shared < _SHARED_AT_LEAST:
        shared = 0
    ends = batch["attention_mask"].sum(dim=1).tolist()
    device = batch["input_ids"].device
    count = torch.arange(max(ends), device=device)

    def joined(rows: Iterable[torch.Tensor], first: torch.Tensor) -> torch.Tensor:
        own = [row[shared:end] for row, end in zip(rows, ends, strict=True)]
        return torch.cat([first[:shared], *own])[None]

    labels = batch["labels"].clone()
    labels[:, shared] = IGNORED  # the token before it in the sequence may be another row's
    return Packed(
        ids=joined(batch["input_ids"], batch["input_ids"][0]),
        labels=joined(labels, labels[0]),
        positions=joined([count] * len(ends), count),
        layout=Layout(
            shared, [end - shared for end in ends], [_seen(shared, end, device) for end in ends]
        ),
    )


def shared_tokens(batch: dict[str, torch.Tensor]) -> int:
    """Return how many leading tokens all rows have in common; 0 for a single row.

    The token before the first label is left out, since its hidden state predicts that label.
    """
    ids, labels = batch["input_ids"], batch["labels"]
    if len(ids) < 2:
        return 0
    same = (ids == ids[0]).all(dim=0) & (labels == IGNORED).all(dim=0)
    same &= batch["attention_mask"].bool().all(dim=0)
    return max(0, int(same.long().cumprod(dim=0).sum()) - 1)


def _seen(shared: int, end: int, device: torch.device) -> torch.Tensor | None:
    """Return which of a row's `end` keys its own queries see; None where it is plain causal."""
    if shared == 0:
        return None
    seen = torch.ones(end - shared, end, dtype=torch.bool, device=device)
    return seen.tril(diagonal=shared)[None, None]


def _hindrance(backend: str, base: Path) -> str:
    """Return why rows of this base cannot be packed; empty if they can."""
    if backend == "unsloth":
        return "Unsloth has an attention of its own, which is not proven to keep rows apart"
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") not in _PROVEN:
        return f"packing is not proven for the architecture {config.get('model_type')}"
    if config.get("use_sliding_window"):
        return "the base has layers that see a window of tokens only"
    return ""


def _causal(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
