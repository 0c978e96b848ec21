"""One pass from base and adapter to GGUF: the bytes of merge and conversion, or a named refusal."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts import files
from contracts.converter import CONVERTER, find_program
from contracts.errors import BaseModelMissing, OnePassNotCovered, SentinelTripped, StageFailed
from contracts.files import ROOT
from contracts.gguf_header import FILE_TYPES, read_header
from contracts.safetensors_header import read_header as read_shard
from contracts.stage import Result
from contracts.stages import CONVERT, MERGE, convert_stage
from images.gguf import convert, merging, programs
from images.merger import merge
from images.weights.arithmetic import merge_tensor
from images.weights.checks import BASE_BY_DIGEST, check_pair
from images.weights.shards import INDEX, SINGLE, index_of
from tests.tiny_gguf import complete
from tests.unit.lora_models import make_adapter, make_base, save_adapter
from tests.unit.model_stages import folder_of, run

TOOLS = Path(os.environ.get("LLAMA_CPP_DIR", ROOT / ".cache" / "llama.cpp"))
TYPES = ("q8_0", "f16", "bf16")
K_QUANTS = ("q4_k_m", "q5_k_m", "q6_k")
ONE_PASS = convert_stage(one_pass=True, imatrix=False)
needs_converter = pytest.mark.skipif(
    not (TOOLS / CONVERTER).is_file(), reason="LLAMA_CPP_DIR has no converter"
)


def has_quantize() -> bool:
    try:
        return bool(find_program("llama-quantize"))
    except StageFailed:
        return False


needs_quantize = pytest.mark.skipif(not has_quantize(), reason="LLAMA_CPP_BIN has no programs")


def inputs_of(root: Path, **paths: Path) -> dict[str, Path]:
    (root / "in").mkdir(parents=True)
    for name, path in paths.items():
        (root / "in" / name).symlink_to(path)
    return {name: root / "in" / name for name in paths}


def one_pass(root: Path, base: Path, adapter: Path, **params: Any) -> Result:
    inputs = inputs_of(root, base=base, lora_adapter=adapter)
    return run(root, ONE_PASS, convert.work, inputs, params)


def merged_from(root: Path, base: Path, adapter: Path) -> Path:
    run(root, MERGE, merge.work, inputs_of(root, base=base, lora_adapter=adapter), {})
    return folder_of(root, MERGE) / "out" / "merged"


def in_files(source: Path, out: Path) -> Path:
    """Copy a model of one file into three, with norms in fp32 and a model card beside them."""
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(source / SINGLE)
    tensors |= {name: tensor.float() for name, tensor in tensors.items() if "norm" in name}
    names = sorted(tensors)
    shards = {}
    for number in range(3):
        name = f"model-{number + 1:05}-of-00003.safetensors"
        part = {each: tensors[each].contiguous() for each in names[number::3]}
        save_file(part, out / name, metadata={"format": "pt"})
        shards[name] = read_shard(out / name)
    (out / INDEX).write_text(json.dumps(index_of(shards)))
    (out / "README.md").write_text("---\nlicense: mit\ntags: [of-the-base]\n---\n# Base\n")
    return out


@pytest.fixture(scope="module")
def pair(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pair")
    base = in_files(tiny_base, root / "base")
    return base, make_adapter(root / "adapter", base)


@pytest.fixture(scope="module")
def both_ways(
    pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return the outputs of one pass and of two steps, in all types that this machine can make."""
    root = tmp_path_factory.mktemp("ways")
    types = [*TYPES, *K_QUANTS] if has_quantize() else list(TYPES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_CPP_DIR", str(TOOLS))
        result = one_pass(root / "one", *pair, outtype=types)
        assert result.metrics["way"] == "one_pass"
        merged = merged_from(root / "merge", *pair)
        inputs = inputs_of(root / "two", merged=merged)
        run(root / "two", CONVERT, convert.work, inputs, {"outtype": types})
    return folder_of(root / "one", CONVERT), folder_of(root / "two", CONVERT)


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize(
    "name", [*TYPES, *(pytest.param(each, marks=needs_quantize) for each in K_QUANTS)]
)
def test_every_type_is_byte_for_byte_that_of_two_steps_and_answers(
    both_ways: tuple[Path, Path], name: str
) -> None:
    file = "model.gguf" if name == "q8_0" else f"variants/model-{name}.gguf"
    one, two = (folder / "out" / file for folder in both_ways)
    assert one.stat().st_size > 8_000_000
    assert one.read_bytes() == two.read_bytes()
    header = read_header(one)
    assert header.values["general.file_type"] == FILE_TYPES[name]
    assert "general.license" not in header.values  # the base's model card is no part of a merge
    assert complete(one, "Guten Tag")


@pytest.mark.slow
@needs_converter
def test_nothing_else_is_left_and_no_merged_model_was_written(
    both_ways: tuple[Path, Path],
) -> None:
    for folder in both_ways:
        left = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        assert {name for name in left if "work/" in name} == {"work/gguf.json"}
        types = {"f16", "bf16", *(K_QUANTS if has_quantize() else ())}
        variants = {name for name in left if "variants/" in name}
        assert variants == {f"out/variants/model-{each}.gguf" for each in types}


@pytest.mark.slow
@needs_converter
def test_files_are_held_against_the_base_whatever_a_power_cut_left(
    both_ways: tuple[Path, Path], pair: tuple[Path, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    """A double of the converter gives the file again, and the scaffold as it was not flushed."""
    monkeypatch.setenv("LLAMA_CPP_DIR", str(TOOLS))
    known = both_ways[0] / "out" / "model.gguf"

    def convert_again(_source: Any, _type: str, _name: str, out: Path, _tell: Any) -> None:
        shutil.copyfile(known, out)
        scaffold = out.parent / "merged"
        scaffold.mkdir()
        for name in ("config.json", "tokenizer.json"):
            (scaffold / name).touch()

    monkeypatch.setattr(programs, "convert", convert_again)
    result = one_pass(tmp_path, *pair, outtype=TYPES[0])
    assert result.outputs["gguf"].digest == files.digest_path(known)


def test_a_tensor_merged_by_itself_is_that_of_the_merged_file(tmp_path: Path) -> None:
    """At sizes of several blocks, with rsLoRA, trained biases, and a base in another type."""
    size: dict[str, Any] = {"hidden_size": 640, "intermediate_size": 1700, "num_hidden_layers": 1}
    base = make_base(tmp_path / "base", "qwen2", dtype="float16", **size)
    adapter = make_adapter(tmp_path / "adapter", base, use_rslora=True, bias="all")
    after = load_file(merged_from(tmp_path / "ws", base, adapter) / SINGLE)
    updates = check_pair(base, adapter, "").updates()
    for name, old in load_file(base / SINGLE).items():
        new, changed = merge_tensor(old, updates.get(name), torch.bfloat16)
        assert torch.equal(new, after[name])
        assert changed == (not torch.equal(new, old.to(torch.bfloat16)))


# --- what one pass does not cover ----------------------------------------------------------------
def refusal(folder: Path, base: Path, adapter: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what the converter's process says before it comes to the converter."""
    capsys.readouterr()
    argv = ["", str(TOOLS / CONVERTER), str(base), "digest", str(adapter), str(folder / "merged")]
    code = merging.main(argv)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == told["code"] != 0
    assert not (folder / "merged").exists()
    return told


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head.weight"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
    ],
)
def test_what_only_peft_merges_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lora: dict[str, Any], reason: str
) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, **lora)
    told = refusal(tmp_path, base, adapter, capsys)
    assert told["code"] == OnePassNotCovered.exit_code
    assert reason in told["why"]
    assert told["todo"] == OnePassNotCovered.hint


