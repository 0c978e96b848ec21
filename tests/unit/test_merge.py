"""The merge: the same model as base and adapter together, in exactly the files it should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.errors import BaseModelMissing, InputMissing, SentinelTripped
from contracts.params import FetchParams
from contracts.safetensors_header import read_header
from contracts.stages import (
    MERGE,
)
from driver.host_stages import fetch
from images.merger import merge
from images.trainer.backends import PROJECTIONS
from images.weights.checks import check_pair
from images.weights.shards import INDEX, model_shards
from tests.unit.lora_models import make_adapter, make_base
from tests.unit.model_stages import folder_of, run


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter with random weights on all projections of the tiny base."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=list(PROJECTIONS))
    model = get_peft_model(base, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    out = tmp_path_factory.mktemp("adapter") / "lora_adapter"
    model.save_pretrained(out)
    return out


def merged(root: Path, base: Path, adapter: Path, **params: Any) -> tuple[Path, dict[str, Any]]:
    (root / "in").mkdir(parents=True)
    inputs = {"base": root / "in" / "base", "lora_adapter": root / "in" / "lora_adapter"}
    inputs["base"].symlink_to(base)
    inputs["lora_adapter"].symlink_to(adapter)
    result = run(root, MERGE, merge.work, inputs, params)
    return folder_of(root, MERGE) / "out" / "merged", result.metrics


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(1000, 1032)[None]
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def test_the_merged_model_equals_base_and_adapter(
    tiny_base: Path, adapter: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out, _ = merged(tmp_path, tiny_base, adapter, dtype="fp32")
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    alone = logits(base)
    together = logits(PeftModel.from_pretrained(base, str(adapter)))
    found = logits(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32))
    torch.testing.assert_close(found, together, rtol=1e-3, atol=1e-3)
    assert (together - alone).abs().max() > 0.1


def test_exact_files_and_tensors(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    out, metrics = merged(tmp_path, tiny_base, adapter)
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (tiny_base / name).read_bytes()
    assert json.loads((out / "config.json").read_text()) == json.loads(
        (tiny_base / "config.json").read_text()
    )
    before = load_file(tiny_base / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert set(after) == set(before)  # no lm_head: it stays tied
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.split(".")[-2] in PROJECTIONS}
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert metrics["merged_modules"] == len(changed) == 14
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in out.iterdir())


def test_the_update_is_added_in_fp32_and_rounded_once(
    tiny_base: Path, adapter: Path, tmp_path: Path
) -> None:
    out, _ = merged(tmp_path, tiny_base, adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    a, b = (weights[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    base = load_file(tiny_base / "model.safetensors")[f"{name}.weight"]
    expected = (base.float() + b @ a * (8 / 4)).to(torch.bfloat16)
    found = load_file(out / "model.safetensors")[f"{name}.weight"]
    assert (found == expected).float().mean() > 0.999


@pytest.mark.parametrize(
    ("rename", "zero", "sentinel"),
    [
        (".layers.1.", False, "attached_modules"),
        ("", True, "weights_changed"),
    ],
)
def test_an_adapter_that_does_not_fit_or_does_nothing_is_refused(
    tiny_base: Path, adapter: Path, tmp_path: Path, rename: str, zero: bool, sentinel: str
) -> None:
    broken = tmp_path / "adapter"
    shutil.copytree(adapter, broken)
    tensors = load_file(broken / "adapter_model.safetensors")
    tensors = {
        name.replace(rename, ".layers.9.") if rename else name: tensor * (0 if zero else 1)
        for name, tensor in tensors.items()
    }
    save_file(tensors, broken / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SentinelTripped, match=sentinel):
        merged(tmp_path / "ws", tiny_base, broken)


@pytest.mark.parametrize("fault", ["a norm", "a matrix", "beyond the range"])
@pytest.mark.parametrize("lora", [{}, {"use_dora": True}])  # streamed, and by PEFT
def test_a_merged_weight_that_is_no_number_is_refused(
    tmp_path: Path, fault: str, lora: dict[str, Any]
) -> None:
    """With nothing else that looks at the merged model."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    make_base(base)
    make_adapter(adapter, base, lora_alpha=600, **lora)
    name, value = "model.layers.1.input_layernorm.weight", float("nan")
    path = base / "model.safetensors"
    if fault == "a matrix":
        name, value = "model.layers.1.mlp.up_proj.weight", float("inf")
    elif fault == "beyond the range":
        path, value = adapter / "adapter_model.safetensors", 3e38
        name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    tensors = load_file(path)
    tensors[name].view(-1)[3] = value
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(SentinelTripped, match=r"sentinel finite_weights: .*layers\.1\."):
        merged(tmp_path / "ws", base, adapter, check_drift=False)
    assert not (folder_of(tmp_path / "ws", MERGE) / "out").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": ', b"\xff\xfe"])
