"""Training on an 8-bit and on a 4-bit base, for real: bitsandbytes runs on a CPU as well."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

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
def test_every_projection_is_quantised_and_nothing_else(tiny_base: Path, load_in: str) -> None:
    model = loaded(tiny_base, load_in)
    stored = Counter(weight.dtype for name, weight in model.named_parameters() if "_proj.b" in name)
    assert stored == {STORED[load_in]: 2 * len(PROJECTIONS)}
    assert model.get_base_model().get_output_embeddings().weight.dtype is torch.bfloat16
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_one_layer_that_is_not_quantised_is_seen(tiny_base: Path) -> None:
    model = loaded(tiny_base, "8bit")
    lora = model.get_base_model().model.layers[1].mlp.up_proj
    lora.base_layer = torch.nn.Linear(32, 96, bias=False, dtype=torch.bfloat16)
    with pytest.raises(SentinelTripped, match="sentinel precision") as caught:
        check_precision(model, "8bit")
    assert caught.value.why == "projections found: 13 in 8bit, 1 in bf16"


def test_four_bits_of_another_kind_are_seen(tiny_base: Path) -> None:
    asked = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4")
    model = AutoModelForCausalLM.from_pretrained(
        tiny_base, quantization_config=asked, device_map={"": "cpu"}
    )
    with pytest.raises(SentinelTripped, match="sentinel precision") as caught:
        check_precision(model, "4bit")
    assert caught.value.why == "projections found: 14 in fp4"


class Killed(BaseException):
    """Stands for a kill: nothing in the stage may catch it."""


@pytest.mark.parametrize("load_in", STORED)
def test_it_learns_and_a_kill_changes_nothing(
    tiny_base: Path, tmp_path: Path, load_in: str
) -> None:
    # Four bits change what 32 random columns compute by more than the sentinel of drift allows.
    reference = {"reference_tokens": 0} if load_in == "4bit" else {}
    settings = TRAINING | {"load_in": load_in, "gradient_checkpointing": "on"} | reference

    def trained(root: Path, kill_in: int = 0) -> tuple[Any, Path]:
        def emit(event: Event) -> None:
            if event.done == kill_in:
                raise Killed

        inputs = workspace(root, tiny_base, rows(10))
        if kill_in:
            with pytest.raises(Killed):
                run(root, TRAIN, train.work, inputs, settings, emit)
        result = run(root, TRAIN, train.work, inputs, settings)
        return result.metrics, folder_of(root, TRAIN) / "out" / "lora_adapter"

    metrics, whole = trained(tmp_path / "whole")
    assert metrics["validation_loss"] < 0.5 * metrics["untrained_loss"]
    adapter = whole / "adapter_model.safetensors"
    assert {tensor.dtype for tensor in load_file(adapter).values()} == {torch.float32}
    _, resumed = trained(tmp_path / "killed", kill_in=3)
    assert (resumed / adapter.name).read_bytes() == adapter.read_bytes()


@pytest.mark.parametrize("load_in", STORED)
def test_an_evaluation_leaves_gradients_as_they_are(tiny_base: Path, load_in: str) -> None:
    # bitsandbytes would lay 4-bit weights out anew, and lose the gradients of what is below.
    model = loaded(tiny_base, load_in)
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
