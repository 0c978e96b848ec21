"""The streaming merge and PEFT's own: equal to the bit, or handed to PEFT by name."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from contracts.errors import SentinelTripped
from contracts.stages import MERGE
from images.merger import merge, streamed, with_peft
from images.trainer.backends import PROJECTIONS
from images.trainer.base_tensors import check_complete
from images.weights import checks
from images.weights.checks import BASE_BY_DIGEST
from images.weights.lora import WEIGHTS, plan_updates
from images.weights.shards import model_shards
from tests.unit.lora_models import make_adapter, make_base, merged_by_peft, save_adapter
from tests.unit.model_stages import folder_of, run

GPT2 = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
PLAIN: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaling of one": {"lora_alpha": 4},
    "rsLoRA": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"layers.1.mlp.up_proj": 7, "q_proj": 3, "^model.layers.2.*k_proj": 5},
        "alpha_pattern": {"down_proj": 11, "model.layers.0.self_attn.o_proj": 1},
    },
    "regular expression": {"target_modules": r"model\.layers\.[02]\..*(q|down)_proj"},
    "some layers left out": {"exclude_modules": ["layers.1.self_attn.q_proj"]},
    "trained biases": {"kind": "qwen2", "bias": "all"},
    "lora_bias": {"kind": "qwen2", "lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
    "fan_in_fan_out": {"kind": "gpt2", **GPT2},
    "adapter in bf16": {"adapter_dtype": "bfloat16"},
    "untied head": {"tied": False, "target_modules": [*PROJECTIONS, "lm_head"]},
}


def merged(root: Path, base: Path, adapter: Path, **params: Any) -> tuple[Path, dict[str, Any]]:
    (root / "in").mkdir(parents=True)
    inputs = {"base": root / "in" / "base", "lora_adapter": root / "in" / "lora_adapter"}
    inputs["base"].symlink_to(base)
    inputs["lora_adapter"].symlink_to(adapter)
    result = run(root, MERGE, merge.work, inputs, params)
    return folder_of(root, MERGE) / "out" / "merged", result.metrics


def made(root: Path, case: dict[str, Any], **base: Any) -> tuple[Path, Path]:
    lora = dict(case)
    kind, tied = lora.pop("kind", "qwen3"), lora.pop("tied", True)
    dtype = lora.pop("adapter_dtype", "float32")
    model = make_base(root / "base", kind, tie_word_embeddings=tied, **base)
    return model, make_adapter(root / "adapter", model, dtype=dtype, **lora)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def assert_same_bits(out: Path, expected: dict[str, torch.Tensor]) -> None:
    found = tensors(out)
    assert found
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert different == []
    assert set(expected) - set(found) <= {"lm_head.weight"}  # tied


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_same_bits_as_peft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, dtype: str
) -> None:
    monkeypatch.setattr(streamed, "BLOCK", 1000)  # no tensor ends where a block does
    kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    base, adapter = made(tmp_path, PLAIN[case])
    out, metrics = merged(tmp_path / "ws", base, adapter, dtype=dtype)
    assert (metrics["way"], metrics["why"]) == ("streamed", "")
    assert_same_bits(out, merged_by_peft(base, adapter, kind))


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_a_wider_base_is_rounded_once_which_is_peft_in_fp32_and_then_a_cast(
    tmp_path: Path, stored: str
) -> None:
    base, adapter = made(tmp_path, {}, dtype=stored)
    out, metrics = merged(tmp_path / "ws", base, adapter)
    assert metrics["way"] == "streamed"
    wide = merged_by_peft(base, adapter, torch.float32)
    assert_same_bits(out, {name: tensor.to(torch.bfloat16) for name, tensor in wide.items()})
    rounded_at_loading = merged_by_peft(base, adapter, torch.bfloat16)
    found = tensors(out)
    assert any(not torch.equal(found[name], rounded_at_loading[name]) for name in found)


def test_the_same_bits_at_matrices_of_a_real_size(tmp_path: Path) -> None:
    size = {"hidden_size": 1280, "intermediate_size": 3400, "num_hidden_layers": 1}
    base, adapter = made(tmp_path, {"r": 16, "lora_alpha": 24}, **size)
    out, _ = merged(tmp_path / "ws", base, adapter)
    assert_same_bits(out, merged_by_peft(base, adapter, torch.bfloat16))


def test_files_are_those_of_the_base_and_byte_for_byte_what_save_file_writes(
    tmp_path: Path,
) -> None:
    base, adapter = made(tmp_path, {}, shard="40KB")
    out, _ = merged(tmp_path / "ws", base, adapter)
    shards = model_shards(base)
    assert len(shards) > 2
    assert {path.name for path in out.iterdir()} == {path.name for path in base.iterdir()}
    for name in shards:
        save_file(load_file(out / name), tmp_path / "again", metadata={"format": "pt"})
        assert (tmp_path / "again").read_bytes() == (out / name).read_bytes()
    index, before = (
        json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (out, base)
    )
    assert index["weight_map"] == before["weight_map"]
    assert index["metadata"]["total_size"] == before["metadata"]["total_size"]
    assert_same_bits(out, merged_by_peft(base, adapter, torch.bfloat16))


def test_types_of_one_file_may_differ(tmp_path: Path) -> None:
    base, adapter = made(tmp_path, {})
    mixed = load_file(base / "model.safetensors")
    mixed |= {name: t.float() for name, t in mixed.items() if "norm" in name}
    save_file(mixed, base / "model.safetensors", metadata={"format": "pt"})
    out, _ = merged(tmp_path / "ws", base, adapter)
    assert_same_bits(out, merged_by_peft(base, adapter, torch.bfloat16))


NORM = "model.norm.weight"
TIED: dict[str, Any] = {"ensure_weight_tying": True}
SAVED_HEAD: dict[str, Any] = {"modules_to_save": ["lm_head"]}
TO_PEFT: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "use_dora"),
    "modules_to_save": ({**SAVED_HEAD, "tied": False}, "modules_to_save"),
    "trainable tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    "embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
    "some layers": ({"layers_to_transform": [1]}, "layers_to_transform"),
    "saved embeddings": ({"embeddings": True}, "the adapter holds"),
}


@pytest.mark.parametrize("case", TO_PEFT)
def test_what_streaming_does_not_cover_goes_to_peft_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    lora, reason = TO_PEFT[case]
    base, adapter = made(tmp_path, lora)
    with caplog.at_level(logging.WARNING):
        out, metrics = merged(tmp_path / "ws", base, adapter)
    assert metrics["way"] == "peft"
    assert reason in metrics["why"]
    assert f"PEFT merges, with the whole model in memory, since {metrics['why']}" in caplog.text
    assert_same_bits(out, merged_by_peft(base, adapter, torch.bfloat16))


@pytest.mark.parametrize("saved", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_copy_of_head_or_embedding_unties_them(tmp_path: Path, saved: list[str]) -> None:
    base, adapter = made(tmp_path, {"modules_to_save": saved})
    out, metrics = merged(tmp_path / "ws", base, adapter)
    assert metrics["way"] == "peft"
    expected = merged_by_peft(base, adapter, torch.bfloat16)
    assert set(tensors(out)) == set(expected), "with a head of its own"
    assert_same_bits(out, expected)
    config, before = (json.loads((each / "config.json").read_text()) for each in (out, base))
    assert config == before | {"tie_word_embeddings": False}
    check_complete(out)
    with torch.no_grad():
        ids = torch.arange(5, 25)[None]
        plain = AutoModelForCausalLM.from_pretrained(base)
        trained = peft.PeftModel.from_pretrained(plain, str(adapter))(ids).logits
        served = AutoModelForCausalLM.from_pretrained(out)(ids).logits
    assert torch.nn.functional.cosine_similarity(trained, served, dim=-1).min() > 0.99


def test_a_head_that_stays_tied_has_changed_with_its_embedding(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """PEFT saves it a second time, under its own name, and merges one tensor."""
    base, adapter = made(tmp_path, {"modules_to_save": ["embed_tokens"], **TIED})
    with caplog.at_level(logging.WARNING):
        out, _ = merged(tmp_path / "ws", base, adapter)
    assert {name.rpartition(".model.")[2] for name in load_file(adapter / WEIGHTS)} >= {
        "lm_head.weight",
        "embed_tokens.weight",
    }
    assert "lm_head.weight" not in tensors(out)
    assert_same_bits(out, merged_by_peft(base, adapter, torch.bfloat16))
    assert "unchanged" not in caplog.text


@pytest.mark.parametrize("lora", [{"use_dora": True}, SAVED_HEAD])
def test_a_base_may_hold_its_tied_head_as_a_copy_of_the_embedding(
    tmp_path: Path, lora: dict[str, Any]
) -> None:
    """Published models do. PEFT does not write such a copy again."""
    base, adapter = made(tmp_path, lora)
    held = load_file(base / "model.safetensors")
    held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    out, metrics = merged(tmp_path / "ws", base, adapter)
    assert metrics["way"] == "peft"
    assert ("lm_head.weight" in tensors(out)) == (lora is SAVED_HEAD)
    assert_same_bits(out, merged_by_peft(base, adapter, torch.bfloat16))
    check_complete(out)


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"], **TIED},
    ],
)
def test_a_trained_head_that_is_tied_is_refused_since_the_embedding_would_change_too(
    tmp_path: Path, lora: dict[str, Any]
) -> None:
    base, adapter = made(tmp_path, lora)
    with pytest.raises(SentinelTripped, match="tied_head"):
        merged(tmp_path / "ws", base, adapter)


def test_repeated_layers_are_named(tmp_path: Path) -> None:
    base, adapter = made(tmp_path, {"layer_replication": [[0, 2], [1, 3]]})
    with pytest.raises(SentinelTripped, match=r"adapter_modules.*layer_replication"):
        merged(tmp_path / "ws", base, adapter)


def test_a_bias_that_the_base_has_no_place_for_is_named(tmp_path: Path) -> None:
    base, adapter = made(tmp_path, {"lora_bias": True})
    with pytest.raises(SentinelTripped, match="adapter_modules") as refused:
        merged(tmp_path / "ws", base, adapter)
    assert "bias" in refused.value.why


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_peft_rounds_a_base_in_another_type_once(tmp_path: Path, stored: str) -> None:
    base, adapter = made(tmp_path, {"use_dora": True}, dtype=stored)
    out, metrics = merged(tmp_path / "ws", base, adapter)
    assert metrics["way"] == "peft"
    wide = merged_by_peft(base, adapter, torch.float32)
    assert_same_bits(out, {name: tensor.to(torch.bfloat16) for name, tensor in wide.items()})


def test_another_kind_of_adapter_goes_to_peft(tmp_path: Path) -> None:
    from peft import IA3Config

    base = make_base(tmp_path / "base")
    config = IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    )
    adapter = save_adapter(tmp_path / "adapter", base, config)
    out, metrics = merged(tmp_path / "ws", base, adapter)
    assert metrics["way"] == "peft"
    assert "IA3" in metrics["why"]
    assert_same_bits(out, merged_by_peft(base, adapter, torch.bfloat16))


def test_a_setting_that_is_not_known_goes_to_peft(tmp_path: Path) -> None:
    base, adapter = made(tmp_path, {})
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "of_next_year": 1}))
    _, metrics = merged(tmp_path / "ws", base, adapter)
    assert (metrics["way"], metrics["why"]) == ("peft", "of_next_year is set")


@pytest.mark.parametrize("way", ["streamed", "peft"])
def test_the_table_of_a_rotary_embedding_is_no_matter(tmp_path: Path, way: str) -> None:
    """Old Llamas have one in each layer; who needs it computes it."""
    base, adapter = made(tmp_path, {"use_dora": way == "peft"}, num_hidden_layers=1)
    expected = merged_by_peft(base, adapter, torch.bfloat16)
    weights = load_file(base / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    check_complete(base)
    out, metrics = merged(tmp_path / "ws", base, adapter)
    assert metrics["way"] == way
    found = {name: each for name, each in tensors(out).items() if "inv_freq" not in name}
    assert found.keys() == expected.keys() - {"lm_head.weight"}
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    ("sentinel", "plant"),
    [
        ("tensor_names", lambda held: held.pop(NORM)),
        ("tensor_names", lambda held: held.update(ghost=torch.zeros(2))),
        ("shapes", lambda held: held.update({NORM: held[NORM].reshape(2, -1)})),
        ("dtype", lambda held: held.update({NORM: held[NORM].float()})),
    ],
)
def test_files_that_are_not_the_base_s_but_for_their_values_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentinel: str, plant: Any
) -> None:
    merge_with_peft = with_peft.merge_with_peft

    def faulty(base: Path, adapter: Path, out: Path, *more: Any) -> None:
        merge_with_peft(base, adapter, out, *more)
        held = load_file(out / "model.safetensors")
        plant(held)
        save_file(held, out / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(with_peft, "merge_with_peft", faulty)
    base, adapter = made(tmp_path, {"use_dora": True}, num_hidden_layers=1)
    with pytest.raises(SentinelTripped, match=f"sentinel {sentinel}: "):
        merged(tmp_path / "ws", base, adapter)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    base, adapter = made(tmp_path, {})
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = BASE_BY_DIGEST + "0" * 64
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(SentinelTripped, match="base_commit"):
        merged(tmp_path / "ws", base, adapter)


def test_nan_in_the_adapter_is_refused(tmp_path: Path) -> None:
    base, adapter = made(tmp_path, {})
    weights = load_file(adapter / "adapter_model.safetensors")
    weights[min(weights)][0, 0] = torch.nan
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SentinelTripped, match="finite_adapter"):
        merged(tmp_path / "ws", base, adapter)


def test_an_update_of_the_wrong_tensor_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = made(tmp_path, {"target_modules": ["k_proj"]})

    def astray(*given: Any) -> dict[str, Any]:
        return {name.replace("k_proj", "v_proj"): u for name, u in plan_updates(*given).items()}

    monkeypatch.setattr(checks, "plan_updates", astray)
    with pytest.raises(SentinelTripped, match="untouched_tensors"):
        merged(tmp_path / "ws", base, adapter)


def test_a_damaged_base_is_named(tmp_path: Path) -> None:
    from contracts.errors import BaseModelMissing

    base, adapter = made(tmp_path, {}, shard="40KB")
    name = min(model_shards(base))
    whole = (base / name).read_bytes()
    (base / name).write_bytes(whole[:-1])
    with pytest.raises(BaseModelMissing, match="is damaged"):
        merged(tmp_path / "cut", base, adapter)
    (base / name).unlink()
    with pytest.raises(BaseModelMissing, match=f"has no {name}"):
        merged(tmp_path / "gone", base, adapter)
    shutil.rmtree(base)
    base.mkdir()
    with pytest.raises(BaseModelMissing, match=r"config\.json"):
        merged(tmp_path / "empty", base, adapter)


OTHER_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "OFT": ("OFTConfig", {"oft_block_size": 4, "r": 0}),
    "LN tuning": ("LNTuningConfig", {"target_modules": ["post_attention_layernorm"]}),
    "SHiRA, with its indices in whole numbers": ("ShiraConfig", {"r": 2}),
}


@pytest.mark.parametrize("case", OTHER_KINDS)
def test_other_kinds_of_adapter_are_peft_s_to_merge(tmp_path: Path, case: str) -> None:
    name, told = OTHER_KINDS[case]
    base = make_base(tmp_path / "base", tie_word_embeddings=False)
    given = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "up_proj"], **told}
    adapter = save_adapter(tmp_path / "adapter", base, getattr(peft, name)(**given))
    out, metrics = merged(tmp_path / "ws", base, adapter)
    assert metrics["way"] == "peft"
    assert metrics["merged_modules"] in {3, 6}, "one or two of each layer"
    assert_same_bits(out, merged_by_peft(base, adapter, torch.bfloat16))
