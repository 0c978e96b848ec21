"""The merge by PEFT itself, with the whole model in memory: for what streaming does not cover.

It needs the model's size in memory, and starts from the beginning after a kill.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from contracts.errors import SentinelTripped
from images.weights.adapter_config import read_config
from images.weights.lora import WEIGHTS, lora_modules
from images.weights.model_files import base_config
from images.weights.shards import NAMES, by_name, model_shards

_SHARD_SIZE = "4GB"
_PARTS = 4
_LINES = 3  # of an error of PEFT, which has one for each tensor


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
    _check_layers(adapter)
    tell(0, _PARTS)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=_merged_in(base, dtype), device_map="cpu", local_files_only=True
    )
    tell(1, _PARTS)
    with _named("place", "Take both files of the adapter from one training on this base."):
        with_adapter = PeftModel.from_pretrained(model, str(adapter))
    _check_attached(with_adapter, touched, lora_modules(adapter))
    _check_tensors(with_adapter, adapter)
    tell(2, _PARTS)
    # safe_merge would round twice: the update to bf16, and then the sum
    with _named("merge", "Train it on this base, with what the base's modules have."):
        merged = with_adapter.merge_and_unload(safe_merge=False).to(dtype)
    tell(3, _PARTS)
    shutil.rmtree(out, ignore_errors=True)  # of an attempt that was killed
    out.mkdir(parents=True)
    merged.save_pretrained(out, max_shard_size=_SHARD_SIZE)
    tell(_PARTS, _PARTS)


def _merged_in(base: Path, dtype: torch.dtype) -> torch.dtype:
    """Return the type to load the base in: its matrices' own if that is the output's, else fp32."""
    tensors = by_name(model_shards(base)).values()
    stored = {entry.dtype for entry in tensors if len(entry.shape) > 1}
    return dtype if stored == {NAMES[dtype]} else torch.float32


def _check_head(base: Path, adapter: Path) -> None:
    """Raise for a LoRA on a head that is the embedding: each merge would change that as well.

    A copy of head or embedding that was trained in its place (`modules_to_save`) is another matter:
    with it the merged model has two of them, unless PEFT was told to keep them tied.
    """
    tied = base_config(base).get("tie_word_embeddings")
    if tied and "lm_head" in lora_modules(adapter):
        raise SentinelTripped(
            "sentinel tied_head: the adapter trains the head, which in this base is the embedding",
            why="they are one tensor, so that a merge would change both",
            todo="Train without lm_head, or with a copy of it (modules_to_save), or on a base with "
            "tie_word_embeddings=false and a head.",
        )


def _check_layers(adapter: Path) -> None:
    """Raise for an adapter on repeated layers, which PEFT can compute with, but not save merged."""
    if repeated := read_config(adapter).get("layer_replication"):
        raise SentinelTripped(
            "sentinel adapter_modules: the adapter repeats layers of the base (layer_replication)",
            why=f"as {repeated}; merged it would be a model of another number of layers",
            todo="Train without layer_replication, or on a base that has these layers itself.",
        )


@contextmanager
def _named(does: str, todo: str) -> Iterator[None]:
    """Give what PEFT cannot do with this adapter a name."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        if "memory" in str(error):  # PyTorch has no other sign of it on a CPU
            raise
        raise SentinelTripped(
            f"sentinel adapter_modules: PEFT cannot {does} this adapter",
            why=" ".join(f"{type(error).__name__}: {error}".splitlines()[:_LINES]),
            todo=todo,
        ) from error


def _check_attached(model: Any, touched: set[str], with_lora: set[str]) -> None:
    """Raise unless every module of the adapter was found in the model; PEFT itself only warns.

    Those that got a LoRA have to be exactly those that the adapter has one for; what it holds
    beside them (trained biases, `modules_to_save`, another kind of adapter) has to have its place.
    """
    if not hasattr(model.base_model, "merge_and_unload"):
        raise SentinelTripped(
            f"sentinel adapter_modules: {type(model).__name__} cannot be merged",
            why="PEFT has no way to add what it trains to the base's weights",
            todo="Train a kind of adapter that can be, as LoRA is.",
        )
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
            todo="Merge the adapter into the base that it was trained on.",
        )


def _check_tensors(model: Any, adapter: Path) -> None:
    """Raise unless the adapter holds each tensor that its config stands for, and no other.

    What it lacks PEFT has drawn at random, and only warns of; what nobody knows it leaves out, or
    puts in the place of the base's own tensor of that name. Known are those that PEFT would save,
    the base's embeddings among them, which it keeps beside an adapter on them.
    """
    from peft import get_peft_model_state_dict

    with safe_open(adapter / WEIGHTS, framework="pt") as tensors:
        held = set(tensors.keys())
    needed, known = (
        set(get_peft_model_state_dict(model, save_embedding_layers=embeddings))
        for embeddings in (False, True)
    )
    for names, fault in (
        (needed - held, "are missing, which its config stands for"),
        (held - known, "are unknown to a LoRA of its config"),
    ):
        if names:
            raise SentinelTripped(
                f"sentinel adapter_tensors: {len(names)} tensors of the adapter {fault}",
                why=", ".join(sorted(names)[:5]),
                todo="Take both files of the adapter from one training, or train it again.",
            )
