"""The loss is that of transformers; only its cost differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.errors import GpuUnavailable, SentinelTripped, SettingsInvalid
from contracts.params import (
    TrainParams,
)
from images.trainer import loss
from images.trainer.backends import check_precision, choose_backend, load_model
from images.trainer.packing import enable_packing
from tests.unit.model_stages import TRAINING

PARAMS = TrainParams(**TRAINING)


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Any:
    made = load_model("transformers", tiny_base, PARAMS)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return made.train()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three rows of 100, 104 and 108 tokens that have 80 in common; the last ten are learnt."""
    random = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 150_000, (3, 108), generator=random)
    ids[:, :80] = ids[0, :80]
    labels = torch.full_like(ids, -100)
    mask = torch.ones_like(ids)
    for row, length in enumerate((100, 104, 108)):
        labels[row, length - 10 : length] = ids[row, length - 10 : length]
        mask[row, length:] = 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("attention", ["packed_rows", "sdpa"])
@pytest.mark.parametrize("chunk", [16, 512])
def test_loss_and_gradient_equal_those_of_transformers(
    model: Any,
    batch: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    attention: str,
    chunk: int,
) -> None:
    model.zero_grad()
    expected = model(**batch).loss
    expected.backward()
    expected_gradients = gradients(model)

    enable_packing(model)
    model.get_base_model().set_attn_implementation(attention)
    monkeypatch.setattr(loss, "CHUNK_TOKENS", chunk)
    model.zero_grad()
    summed, tokens = loss.answer_loss(model, batch)
    (summed / tokens).backward()

    assert tokens == 30
    torch.testing.assert_close(summed / tokens, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(model), expected_gradients, rtol=1e-3, atol=1e-5)


def test_precision_is_checked_after_loading(model: Any) -> None:
    check_precision(model, "fp32")
    with pytest.raises(SentinelTripped, match=r"precision.*8bit") as caught:
        check_precision(model, "8bit")
    assert caught.value.why == "projections found: 14 in fp32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named() -> None:
    with pytest.raises(GpuUnavailable, match="no GPU"):
        choose_backend(PARAMS.model_copy(update={"device": "cuda"}))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SettingsInvalid, match="bitsandbytes"):
        choose_backend(PARAMS.model_copy(update={"load_in": "4bit"}))
