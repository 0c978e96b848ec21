"""The streaming forward pass is transformers', for models of every form that occurs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from images.weights.forward import FromFiles, Shape, pack, predict, tokens_in
from images.weights.lora import NotCovered, plan_updates
from images.weights.shards import model_shards
from tests.unit.lora_models import make_adapter, make_base

ROWS = ([7, 8, 9, 10, 11, 12, 13], [7, 8, 9, 40, 41], [7, 8, 9, 10, 50, 51, 52, 53, 54])
ASKED = ([4, 7], [2, 5], [9])


def config_of(base: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((base / "config.json").read_text())
    return found


def by_transformers(model: Any) -> torch.Tensor:
    found = []
    with torch.no_grad():
        for row, asked in zip(ROWS, ASKED, strict=True):
            logits = model(input_ids=torch.tensor([row])).logits[0].float()
            found += [logits[length - 1] for length in asked]
    return torch.log_softmax(torch.stack(found), dim=-1)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"tie_word_embeddings": False, "shard": "40KB"},
        {"attention_bias": True, "num_key_value_heads": 4, "rope_theta": 500.0},
    ],
)
def test_it_is_transformers_forward(tmp_path: Path, config: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = make_base(tmp_path / "base", **config)
    adapter = make_adapter(tmp_path / "adapter", base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    packed = pack(ROWS, ASKED)
    with FromFiles(base) as weights:
        alone = predict(weights, config_of(base), packed)
    torch.testing.assert_close(alone, by_transformers(model), rtol=1e-4, atol=1e-4)

    tensors = {entry.name: entry for found in model_shards(base).values() for entry in found}
    updates = plan_updates(adapter, tensors, config_of(base))
    with FromFiles(base, updates) as weights:
        together = predict(weights, config_of(base), packed)
    with_adapter = by_transformers(PeftModel.from_pretrained(model, str(adapter)))
    torch.testing.assert_close(together, with_adapter, rtol=1e-3, atol=1e-3)
    assert (together - alone).abs().max() > 1


def test_common_tokens_are_computed_once() -> None:
    packed = pack(ROWS, ASKED)
    assert tokens_in(ROWS) == len(packed.tokens) == 3 + 4 + 2 + 6
    assert packed.tokens[packed.wanted].tolist() == [10, 13, 8, 41, 54]
    single = pack(ROWS[:1], ASKED[:1])
    assert torch.equal(single.sees, torch.ones(7, 7).tril().bool())


@pytest.mark.parametrize(
    "changed",
    [
        {"model_type": "qwen2"},
        {"rope_scaling": {"rope_type": "yarn"}},
        {"use_sliding_window": True},
        {"hidden_act": "gelu"},
    ],
)
def test_what_is_computed_otherwise_is_not_guessed(tmp_path: Path, changed: dict[str, Any]) -> None:
    config = {**config_of(make_base(tmp_path / "base")), "rope_parameters": None, **changed}
    with pytest.raises(NotCovered):
        Shape.of(config)
