"""What a merge computes: W' = round(W + scaling * (B @ A)), all in fp32, rounded once.

That is bit for bit what PEFT's merge_and_unload(safe_merge=False) leaves on a CPU when the base is
in the output's type: `bf16 += fp32` adds in fp32 and rounds the sum. safe_merge=True rounds the
update too: all 21 merged tensors of a small model came out otherwise. Where the base is in another
type PEFT rounds at loading as well; then this is PEFT's merge of the base loaded in fp32, rounded
at the end. tests/unit/test_merge_against_peft.py holds both to the bit.

Everything after the product is done value by value, so how a tensor is cut changes no bit.
"""

from __future__ import annotations

import torch

from contracts.errors import SentinelTripped
from images.weights.lora import Trained, Update

BLOCK = 2**18
"""Elements worked on at a time: 1 MiB in fp32, which a core's cache holds. Eight times as many took
twice as long, half as many no less."""


def unscaled(update: Update | None) -> torch.Tensor | None:
    """Return what `merge_block` adds or puts in place, flat, in fp32; None where nothing is."""
    if update is None:
        return None
    whole = update.value().float() if isinstance(update, Trained) else update.product()
    return whole.view(-1)


def merge_block(
    old: torch.Tensor, value: torch.Tensor, update: Update | None, new: torch.Tensor
) -> bool:
    """Merge a block of the base, `old`, into `new`, of the output's type; all three are flat.

    `value` is the same block of `unscaled(update)`, and is overwritten. Return whether the block
    differs from the base's in the output's type.
    """
    new.copy_(_updated(old, value, update))
    return not torch.equal(new, old.to(new.dtype))


def merge_tensor(
    old: torch.Tensor, update: Update | None, dtype: torch.dtype
) -> tuple[torch.Tensor, bool]:
    """Return a tensor of the merged model, and whether it differs from the base's in `dtype`."""
    value = unscaled(update)
    if value is None:
        return old.to(dtype), False
    flat = old.reshape(-1)
    new = torch.empty(flat.shape, dtype=dtype)
    changed = False
    for at in range(0, len(flat), BLOCK):
        end = at + BLOCK
        differs = merge_block(flat[at:end], value[at:end], update, new[at:end])
        changed = changed or differs
    return new.view(old.shape), changed


def check_finite(name: str, merged: torch.Tensor) -> None:
    """Raise `SentinelTripped` for NaN or infinity in a tensor of the merged model, or a block.

    Their sum is not finite if one of them is not, and is there in a twentieth of the time. It can
    overflow where they are.
    """
    if not bool(merged.sum().isfinite()) and not bool(merged.isfinite().all()):
        raise SentinelTripped(
            f"sentinel finite_weights: NaN or infinity in {name} of the merged model",
            why="the base holds it, or base and update are beyond the type's range",
            todo="Check the base's files; then train again with a lower train.learning_rate.",
        )


def _updated(old: torch.Tensor, value: torch.Tensor, update: Update | None) -> torch.Tensor:
    """Return old + scaling * value in fp32: two roundings to fp32, as PEFT's two operations."""
    if update is None or isinstance(update, Trained):
        return value
    if update.scaling != 1:
        value.mul_(update.scaling)
    return value.add_(old)
