"""The adapter alone, in the format of the serving engine: llama.cpp's own converter for LoRA.

Its weights stay as they were trained, in fp32. The engine adds alpha / rank * B @ A to the base's
matrices as it computes, so nothing is rounded here but what the base's own type has rounded.
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

from safetensors import safe_open

from contracts import reference
from contracts.converter import LORA_CONVERTER, find_converter
from contracts.entrypoint import StageContext
from contracts.errors import SentinelTripped, SettingsInvalid
from contracts.gguf_header import F32
from contracts.params import GgufParams
from contracts.stages import BASE, LORA_ADAPTER, REFERENCE
from images.gguf.programs import Tell, run_converter
from images.gguf.trained import CONVERT_ANEW, read_back
from images.weights.adapter_config import CONFIG, read_config
from images.weights.checks import TRAIN_ANEW, Pair, check_pair
from images.weights.lora import WEIGHTS, Lora, NotCovered
from images.weights.model_files import base_config
from images.weights.tokenizer import check_tokenizer


def convert(context: StageContext[GgufParams], out: Path, tell: Tell) -> None:
    """Write the adapter to `out`.

    Raises `SentinelTripped` for another base or tokenizer than in training and for an adapter that
    holds nothing, NaN or infinity; `SettingsInvalid` for one that the format cannot hold.
    """
    base, adapter = context.input(BASE), context.input(LORA_ADAPTER)
    check_tokenizer(base, reference.read(context.input(REFERENCE)).trained)
    _require_plain(check_pair(base, adapter, context.job.inputs[BASE.name].digest))
    named = _named_folder(context, adapter)
    script = find_converter(LORA_CONVERTER)
    options = ("--base", str(base), "--outtype", "f32", "--outfile", str(out))
    run_converter((sys.executable, str(script), *options, str(named)), script.parent, tell)
    shutil.rmtree(named.parent)


def _named_folder(context: StageContext[GgufParams], adapter: Path) -> Path:
    """Return a folder with links to the adapter's two files alone, named as the task.

    The converter takes a name from the folder, and from the model card that PEFT writes, which
    holds the path of the base; the same adapter has to give the same bytes anywhere.
    """
    folder = context.work / "adapter" / context.job.task
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS):
        (folder / name).symlink_to((adapter / name).resolve())
    return folder


def check(context: StageContext[GgufParams], path: Path) -> None:
    """Read the file back; raise `SentinelTripped` unless it holds each A and B of the adapter."""
    header = read_back(path)
    adapter = context.input(LORA_ADAPTER)
    expected = {
        "general.type": "adapter",
        "general.architecture": base_config(context.input(BASE))["model_type"],
        "adapter.type": "lora",
        "adapter.lora.alpha": float(read_config(adapter)["lora_alpha"]),
    }
    for key, wanted in expected.items():
        if (found := header.values.get(key)) != wanted:
            raise SentinelTripped(
                f"sentinel gguf: {key} is {found!r} instead of {wanted!r}",
                why="the engine would scale the adapter by it, or take the file for another kind",
                todo=CONVERT_ANEW,
            )
    written = sorted(
        (tensor.name.rpartition(".lora_")[2], tensor.shape)
        for tensor in header.tensors
        if tensor.type == F32
    )
    if written != (trained := _matrices(adapter)) or len(written) != len(header.tensors):
        raise SentinelTripped(
            f"sentinel gguf: the file holds {len(header.tensors)} matrices, not the "
            f"{len(trained)} of the adapter",
            why="their number, shapes or type differ",
            todo=CONVERT_ANEW,
        )


def _require_plain(pair: Pair) -> None:
    """Raise `SettingsInvalid` for what the engine would compute otherwise, or leave out, and
    `SentinelTripped` for an adapter that changes nothing.

    It takes alpha / rank for the scaling (llama.cpp, src/llama-adapter.h: get_scale), with one
    alpha for all; an alpha of 0 is one that is not told, and scales by 1.
    """
    try:
        updates = pair.updates()
    except NotCovered as reason:
        raise _unfit(str(reason)) from reason
    alpha = float(read_config(pair.adapter)["lora_alpha"])
    changes = False
    with safe_open(pair.adapter / WEIGHTS, framework="pt") as tensors:
        for name, update in updates.items():
            if not isinstance(update, Lora):
                raise _unfit(f"{name} was trained")
            rank = tensors.get_slice(update.b).get_shape()[1]
            if not alpha or not math.isclose(update.scaling, alpha / rank):
                raise _unfit(f"the scaling of {name} is not alpha / rank")
            changes = changes or all(
                bool(tensors.get_tensor(part).any()) for part in (update.a, update.b)
            )
    if not changes:
        raise SentinelTripped(
            "sentinel weights_changed: the adapter changes no weight",
            why="A or B of each matrix is zero, so their product is",
            todo=TRAIN_ANEW,
        )


def _unfit(why: str) -> SettingsInvalid:
    return SettingsInvalid(
        "this adapter cannot be served as an adapter", why=why, todo="Set deploy.form=merged."
    )


def _matrices(adapter: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Return `a` or `b` and the shape, innermost first, of each matrix of the adapter, sorted."""
    with safe_open(adapter / WEIGHTS, framework="pt") as tensors:
        return sorted(
            ("a" if ".lora_A." in name else "b", tuple(tensors.get_slice(name).get_shape()[::-1]))
            for name in tensors.keys()  # noqa: SIM118
        )
