"""Training on an 8-bit and on a 4-bit base, for real: bitsandbytes runs on a CPU as well."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from contracts.drift import AS_TRAINED
from contracts.errors import SentinelTripped
from contracts.params import TrainParams
from contracts.stage import Event
from contracts.stages import TRAIN
from images.trainer import train
from images.trainer.backends import PROJECTIONS, check_precision, load_model
from images.trainer.loss import answer_loss
from tests.unit.model_stages import TRAINING, folder_of, rows, run, workspace
from tests.unit.packed_batches import batch_of

STORED = {"8bit": torch.int8, "4bit": torch.uint8}


def loaded(base: Path, load_in: str) -> Any:
    return load_model("transformers", base, TrainParams(**{**TRAINING, "load_in": load_in}))


@pytest.mark.parametrize("load_in", STORED)
def test_every_projection_is_quantised_and_nothing_else(wide_base: Path, load_in: str) -> None:
    model = loaded(wide_base, load_in)
    stored = Counter(weight.dtype for name, weight in model.named_parameters() if "_proj.b" in name)
    assert stored == {STORED[load_in]: 2 * len(PROJECTIONS)}
    assert model.get_base_model().get_output_embeddings().weight.dtype is torch.bfloat16
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_one_layer_that_is_not_quantised_is_seen(wide_base: Path) -> None:
    model = loaded(wide_base, "8bit")
    lora = model.get_base_model().model.layers[1].mlp.up_proj
    lora.base_layer = torch.nn.Linear(64, 192, bias=False, dtype=torch.bfloat16)
    with pytest.raises(SentinelTripped, match="sentinel precision") as caught:
        check_precision(model, "8bit")
    assert caught.value.why == "projections found: 13 in 8bit, 1 in bf16"


def test_the_weights_are_the_base_s_rounded_to_nf4(wide_base: Path) -> None:
    original = load_file(wide_base / "model.safetensors")
    model = loaded(wide_base, "4bit").get_base_model()
    for name, module in model.named_modules():
        if name.endswith("base_layer"):
            expected = original[name.replace("base_layer", "weight")].float()
            held = dequantize_4bit(module.weight, module.weight.quant_state).float()
            distance = (held - expected).norm() / expected.norm()
            assert 0.05 < distance < 0.12, name  # of normal values 0.09, in blocks of 64


def test_rows_of_half_a_block_of_nf4_are_refused_on_a_cpu(tiny_base: Path) -> None:
    with pytest.raises(SentinelTripped, match=r"sentinel precision.*on a CPU") as caught:
        loaded(tiny_base, "4bit")
    assert "rows of 32, 96 weights, no multiple of a block of 64" in caught.value.why


def test_four_bits_of_another_kind_are_seen(wide_base: Path) -> None:
    asked = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4")
    model = AutoModelForCausalLM.from_pretrained(
        wide_base, quantization_config=asked, device_map={"": "cpu"}
    )
    with pytest.raises(SentinelTripped, match="sentinel precision") as caught:
        check_precision(model, "4bit")
    assert caught.value.why == "projections found: 14 in fp4"


class Killed(BaseException):
    """Stands for a kill: nothing in the stage may catch it."""


@pytest.mark.parametrize("load_in", STORED)
def test_it_learns_and_a_kill_changes_nothing(
    wide_base: Path, tmp_path: Path, load_in: str
) -> None:
    settings = TRAINING | {"load_in": load_in, "gradient_checkpointing": "on"}

    def trained(root: Path, kill_in: int = 0) -> tuple[Any, Path]:
        def emit(event: Event) -> None:
            if event.done == kill_in:
                raise Killed

        inputs = workspace(root, wide_base, rows(10))
        if kill_in:
            with pytest.raises(Killed):
                run(root, TRAIN, train.work, inputs, settings, emit)
        result = run(root, TRAIN, train.work, inputs, settings)
        return result.metrics, folder_of(root, TRAIN) / "out" / "lora_adapter"

    metrics, whole = trained(tmp_path / "whole")
    assert metrics["validation_loss"] < 0.5 * metrics["untrained_loss"]
    assert 0 < metrics["held_drift"] < AS_TRAINED[load_in].divergence / 5
    adapter = whole / "adapter_model.safetensors"
    assert {tensor.dtype for tensor in load_file(adapter).values()} == {torch.float32}
    _, resumed = trained(tmp_path / "killed", kill_in=3)
    assert (resumed / adapter.name).read_bytes() == adapter.read_bytes()


@pytest.mark.parametrize("load_in", STORED)
def test_an_evaluation_leaves_gradients_as_they_are(wide_base: Path, load_in: str) -> None:
    # bitsandbytes would lay 4-bit weights out anew, and lose the gradients of what is below.
    model = loaded(wide_base, load_in)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    batch = batch_of(30, [(12, 8), (9, 8)])

    def gradients() -> torch.Tensor:
        model.train().zero_grad()
        answer_loss(model, batch)[0].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    before = gradients()
    with torch.no_grad():
        answer_loss(model.eval(), batch)
    assert torch.equal(gradients(), before)
