"""The merge by PEFT itself, with the whole model in memory: for what streaming does not cover.

It needs the model's size in memory, and starts from the beginning after a kill.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from contracts.errors import SentinelTripped
from images.weights.lora import lora_modules

_SHARD_SIZE = "4GB"
_PARTS = 4


def merge_with_peft(
    base: Path,
    adapter: Path,
    out: Path,
    dtype: torch.dtype,
    touched: set[str],
    tell: Callable[[int, int], None],
) -> None:
    """Write the merged weights to `out`, which is emptied; `tell` hears of parts done."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tell(0, _PARTS)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, device_map="cpu", local_files_only=True
    )
    tell(1, _PARTS)
    with_adapter = PeftModel.from_pretrained(model, str(adapter))
    _check_attached(with_adapter, touched, lora_modules(adapter))
    tell(2, _PARTS)
    # safe_merge would round twice: the update to bf16, and then the sum
    merged = with_adapter.merge_and_unload(safe_merge=False)
    tell(3, _PARTS)
    shutil.rmtree(out, ignore_errors=True)  # of an attempt that was killed
    out.mkdir(parents=True)
    merged.save_pretrained(out, max_shard_size=_SHARD_SIZE)
    tell(_PARTS, _PARTS)


def _check_attached(model: Any, touched: set[str], with_lora: set[str]) -> None:
    """Raise unless every module of the adapter was found in the model; PEFT itself only warns.

    Those that got a LoRA have to be exactly those that the adapter has one for; what it holds
    beside them (trained biases, `modules_to_save`, another kind of adapter) has to have its place.
    """
    if not hasattr(model.base_model, "merge_and_unload"):
        raise SentinelTripped(f"sentinel adapter_modules: {type(model).__name__} cannot be merged")
    modules = {
        name.removeprefix("base_model.model."): module for name, module in model.named_modules()
    }
    attached = {
        name
        for name, module in modules.items()
        if any(len(getattr(module, part, ())) for part in ("lora_A", "lora_embedding_A"))
    }
    if difference := sorted((attached ^ with_lora) | (touched - set(modules))):
        raise SentinelTripped(
            f"sentinel attached_modules: {len(difference)} modules differ between the adapter and "
            "the base model",
            why=", ".join(difference[:5]),
        )
