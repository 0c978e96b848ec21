"""A Qwen3 of any size with random weights, and an adapter on it: for what only moves weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QWEN = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
SIZE_1_7B = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28}
RANK, ALPHA, FILES = 16, 16, 4
OUTLIERS, OUTLIER_GAIN = 6, 20.0
"""Dimensions that the norms of every layer raise, and by how much. Models of this size have about
six whose activations exceed all others, which LLM.int8() computes apart (Dettmers et al. 2022,
arXiv:2208.07339, section 4); without any, int8 would look faster than it is."""


def make(root: Path, size: dict[str, Any]) -> int:
    """Write base and adapter with random weights below `root`; return the number of parameters."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(11)
    shapes = _shapes(size)
    adapter = root / "lora_adapter"
    write_base(root / "base", size, random)
    adapter.mkdir()
    lora = {}
    for name, shape in shapes.items():
        if "_proj" in name:
            module = "base_model.model." + name.removesuffix(".weight")
            for part, of in (("A", (RANK, shape[1])), ("B", (shape[0], RANK))):
                lora[f"{module}.lora_{part}.weight"] = torch.empty(of).normal_(
                    std=0.02, generator=random
                )
    save_file(lora, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    _write(adapter / "adapter_config.json", _adapter_config())
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def write_base(base: Path, size: dict[str, Any], random: Any, *, count: int = FILES) -> None:
    """Write a base of random weights in bf16 in `count` files.

    `random` is the generator of the weights, on the device that makes them.
    """
    import torch
    from safetensors.torch import save_file

    def weight(name: str, shape: tuple[int, ...]) -> Any:
        tensor = torch.ones(shape, dtype=torch.bfloat16, device=random.device)
        if len(shape) > 1:
            tensor.normal_(std=0.02, generator=random)
        elif name.endswith("layernorm.weight"):
            tensor[:OUTLIERS] = OUTLIER_GAIN
        return tensor.cpu()

    base.mkdir()
    shapes = _shapes(size)
    names = list(shapes)
    places: dict[str, str] = {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        own = names[number * len(names) // count : (number + 1) * len(names) // count]
        tensors = {n: weight(n, shapes[n]) for n in own}
        save_file(tensors, base / name, metadata={"format": "pt"})
        places |= dict.fromkeys(own, name)
    _write(base / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    _write(base / "config.json", _config(size))


def _shapes(size: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a Qwen3 of this size, in the order of its layers."""
    hidden, inner, head = size["hidden_size"], size["intermediate_size"], size["head_dim"]
    query, key = size["num_attention_heads"] * head, size["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (size["vocab_size"], hidden)}
    for layer in range(size["num_hidden_layers"]):
        for name, shape in {
            "self_attn.q_proj": (query, hidden),
            "self_attn.k_proj": (key, hidden),
            "self_attn.v_proj": (key, hidden),
            "self_attn.o_proj": (hidden, query),
            "self_attn.q_norm": (head,),
            "self_attn.k_norm": (head,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return {
        **shapes,
        "model.norm.weight": (hidden,),
        "lm_head.weight": (size["vocab_size"], hidden),
    }


def _config(size: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **size,
    }


def _adapter_config() -> dict[str, Any]:
    from images.trainer.backends import PROJECTIONS

    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": list(PROJECTIONS),
    }


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
