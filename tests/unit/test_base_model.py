"""Bases on which all work would be in vain are named by each that takes one, from their headers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts import stages
from contracts.errors import BaseModelMissing, SentinelTripped
from contracts.params import FetchParams
from driver import preflight
from driver.host_stages import fetch
from images.trainer.base_tensors import check_complete
from images.weights.checks import check_pair
from tests.unit.lora_models import make_adapter, make_base
from tests.unit.model_stages import folder_of, run

WEIGHTS = "model.safetensors"
UP = "model.layers.0.mlp.up_proj"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base of one layer, and an adapter on it."""
    folder = tmp_path_factory.mktemp("sound")
    make_base(folder / "base", num_hidden_layers=1)
    make_adapter(folder / "adapter", folder / "base")
    (folder / "base" / "tokenizer.json").write_text('{"model": {}}')
    return folder


def fetched(folder: Path) -> None:
    """Look at the base as a run does before anything is stopped, and fetch itself."""
    fetch.check(FetchParams(path=str(folder / "base")))


def trained(folder: Path) -> None:
    """Look at it as the first thing of a training."""
    check_complete(folder / "base")


def merged(folder: Path) -> None:
    """Look at it as merge and both ways of the conversion."""
    check_pair(folder / "base", folder / "adapter", "")


EACH = pytest.mark.parametrize("look", [fetched, trained, merged])


def altered(
    sound: Path, out: Path, change: Callable[[Tensors], Any] | None = None, **config: Any
) -> Path:
    """Return a copy of the folder with other tensors in the base, or another config."""
    shutil.copytree(sound, out, dirs_exist_ok=True)
    base = out / "base"
    if change:
        tensors = load_file(base / WEIGHTS)
        change(tensors)
        save_file(tensors, base / WEIGHTS, metadata={"format": "pt"})
    told = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(told | config))
    return out


def in_8_bits(tensors: Tensors) -> None:
    """As bitsandbytes saves LLM.int8()."""
    tensors[f"{UP}.weight"] = torch.zeros(112, 48, dtype=torch.int8)
    tensors[f"{UP}.SCB"] = torch.ones(112)


def in_4_bits(tensors: Tensors) -> None:
    """As bitsandbytes saves nf4."""
    tensors[f"{UP}.weight"] = torch.zeros(112 * 24, 1, dtype=torch.uint8)
    tensors[f"{UP}.weight.absmax"] = torch.ones(84)


def in_fp8(tensors: Tensors) -> None:
    tensors[f"{UP}.weight"] = tensors[f"{UP}.weight"].to(torch.float8_e4m3fn)


def packed(tensors: Tensors) -> None:
    """As GPTQ and AWQ are saved, with their settings in a file of its own."""
    del tensors[f"{UP}.weight"]
    tensors[f"{UP}.qweight"] = torch.zeros(6, 112, dtype=torch.int32)


def say(method: str) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method}}


QUANTISED: dict[str, tuple[Callable[[Tensors], Any] | None, dict[str, Any], str]] = {
    "8 bits": (in_8_bits, {}, f"{UP}.weight"),
    "4 bits": (in_4_bits, {}, f"{UP}.weight"),
    "fp8": (in_fp8, say("fp8"), "fp8 and 1 matrices"),
    "packed": (packed, {}, f"{UP}.qweight"),
    "bitsandbytes by name": (None, say("bitsandbytes"), "bitsandbytes"),
    "awq by name": (None, say("awq"), "awq"),
    "gptq by name": (None, say("gptq"), "gptq"),
    "compressed by name": (None, {"compression_config": {"format": "dense"}}, "config.json"),
}


@EACH
@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_base(
    sound: Path, tmp_path: Path, kind: str, look: Callable[[Path], None]
) -> None:
    change, config, told = QUANTISED[kind]
    with pytest.raises(SentinelTripped, match="sentinel unquantised_base: ") as caught:
        look(altered(sound, tmp_path, change, **config))
    assert told in caught.value.why
    assert "original model" in caught.value.todo


@EACH
def test_a_head_that_is_tied_and_another(
    sound: Path, tmp_path: Path, look: Callable[[Path], None]
) -> None:
    def copied(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    def another(tensors: Tensors) -> None:
        tensors["lm_head.weight"][7, 7] += 1

    same = altered(sound, tmp_path / "same", copied)
    look(same)
    with pytest.raises(SentinelTripped, match="sentinel base_head: "):
        look(altered(same, tmp_path / "other", another))
    look(altered(same, tmp_path / "own", another, tie_word_embeddings=False))


@EACH
def test_a_file_that_was_cut(sound: Path, tmp_path: Path, look: Callable[[Path], None]) -> None:
    folder = altered(sound, tmp_path)
    look(folder)
    path = folder / "base" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BaseModelMissing, match=WEIGHTS):
        look(folder)


def test_a_plan_says_it(sound: Path, tmp_path: Path) -> None:
    folder = altered(sound, tmp_path, in_8_bits)

    def doubts(base: Path) -> list[str]:
        settings = SimpleNamespace(fetch=FetchParams(path=str(base)))
        session = cast("Any", SimpleNamespace(settings=settings))
        return list(preflight.doubts(session, [stages.FETCH]))

    assert doubts(sound / "base") == []
    (told,) = doubts(folder / "base")
    assert "unquantised_base" in told


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}])
def test_an_index_without_metadata_is_trained_on_and_stays_as_it_is(
    tmp_path: Path, metadata: dict[str, None]
) -> None:
    base = make_base(tmp_path / "base", shard="40KB", num_hidden_layers=1)
    (base / "tokenizer.json").write_text('{"model": {}}')
    index = base / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    size = told.pop("metadata")["total_size"]
    index.write_text(json.dumps(told | metadata))
    before = index.read_bytes()

    run(tmp_path, stages.FETCH, fetch.work, {}, {"path": str(base)})
    taken = folder_of(tmp_path, stages.FETCH) / "out" / "base"
    check_complete(taken)  # transformers reads it
    assert json.loads((taken / index.name).read_text()) == told | {"metadata": {"total_size": size}}
    assert index.read_bytes() == before
