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
from images.weights.lora import lora_modules, read_config
from images.weights.model_files import base_config
from images.weights.shards import NAMES, model_shards

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
    """Write the merged weights to `out`, which is emptied; `tell` hears of parts done.

    A base in another type than the output's is merged in fp32 and rounded at the end; one in the
    output's own type is merged as it is, which takes half the memory. Raises `SentinelTripped` for
    an adapter that has no place in the base.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _check_head(base, adapter)
    tell(0, _PARTS)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=_merged_in(base, dtype), device_map="cpu", local_files_only=True
    )
    tell(1, _PARTS)
    with_adapter = PeftModel.from_pretrained(model, str(adapter))
    _check_attached(with_adapter, touched, lora_modules(adapter))
    tell(2, _PARTS)
    # safe_merge would round twice: the update to bf16, and then the sum
    merged = _merged(with_adapter).to(dtype)
    tell(3, _PARTS)
    shutil.rmtree(out, ignore_errors=True)  # of an attempt that was killed
    out.mkdir(parents=True)
    merged.save_pretrained(out, max_shard_size=_SHARD_SIZE)
    tell(_PARTS, _PARTS)


def _merged_in(base: Path, dtype: torch.dtype) -> torch.dtype:
    """Return the type to load the base in: its matrices' own if that is the output's, else fp32."""
    entries = (entry for found in model_shards(base).values() for entry in found)
    stored = {entry.dtype for entry in entries if len(entry.shape) > 1}
    return dtype if stored == {NAMES[dtype]} else torch.float32


def _check_head(base: Path, adapter: Path) -> None:
    """Raise for a trained head that is the embedding: each merge would change that as well."""
    trained = lora_modules(adapter) | set(read_config(adapter).get("modules_to_save") or ())
    if base_config(base).get("tie_word_embeddings") and "lm_head" in trained:
        raise SentinelTripped(
            "sentinel tied_head: the adapter trains the head, which in this base is the embedding",
            why="merged, it would change the embedding, which was trained as it is",
            todo="Train without lm_head, or on a base with tie_word_embeddings=false and a head.",
        )


def _merged(model: Any) -> Any:
    """Return the merged model; what PEFT cannot merge has a name."""
    try:
        return model.merge_and_unload(safe_merge=False)
    except (RuntimeError, ValueError) as error:
        if "memory" in str(error):  # PyTorch has no other sign of it on a CPU
            raise
        raise SentinelTripped(
            "sentinel adapter_modules: PEFT cannot merge this adapter into the base",
            why=str(error),
            todo="Train the adapter on this base, with what the base's modules have.",
        ) from error


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
