"""Adapters whose two files do not belong together, or that nobody has trained, are named."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.errors import InputMissing, SentinelTripped
from contracts.stages import MERGE
from images.merger import merge
from images.weights.checks import check_pair
from tests.unit.lora_models import make_adapter, make_base
from tests.unit.model_stages import folder_of, run

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Q = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base of one layer."""
    return make_base(tmp_path_factory.mktemp("base") / "base", num_hidden_layers=1)


@pytest.fixture(scope="module", params=["lora", "dora"])
def adapter(request: pytest.FixtureRequest, base: Path) -> Path:
    """Return a sound adapter, for the streaming merge and for PEFT's."""
    return make_adapter(base.parent / request.param, base, use_dora=request.param == "dora")


@pytest.fixture(scope="module")
def lora(base: Path) -> Path:
    """Return a sound adapter for the streaming merge."""
    return make_adapter(base.parent / "plain", base)


def damaged(
    sound: Path,
    out: Path,
    tensors: Callable[[Tensors], Any] | None = None,
    **config: Any,
) -> Path:
    """Return a copy with other tensors, or another config."""
    shutil.copytree(sound, out)
    if tensors:
        held = load_file(out / WEIGHTS)
        tensors(held)
        save_file(held, out / WEIGHTS, metadata={"format": "pt"})
    told = json.loads((out / CONFIG).read_text())
    (out / CONFIG).write_text(json.dumps(told | config))
    return out


def merged(root: Path, base: Path, adapter: Path) -> dict[str, Any]:
    """Merge with nothing that would look at the result's predictions."""
    (root / "in").mkdir(parents=True)
    inputs = {"base": root / "in" / "base", "lora_adapter": root / "in" / "lora_adapter"}
    inputs["base"].symlink_to(base)
    inputs["lora_adapter"].symlink_to(adapter)
    return run(root, MERGE, merge.work, inputs, {"check_drift": False}).metrics


def refused(root: Path, base: Path, adapter: Path, sentinel: str) -> SentinelTripped:
    """Return the error; nothing may be published."""
    with pytest.raises(SentinelTripped, match=f"sentinel {sentinel}: ") as caught:
        merged(root, base, adapter)
    assert not (folder_of(root, MERGE) / "out").exists()
    assert caught.value.todo
    return caught.value


MISSING: dict[str, Callable[[Tensors], Any]] = {
    "A": lambda t: t.pop(A),
    "B": lambda t: t.pop(B),
    "each A": lambda t: [t.pop(name) for name in list(t) if "lora_A" in name],
}


@pytest.mark.parametrize("part", MISSING)
def test_what_an_adapter_lacks_is_not_drawn_at_random(
    base: Path, adapter: Path, tmp_path: Path, part: str
) -> None:
    broken = damaged(adapter, tmp_path / "adapter", MISSING[part])
    error = refused(tmp_path / "ws", base, broken, "adapter_tensors")
    assert "missing" in error.what
    assert f".lora_{'B' if part == 'B' else 'A'}.weight" in error.why


@pytest.mark.parametrize(
    "name", [f"{Q}.extra", f"{Q}.lora_magnitude_vector", "base_model.model.model.norm.weight"]
)
def test_a_tensor_that_nobody_knows_is_not_passed_over(
    base: Path, lora: Path, tmp_path: Path, name: str
) -> None:
    """Nor put in the place of the base's own, as PEFT does with the norm."""
    size = 48 if name.endswith("norm.weight") else 64
    broken = damaged(lora, tmp_path / "adapter", lambda t: t.update({name: torch.ones(size)}))
    error = refused(tmp_path / "ws", base, broken, "adapter_tensors")
    assert "unknown" in error.what
    assert error.why == name


def test_a_b_without_an_a_is_not_passed_over(base: Path, lora: Path, tmp_path: Path) -> None:
    """Beside the LoRA of a module that the config does not target."""

    def only_b(held: Tensors) -> None:
        held[B.replace("self_attn.q_proj", "input_layernorm")] = held[B].clone()

    broken = damaged(lora, tmp_path / "adapter", only_b)
    error = refused(tmp_path / "ws", base, broken, "attached_modules")
    assert error.why == "model.layers.0.input_layernorm"


def test_a_dora_adapter_whose_config_has_lost_it_is_refused(base: Path, tmp_path: Path) -> None:
    dora = make_adapter(tmp_path / "dora", base, use_dora=True)
    assert merged(tmp_path / "sound", base, dora)["way"] == "peft"
    broken = damaged(dora, tmp_path / "adapter", use_dora=False)
    error = refused(tmp_path / "ws", base, broken, "adapter_tensors")
    assert "lora_magnitude_vector" in error.why


def test_numbers_of_another_kind_are_refused(base: Path, lora: Path, tmp_path: Path) -> None:
    def rounded(held: Tensors) -> None:
        held[B] = (held[B] * 100).to(torch.int8)

    error = refused(
        tmp_path / "ws", base, damaged(lora, tmp_path / "adapter", rounded), "adapter_tensors"
    )
    assert error.what.endswith(f"{B} is int8")


SHAPES: dict[str, tuple[Callable[[Tensors], Any] | None, dict[str, Any]]] = {
    "B has a row too few": (lambda t: t.update({B: t[B][:-1].clone()}), {}),
    "another rank than the tensors'": (None, {"r": 8}),
}


@pytest.mark.parametrize("fault", SHAPES)
def test_shapes_that_do_not_fit_are_named(
    base: Path, lora: Path, tmp_path: Path, fault: str
) -> None:
    tensors, config = SHAPES[fault]
    broken = damaged(lora, tmp_path / "adapter", tensors, **config)
    error = refused(tmp_path / "ws", base, broken, "adapter_modules")
    assert "size mismatch" in error.why


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("r", 0),
        ("r", 4.5),
        ("r", True),
        ("lora_alpha", "16"),
        ("lora_alpha", None),
        ("lora_alpha", float("nan")),
        ("alpha_pattern", {"q_proj": "x"}),
        ("alpha_pattern", {"((": 1}),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", [4]),
        ("target_modules", 5),
        ("target_modules", "(("),
        ("target_modules", ["q_proj", 7]),
        ("exclude_modules", {"q_proj": 1}),
    ],
)
def test_a_config_that_no_adapter_can_have_is_named(
    base: Path, lora: Path, tmp_path: Path, name: str, value: Any
) -> None:
    broken = damaged(lora, tmp_path / "adapter", **{name: value})
    with pytest.raises(InputMissing, match=CONFIG) as caught:
        check_pair(base, broken, "")
    assert name in caught.value.why


def test_a_module_without_an_update_is_told_from_one_below_a_rounding(
    base: Path, lora: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def weak(held: Tensors) -> None:
        held[B].zero_()
        held[B.replace("q_proj", "k_proj")].mul_(1e-9)

    with caplog.at_level(logging.WARNING):
        merged(tmp_path / "ws", base, damaged(lora, tmp_path / "adapter", weak))
    assert "1 modules are unchanged: A or B of their LoRA is zero throughout" in caplog.text
    assert "1 modules are unchanged: their update is below one rounding" in caplog.text