@pytest.mark.parametrize(
    ("damaged", "error"),
    [
        ("base/config.json", BaseModelMissing),
        ("base/model.safetensors.index.json", BaseModelMissing),
        ("adapter/adapter_config.json", InputMissing),
        ("adapter/adapter_model.safetensors", InputMissing),
    ],
)
def test_a_damaged_file_is_named(
    small: Path, tmp_path: Path, damaged: str, error: type[Exception], content: bytes
) -> None:
    """Which its size alone would tell only if it were another."""
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    assert check_pair(base, adapter, "").updates()
    (tmp_path / damaged).write_bytes(content)
    with pytest.raises(error, match=Path(damaged).name):
        check_pair(base, adapter, "").updates()


@pytest.mark.parametrize("drift", [True, False])
@pytest.mark.parametrize("fault", ["left out", "another file", "too many"])
def test_an_index_that_is_not_that_of_the_files_is_refused(
    small: Path, tmp_path: Path, fault: str, drift: bool
) -> None:
    shutil.copytree(small / "base", tmp_path / "base")
    break_index(tmp_path / "base" / INDEX, fault)
    with pytest.raises(BaseModelMissing, match="does not hold the tensors"):
        merged(tmp_path / "ws", tmp_path / "base", small / "adapter", check_drift=drift)
    with pytest.raises(BaseModelMissing, match="does not hold the tensors"):
        fetch.check(FetchParams(path=str(tmp_path / "base")))


def break_index(path: Path, fault: str) -> None:
    index = json.loads(path.read_text())
    places, norm = index["weight_map"], "model.layers.1.input_layernorm.weight"
    if fault == "left out":
        del places[norm]
    elif fault == "another file":
        places[norm] = next(file for file in places.values() if file != places[norm])
    else:
        places["model.layers.9.input_layernorm.weight"] = places[norm]
    path.write_text(json.dumps(index))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base of several files, and an adapter on it."""
    folder = tmp_path_factory.mktemp("small")
    make_base(folder / "base", shard="100KB")
    make_adapter(folder / "adapter", folder / "base")
    (folder / "base" / "tokenizer.json").write_text('{"model": {}}')
    return folder


@pytest.mark.parametrize("place", ["../base/", "./../base/", "/base/"])
def test_an_index_that_leads_out_of_its_folder_is_refused(
    small: Path, tmp_path: Path, place: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(small / "base", base)
    path = base / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    known = model_shards(base)
    index["weight_map"] = {name: place + file for name, file in index["weight_map"].items()}
    path.write_text(json.dumps(index))
    with pytest.raises(BaseModelMissing, match="is damaged"):
        model_shards(base)
    assert len(known) > 1


@pytest.mark.parametrize("shape", [[8, 5], [4, 4], ["8", 4], [-8, -4]])
def test_a_tensor_that_would_be_read_out_of_others_is_refused(
    tmp_path: Path, shape: list[Any]
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(8, 4) for name in "ab"}, path)
    assert [entry.shape for entry in read_header(path)] == [(8, 4)] * 2
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["a"]["shape"] = shape
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(BaseModelMissing, match="is damaged"):
        read_header(path)


@pytest.mark.parametrize(
    ("header", "why"),
    [(b"{}", "no tensor"), (b"[" * 100_000, "recursion"), (b'{"a": 5}', "not subscriptable")],
)
def test_a_header_without_tensors_is_named(tmp_path: Path, header: bytes, why: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(BaseModelMissing, match="is damaged") as refused:
        read_header(path)
    assert why in refused.value.why