def test_another_kind_of_adapter_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import IA3Config

    base = make_base(tmp_path / "base")
    modules = {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    config = IA3Config(task_type="CAUSAL_LM", **modules)
    adapter = save_adapter(tmp_path / "adapter", base, config)
    told = refusal(tmp_path, base, adapter, capsys)
    assert told["code"] == OnePassNotCovered.exit_code
    assert "IA3" in told["why"]


def test_a_tensor_that_the_index_does_not_name_is_refused(
    tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The merge would leave it out, the converter would stop at it."""
    base = tmp_path / "base"
    shutil.copytree(pair[0], base)
    index = json.loads((base / INDEX).read_text())
    index["weight_map"].pop("model.norm.weight")
    (base / INDEX).write_text(json.dumps(index))
    told = refusal(tmp_path, base, pair[1], capsys)
    assert told["code"] == BaseModelMissing.exit_code
    assert told["why"] == "model.norm.weight"


# --- the sentinels of the merge, each with its failure planted -----------------------------------
@pytest.mark.parametrize("planted", ["unquantised_base", "base_commit", "finite_adapter"])
def test_the_sentinels_of_the_merge_fire(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], planted: str
) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base)
    if planted == "unquantised_base":
        edit(base / "config.json", quantization_config={"load_in_8bit": True})
    elif planted == "base_commit":
        edit(adapter / "adapter_config.json", base_model_name_or_path=BASE_BY_DIGEST + "0" * 64)
    else:
        adapter = with_values(adapter, tmp_path / "broken", torch.nan, "lora_A")
    told = refusal(tmp_path, base, adapter, capsys)
    assert told["code"] == SentinelTripped.exit_code
    assert f"sentinel {planted}" in told["what"]


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def with_values(adapter: Path, out: Path, value: float, part: str) -> Path:
    """Copy an adapter with this value in the place of every one of lora_A or lora_B."""
    shutil.copytree(adapter, out)
    weights = load_file(out / "adapter_model.safetensors")
    weights |= {n: torch.full_like(t, value) for n, t in weights.items() if part in n}
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    return out


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize("tensor", ["input_layernorm", "self_attn.q_proj"])
def test_a_weight_of_the_base_that_is_no_number(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tensor: str
) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(TOOLS))
    base, name = tmp_path / "base", f"model.layers.1.{tensor}.weight"
    shutil.copytree(pair[0], base)
    shard = base / json.loads((base / INDEX).read_text())["weight_map"][name]
    tensors = load_file(shard)
    tensors[name].view(-1)[3] = torch.nan
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(SentinelTripped, match=f"finite_weights: NaN or infinity in {name}"):
        one_pass(tmp_path / "ws", base, pair[1])
    assert not list(folder_of(tmp_path / "ws", CONVERT).rglob("model.gguf"))


@pytest.mark.slow
@needs_converter
def test_an_adapter_that_does_nothing(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(TOOLS))
    idle = with_values(pair[1], tmp_path / "adapter", 0.0, "lora_B")
    with pytest.raises(SentinelTripped, match="weights_changed"):
        one_pass(tmp_path / "ws", pair[0], idle)
    assert not list(folder_of(tmp_path / "ws", CONVERT).rglob("model.gguf"))


@pytest.mark.parametrize(
    ("classes", "error", "told"),
    [
        ("filter_tensors = None", SentinelTripped, "merged_tensors: 14 updates"),
        ("pass", OnePassNotCovered, "does not know this build"),
    ],
)
def test_a_converter_that_passes_over_an_adapted_tensor_or_is_another(
    tmp_path: Path,
    pair: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    classes: str,
    error: type[Exception],
    told: str,
) -> None:
    """A script in the converter's place that reads no tensor at all."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / CONVERTER).write_text(
        f"class ModelBase: {classes}\n"
        "class LazyTorchTensor: pass\n"
        "def get_model_class(name): raise NotImplementedError\n"
        "def main(): pass\n"
    )
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path / "tools"))
    with pytest.raises(error, match=told):
        one_pass(tmp_path / "ws", *pair)
