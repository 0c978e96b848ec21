"""Small random models and adapters with all their weights drawn, for tests of the merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from images.trainer.backends import PROJECTIONS

_QWEN = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": True,
}
_GPT2 = {"vocab_size": 320, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}


def make_base(
    out: Path, kind: str = "qwen3", *, dtype: str = "bfloat16", shard: str = "1GB", **config: Any
) -> Path:
    """Save a model of this kind (`qwen3`, `qwen2` with biases, `gpt2`) in files of `shard`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    given = AutoConfig.for_model(kind, **{**(_GPT2 if kind == "gpt2" else _QWEN), **config})
    model = AutoModelForCausalLM.from_config(given, dtype=torch.float32)
    _draw(model, 0.3, lambda _name: True)
    model.to(getattr(torch, dtype)).save_pretrained(out, max_shard_size=shard)
    return out


def make_adapter(
    out: Path, base: Path, *, dtype: str = "float32", embeddings: bool = False, **lora: Any
) -> Path:
    """Save a LoRA with random weights: rank 4, alpha 6, on all projections unless told."""
    from peft import LoraConfig

    given = {"r": 4, "lora_alpha": 6, "target_modules": list(PROJECTIONS), **lora}
    return save_adapter(
        out, base, LoraConfig(task_type="CAUSAL_LM", **given), dtype=dtype, embeddings=embeddings
    )


def save_adapter(
    out: Path, base: Path, config: Any, *, dtype: str = "float32", embeddings: bool = False
) -> Path:
    """Save an adapter of any kind, with random values for all that would be trained.

    `embeddings`: PEFT saves those of the base as well, as it does when one is a target.
    """
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    _draw(model, 0.2, lambda name: model.get_parameter(name).requires_grad)
    model.to(getattr(torch, dtype)).save_pretrained(out, save_embedding_layers=embeddings)
    return out


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the tensors of PEFT's own merge of the base loaded in `dtype`."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=False)
    found: dict[str, torch.Tensor] = merged.state_dict()
    return found


def _draw(model: Any, spread: float, chosen: Any) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if chosen(name):
                weight.normal_(std=spread)
