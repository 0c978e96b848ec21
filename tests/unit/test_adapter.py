"""deploy.form=adapter: its stages, what does not fit it, and the file that holds the LoRA."""

from __future__ import annotations

import json
import shutil
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts import drift, stages
from contracts.errors import ModelMissing, SentinelTripped, SettingsInvalid
from contracts.gguf_header import F32, read_header
from contracts.params import EvaluateMetrics
from driver import agreement, disk, preflight
from driver.pipeline import PIPELINE, stages_for
from driver.settings import Settings, load
from images.gguf import adapter as conversion
from images.labeler.drift import _limit, _served_type
from images.weights.lora import WEIGHTS
from serving.engine import Model
from tests.unit.adapters import adapter_of, converted_adapter, needs_converter
from tests.unit.references import empty
from tests.unit.scripted_engine import ScriptedEngine

ADAPTER = ("deploy.form=adapter", "deploy.base=qwen3:14b-q8_0")


def settings(folder: Path, *overrides: str) -> Settings:
    (folder / "retrain.yaml").write_text("fetch: {path: /base}\nsnapshot: {items: [a.jsonl]}\n")
    return load(folder / "retrain.yaml", overrides, {})


# --- the settings ---------------------------------------------------------------------------------
@pytest.mark.parametrize("more", [(), ("gguf.way=two_step",), ("merge.dtype=fp32",)])
def test_nothing_is_merged_and_base_and_adapter_are_taken(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    found = stages_for(settings(tmp_path, *ADAPTER, *more), covered=False)
    assert [each.name for each in found] == [s.name for s in PIPELINE if s is not stages.MERGE]
    convert = next(stage for stage in found if stage.name == "gguf")
    assert convert.inputs == (stages.BASE, stages.LORA_ADAPTER, stages.REFERENCE)
    assert convert.outputs == stages.CONVERT.outputs


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (ADAPTER[:1], "form=adapter needs base"),
        ((*ADAPTER, "deploy.base=a b"), "deploy.base"),
        ((*ADAPTER, "deploy.name=qwen3"), "would be trained twice"),
        ((*ADAPTER, "engine=llamacpp", "runner=process"), "needs engine=ollama"),
        ((*ADAPTER, "gguf.imatrix=true", "gguf.outtype=q4_k_m"), "does none"),
        (("deploy.form=other",), "deploy.form"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        settings(tmp_path, *overrides)
    assert told in refused.value.why


def test_a_base_that_the_engine_has_not_is_named_before_anything_is_stopped(
    tmp_path: Path,
) -> None:
    session: Any = SimpleNamespace(settings=settings(tmp_path, *ADAPTER))
    with pytest.raises(ModelMissing, match="no base model qwen3:14b-q8_0") as caught:
        preflight.check_bases(session, [stages.DEPLOY], {"qwen3:14b"})
    assert "ollama pull qwen3:14b-q8_0" in caught.value.todo
    preflight.check_bases(session, [stages.DEPLOY], {"qwen3:14b-q8_0"})
    session.settings = settings(tmp_path, ADAPTER[1])  # form=merged takes no notice of it
    preflight.check_bases(session, [stages.DEPLOY], {})


def test_a_baseline_that_the_engine_has_not_is_named_where_an_evaluation_runs(
    tmp_path: Path,
) -> None:
    session: Any = SimpleNamespace(settings=settings(tmp_path, "evaluate.baseline=qwen3:14b"))
    with pytest.raises(ModelMissing, match="no base model qwen3:14b") as caught:
        preflight.check_bases(session, [stages.EVALUATE, stages.DEPLOY], {})
    assert caught.value.todo.endswith('or set evaluate.baseline to "".')
    preflight.check_bases(session, [stages.EVALUATE, stages.DEPLOY], {"qwen3:14b"})
    preflight.check_bases(session, [stages.DEPLOY], {})


def test_another_model_under_the_name_of_the_base_is_evaluated_anew(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda *_: "")
    engine.tags["qwen3:14b-q8_0"] = Model("qwen3:14b-q8_0", "old", 1)
    session: Any = SimpleNamespace(settings=settings(tmp_path, *ADAPTER), engine=engine)
    metrics = EvaluateMetrics(rows=1, valid=1, promote=True, scores={}, models={"base": "old"})
    result: Any = SimpleNamespace(metrics=metrics.model_dump())
    assert agreement.still_true(session, stages.EVALUATE, result) == ""
    engine.tags["qwen3:14b-q8_0"] = Model("qwen3:14b-q8_0", "new", 1)
    said = agreement.still_true(session, stages.EVALUATE, result)
    assert said == "qwen3:14b-q8_0 is another model now"


def test_it_takes_next_to_no_disk(tmp_path: Path) -> None:
    whole, alone = (
        disk.written_gb(
            SimpleNamespace(settings=settings(tmp_path, *given)),  # type: ignore[arg-type]
            [stages.CONVERT],
        )
        for given in ((), ADAPTER)
    )
    assert whole > 15
    assert alone < 0.5


def test_the_quantisation_of_the_base_decides_what_may_drift() -> None:
    engine: Any = ScriptedEngine(lambda *_: "")
    context: Any = SimpleNamespace(params=SimpleNamespace(base="base:q8"))
    assert _limit(_served_type(context, engine), empty()) == drift.GGUF["q8_0"]
    engine.quantization = lambda _tag: "q4_k_m"
    assert _limit(_served_type(context, engine), empty()) == drift.GGUF["q4_k_m"]
    engine.quantization = lambda _tag: "iq2_xxs"  # no limit of its own: the strictest
    assert _limit(_served_type(context, engine), empty()) == drift.GGUF["bf16"]


# --- the file -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def lora(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_of(tiny_base, tmp_path_factory.mktemp("lora") / "lora_adapter")


@pytest.fixture(scope="module")
def gguf(tiny_base: Path, lora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, metrics = converted_adapter(tmp_path_factory.mktemp("gguf") / "ws", tiny_base, lora)
    assert metrics == {
        "bytes": made.stat().st_size,
        "tensors": 28,
        "architecture": "qwen3",
        "outtype": [],
        "way": "adapter",
    }
    return made


def _values(path: Path) -> list[tuple[tuple[int, ...], bytes]]:
    """Return shape and bytes of every tensor of a file in fp32, sorted."""
    data, tensors = path.read_bytes(), read_header(path).tensors
    last = max(tensors, key=lambda tensor: tensor.offset)
    start = len(data) - last.offset - -(-prod(last.shape) * 4 // 32) * 32
    assert {tensor.type for tensor in tensors} == {F32}
    return sorted(
        (t.shape, data[start + t.offset : start + t.offset + 4 * prod(t.shape)]) for t in tensors
    )


@pytest.mark.slow
@needs_converter
def test_the_file_holds_each_matrix_of_the_adapter_to_the_bit(gguf: Path, lora: Path) -> None:
    header = read_header(gguf)
    assert header.values["general.type"] == "adapter"
    assert header.values["general.architecture"] == "qwen3"
    assert header.values["general.name"] == "Liga_Relevance"
    assert header.values["adapter.lora.alpha"] == 6
    assert len(header.tensors) == 2 * 7 * 2  # A and B of seven projections in two layers
    assert "blk.1.ffn_down.weight.lora_b" in {tensor.name for tensor in header.tensors}
    trained = sorted(
        (tuple(tensor.shape[::-1]), tensor.numpy().astype(np.float32).tobytes())
        for tensor in load_file(lora / WEIGHTS).values()
    )
    assert _values(gguf) == trained


def _changed(lora: Path, out: Path, tensors: Any = lambda t: t, **config: Any) -> Path:
    shutil.copytree(lora, out)
    save_file(tensors(load_file(lora / WEIGHTS)), out / WEIGHTS, metadata={"format": "pt"})
    known = json.loads((lora / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps({**known, **config}))
    return out


def _with_nan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    next(iter(tensors.values()))[0, 0] = float("nan")
    return tensors


def _without_effect(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t * (0 if ".lora_B." in name else 1) for name, t in tensors.items()}


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"tensors": _without_effect}, SentinelTripped, "weights_changed"),
        ({"tensors": _with_nan}, SentinelTripped, "finite_adapter"),
        ({"base_model_name_or_path": "base@sha256:12"}, SentinelTripped, "base_commit"),
        ({"use_rslora": True}, SettingsInvalid, "cannot be served as an adapter"),
        ({"lora_alpha": 0}, SettingsInvalid, "cannot be served as an adapter"),
        ({"use_dora": True}, SettingsInvalid, "cannot be served as an adapter"),
        ({"alpha_pattern": {"q_proj": 3}}, SettingsInvalid, "cannot be served as an adapter"),
    ],
)
def test_an_adapter_that_would_be_served_otherwise_is_refused(
    tiny_base: Path,
    lora: Path,
    tmp_path: Path,
    change: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    planted = _changed(lora, tmp_path / "planted", **change)
    with pytest.raises(error, match=says):
        converted_adapter(tmp_path / "ws", tiny_base, planted)


@pytest.mark.slow
@needs_converter
def test_a_file_of_another_adapter_is_found(
    tiny_base: Path, lora: Path, gguf: Path, tmp_path: Path
) -> None:
    paths = {stages.BASE: tiny_base, stages.LORA_ADAPTER: lora}
    context: Any = SimpleNamespace(input=paths.__getitem__)
    conversion.check(context, gguf)
    planted = tmp_path / "planted.gguf"
    planted.write_bytes(gguf.read_bytes().replace(b"adapter.type", b"adapter.typo"))
    with pytest.raises(SentinelTripped, match=r"adapter\.type is None"):
        conversion.check(context, planted)
    fewer = dict(sorted(load_file(lora / WEIGHTS).items())[2:])
    paths[stages.LORA_ADAPTER] = _changed(lora, tmp_path / "fewer", lambda _: fewer)
    with pytest.raises(SentinelTripped, match="28 matrices, not the 26"):
        conversion.check(context, gguf)
