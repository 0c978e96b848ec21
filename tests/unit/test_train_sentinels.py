"""Each sentinel of the training, with the failure planted that it is there for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.errors import SentinelTripped
from contracts.stage import Event
from contracts.stages import TRAIN
from images.trainer import backends, packing, train
from images.trainer.sentinels import check_loss_fell
from tests.unit.model_stages import TRAINING, folder_of, rows, run, workspace
from tests.unit.packed_batches import one_causal_sequence

Plant = Callable[[pytest.MonkeyPatch], None]


def trained(root: Path, base: Path, **settings: Any) -> list[Event]:
    """Run the stage on ten rows; return its events."""
    events: list[Event] = []
    inputs = workspace(root, base, rows(10))
    run(root, TRAIN, train.work, inputs, TRAINING | settings, events.append)
    return events


def tripped(root: Path, base: Path, sentinel: str, **settings: Any) -> SentinelTripped:
    """Return the error that ends the stage; nothing may be published."""
    with pytest.raises(SentinelTripped, match=f"sentinel {sentinel}: ") as caught:
        trained(root, base, **settings)
    assert not (folder_of(root, TRAIN) / "out").exists()
    assert caught.value.todo
    return caught.value


def altered(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Change the model after it was loaded and checked."""
    load = backends.load_model

    def loaded(*arguments: Any, **named: Any) -> Any:
        model = load(*arguments, **named)
        change(model)
        return model

    monkeypatch.setattr(train, "load_model", loaded)


def test_precision_a_base_that_is_not_quantised(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = backends._load_transformers
    monkeypatch.setattr(
        backends,
        "_load_transformers",
        lambda base, params, device: load(
            base, params.model_copy(update={"load_in": "bf16"}), device
        ),
    )
    error = tripped(tmp_path, tiny_base, "precision", load_in="8bit")
    assert error.why == "projections found: 14 in bf16"


@pytest.mark.parametrize("fault", ["missing", "unknown", "another size"])
def test_base_tensors_files_that_are_not_of_one_model(
    tiny_base: Path, tmp_path: Path, fault: str
) -> None:
    """Without a reference too, where nothing else would look at them."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_base, broken)
    weights = load_file(broken / "model.safetensors")
    norm = "model.layers.1.self_attn.q_norm.weight"
    if fault == "missing":
        del weights[norm]
    elif fault == "unknown":
        weights["model.layers.2.self_attn.q_norm.weight"] = weights[norm].clone()
    else:
        weights[norm] = weights[norm].repeat(2)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    error = tripped(tmp_path / "w", broken, "base_tensors", reference_tokens=0)
    assert fault in error.what
    assert "self_attn.q_norm.weight" in error.why


def test_finite_loss_a_base_with_a_weight_that_is_no_number(
    tiny_base: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_base, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    error = tripped(tmp_path / "w", broken, "finite_loss")
    assert "before the first step" in error.what


def test_finite_loss_in_the_middle_of_the_training(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from images.trainer import loss as losses
    from images.trainer import sft

    loss, calls = losses.answer_loss, []

    def overflowing(model: Any, batch: Any) -> tuple[torch.Tensor, int]:
        calls.append(model.training)
        value, tokens = loss(model, batch)
        return value * (float("inf") if sum(calls) == 5 else 1), tokens  # step 3, first half

    monkeypatch.setattr(sft, "answer_loss", overflowing)
    error = tripped(tmp_path, tiny_base, "finite_loss")
    assert "loss is inf at step 3" in error.what


def test_loss_falls_a_learning_rate_that_does_nothing(tiny_base: Path, tmp_path: Path) -> None:
    error = tripped(tmp_path, tiny_base, "loss_falls", learning_rate=1e-9)
    assert error.why == "train.min_loss_fall asks for 5% less"


def test_loss_falls_is_a_matter_of_the_share() -> None:
    check_loss_fell(2.0, 1.9, share=0.05)
    check_loss_fell(2.0, 2.5, share=0)
    for worse in (1.91, 2.5, float("nan")):
        with pytest.raises(SentinelTripped, match="loss_falls"):
            check_loss_fell(2.0, worse, share=0.05)


def freeze(weights: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, weight in model.named_parameters():
            if weights in name:
                weight.requires_grad_(False)

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (freeze("v_proj.lora_B"), "2 v_proj"),
        (freeze("layers.1.mlp.up_proj.lora_B"), "1 up_proj"),
        (freeze("lora_B"), "2 down_proj, 2 gate_proj, 2 k_proj, 2 o_proj, 2 q_proj, 2 up_proj"),
    ],
)
def test_adapter_gradient_modules_that_learn_nothing(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, why: str
) -> None:
    altered(monkeypatch, change)
    error = tripped(tmp_path, tiny_base, "adapter_gradient")
    assert error.why.startswith(why)


def test_adapter_gradient_lost_on_its_way(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All above the last layer's input is cut off, as by a checkpoint whose input needs none.
    def cut(model: Any) -> None:
        last = model.get_base_model().model.layers[1]
        last.register_forward_pre_hook(lambda _module, args: (args[0].detach(), *args[1:]))

    altered(monkeypatch, cut)
    error = tripped(tmp_path, tiny_base, "adapter_gradient")
    assert "7 of 14" in error.what


def test_adapter_changed_a_training_of_its_warm_up_only(tiny_base: Path, tmp_path: Path) -> None:
    tripped(tmp_path, tiny_base, "adapter_changed", max_steps=1, eval_steps=1)


def test_packing_an_attention_that_ignores_the_layout(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "packed_attention", one_causal_sequence)
    tripped(tmp_path, tiny_base, "packing")


def test_none_of_them_trips_on_a_sound_training(tiny_base: Path, tmp_path: Path) -> None:
    events = trained(tmp_path, tiny_base)
    assert events[-1].done == 4
    assert all(event.done for event in events), "the untrained model's evaluation is no step"
