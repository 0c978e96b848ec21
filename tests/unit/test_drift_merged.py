"""Each way in which a merge can make another model than was trained is planted, and is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.errors import SentinelTripped
from contracts.files import digest_text
from images.merger import merge
from images.trainer.reference import what_was_trained
from images.weights import model_files
from images.weights.tokenizer import check_tokenizer
from tasks.chat import QWEN3
from tests.unit.trained_model import merged, train_briefly

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return base, adapter and record of a short real training."""
    return train_briefly(tmp_path_factory.mktemp("trained"), tiny_base)


# --- merge ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("dtype", "most"), [("bf16", 1e-5), ("fp32", 1e-8)])
def test_a_right_merge_does_not_drift(
    trained: dict[str, Path], tmp_path: Path, dtype: str, most: float
) -> None:
    metrics = merged(tmp_path, trained, dtype=dtype)
    assert metrics["drift"] < most
    assert metrics["agreement"] == 1


def _configured(**changed: Any) -> Callable[[Path], None]:
    def change(adapter: Path) -> None:
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**config, **changed}))

    return change


def _swap_layers(adapter: Path) -> None:
    other = {"0": ".layers.1.", "1": ".layers.0."}
    tensors = {
        name.replace(f".layers.{(layer := name.split('.layers.')[1][0])}.", other[layer]): tensor
        for name, tensor in load_file(adapter / WEIGHTS).items()
    }
    save_file(tensors, adapter / WEIGHTS, metadata={"format": "pt"})


def _lose_a_module(adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    kept = {n: t * (0 if "layers.1.mlp.down_proj.lora_B" in n else 1) for n, t in tensors.items()}
    save_file(kept, adapter / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(_configured(lora_alpha=32), id="twice"),
        pytest.param(_configured(lora_alpha=0.01), id="as good as not at all"),
        pytest.param(_configured(lora_alpha=14), id="an eighth too weak"),
        pytest.param(_configured(lora_alpha=14.4), id="a tenth too weak"),
        pytest.param(_configured(use_rslora=True), id="by another scaling"),
        pytest.param(_swap_layers, id="into another layer"),
        pytest.param(_lose_a_module, id="but for one module"),
    ],
)
def test_an_adapter_merged_wrongly_is_found(
    trained: dict[str, Path], tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    adapter = tmp_path / "adapter" / "lora_adapter"
    shutil.copytree(trained["lora_adapter"], adapter)
    plant(adapter)
    with pytest.raises(SentinelTripped, match="sentinel merge_drift") as caught:
        merged(tmp_path / "ws", {**trained, "lora_adapter": adapter})
    assert "KL divergence" in caught.value.why
    assert caught.value.todo
    # The check is what finds it: without it the same merge passes.
    metrics = merged(
        tmp_path / "unchecked", {**trained, "lora_adapter": adapter}, check_drift=False
    )
    assert metrics["drift"] is None


def _rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Return a matrix as it comes back from symmetric quantisation in blocks of 32."""
    blocks = weight.float().view(-1, 32)
    step = blocks.abs().amax(dim=1, keepdim=True).clamp_min(1e-9) / (2 ** (bits - 1) - 1)
    return ((blocks / step).round() * step).view_as(weight).to(weight.dtype)


def test_a_merge_into_a_dequantised_base_is_found(trained: dict[str, Path], tmp_path: Path) -> None:
    base, adapter = tmp_path / "q" / "base", tmp_path / "q" / "lora_adapter"
    shutil.copytree(trained["base"], base)
    shutil.copytree(trained["lora_adapter"], adapter)
    tensors = load_file(base / "model.safetensors")
    for name, tensor in tensors.items():
        if "_proj" in name:
            tensors[name] = _rounded(tensor, 4)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SentinelTripped, match="sentinel base_commit"):
        merged(tmp_path / "named", {**trained, "base": base})
    _configured(base_model_name_or_path="somewhere")(adapter)  # says nothing of its base
    with pytest.raises(SentinelTripped, match="sentinel merge_drift"):
        merged(tmp_path / "ws", {**trained, "base": base, "lora_adapter": adapter})


# --- tokenizer ------------------------------------------------------------------------------------
def _another_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def _another_merge(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"].pop()
    path.write_text(json.dumps(tokenizer, ensure_ascii=False))


def _another_end(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<|im_end|>", "<|im_ende|>"))


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (_another_template, "chat template"),
        (_another_merge, "tokenizer.json is not"),
        (_another_end, r"<\|im_end\|> is token None"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    ],
)
def test_another_tokenizer_is_found(
    trained: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[Path], None],
    says: str,
) -> None:
    write = model_files.write_the_rest

    def damaged(base: Path, out: Path, *others: Any) -> None:
        write(base, out, *others)
        plant(out)

    monkeypatch.setattr(merge, "write_the_rest", damaged)
    with pytest.raises(SentinelTripped, match=f"sentinel tokenizer: .*{says}"):
        merged(tmp_path, trained)


def test_line_ends_of_a_template_s_file_are_read_as_in_training(
    tiny_base: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    template = AutoTokenizer.from_pretrained(base).chat_template
    (base / "chat_template.jinja").write_bytes(template.replace("\n", "\r\n").encode())
    known = what_was_trained(base, AutoTokenizer.from_pretrained(base), QWEN3, "fp32")
    check_tokenizer(base, known)


def test_of_several_templates_the_default_one_is_held_to(tiny_base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    (base / "chat_template.jinja").unlink(missing_ok=True)
    path = base / "tokenizer_config.json"
    config = json.loads(path.read_text())
    template = AutoTokenizer.from_pretrained(tiny_base).chat_template

    def write(default: str) -> None:
        named = {"default": default, "tool_use": "{{ messages }}"}
        several = [{"name": name, "template": text} for name, text in named.items()]
        path.write_text(json.dumps(config | {"chat_template": several}))

    write(template)
    known = what_was_trained(base, AutoTokenizer.from_pretrained(base), QWEN3, "fp32")
    assert known.chat_template == digest_text(template)
    check_tokenizer(base, known)
    write(template + " ")
    with pytest.raises(SentinelTripped, match="chat template"):
        check_tokenizer(base, known)
