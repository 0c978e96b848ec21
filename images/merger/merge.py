"""Stage MERGE: the original base model plus the adapter, as bf16 safetensors.

Always into a fresh load of the unquantised base: the weights that a 4-bit training ran on are
not those of the base any more, and a merge into them once answered in garbage.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import BaseModelMissing, SentinelTripped
from contracts.params import (
    MergeMetrics,
    MergeParams,
)
from contracts.stages import (
    BASE,
    LORA_ADAPTER,
    MERGED,
)

SHARD_SIZE = "4GB"
COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""What a merge does not touch, byte for byte from the base where the base has it."""

_PARTS = 4
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_log = logging.getLogger(__name__)


def work(context: StageContext[MergeParams]) -> MergeMetrics:
    """Merge, write, and look at what was written."""
    base, adapter = context.input(BASE), context.input(LORA_ADAPTER)
    out = context.output(MERGED)
    config = _base_config(base)
    expected = adapted_modules(adapter)
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    context.progress(0, _PARTS, "parts")
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=_DTYPES[context.params.dtype], device_map="cpu", local_files_only=True
    )
    context.progress(1, _PARTS, "parts")
    with_adapter = PeftModel.from_pretrained(model, str(adapter))
    _check_attached(with_adapter, expected)
    context.progress(2, _PARTS, "parts")
    # safe_merge would round twice: the update to bf16, and then the sum
    merged = with_adapter.merge_and_unload(safe_merge=False)
    context.progress(3, _PARTS, "parts")

    shutil.rmtree(out, ignore_errors=True)  # of an attempt that was killed
    out.mkdir(parents=True)
    merged.save_pretrained(out, max_shard_size=SHARD_SIZE)
    for name in COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    # The base's own words, since transformers would write a newer form of them.
    dtype = str(_DTYPES[context.params.dtype]).removeprefix("torch.")
    key = "dtype" if "dtype" in config else "torch_dtype"
    files.write_json(out / "config.json", {**config, key: dtype})
    _check_written(base, out, expected, _DTYPES[context.params.dtype])
    context.progress(_PARTS, _PARTS, "parts")
    return MergeMetrics(merged_modules=len(expected), bytes=files.size_of(out))


def adapted_modules(adapter: Path) -> set[str]:
    """Return the modules (`model.layers.0.mlp.up_proj`, …) that the adapter file has a LoRA for."""
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
        names = [name for name in tensors.keys() if ".lora_A." in name]  # noqa: SIM118
    modules = {name.split(".lora_A.")[0].removeprefix("base_model.model.") for name in names}
    if not modules:
        raise SentinelTripped("sentinel adapter_modules: the adapter holds no LoRA")
    return modules


def _base_config(base: Path) -> dict[str, Any]:
    path = base / "config.json"
    if not path.is_file():
        raise BaseModelMissing(f"{base} has no config.json")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "quantization_config" in config:
        raise SentinelTripped(
            "sentinel unquantised_base: the base model is quantised",
            why="a merge into quantised weights rounds the training away",
            todo="Set fetch.model to the original model in bf16.",
        )
    return config


def _check_attached(model: Any, expected: set[str]) -> None:
    """Raise unless the LoRA of every module was found in the model; PEFT itself only warns."""
    attached = {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and len(module.lora_A)
    }
    if attached != expected:
        difference = sorted(attached ^ expected)
        raise SentinelTripped(
            f"sentinel attached_modules: {len(difference)} modules differ between the adapter and "
            "the base model",
            why=", ".join(difference[:5]),
        )


def _check_written(base: Path, out: Path, expected: set[str], dtype: torch.dtype) -> None:
    """Compare the written tensors with the base's, one at a time.

    The same names (so a tied head stays tied), the asked dtype, changes only where a LoRA was,
    and at least one.
    """
    before, after = _tensors(base), _tensors(out)
    if set(before) != set(after):
        raise SentinelTripped(
            "sentinel tensor_names: the merged model has other tensors than the base",
            why=", ".join(sorted(set(before) ^ set(after))[:5]),
        )
    changed = set()
    for name, path in after.items():
        tensor = _read(path, name)
        if tensor.dtype != dtype:
            raise SentinelTripped(f"sentinel dtype: {name} was written in {tensor.dtype}")
        if not torch.equal(tensor, _read(before[name], name).to(dtype)):
            changed.add(name.removesuffix(".weight"))
    if stray := changed - expected:
        raise SentinelTripped(
            "sentinel untouched_tensors: tensors without a LoRA have changed",
            why=", ".join(sorted(stray)[:5]),
        )
    if not changed:
        raise SentinelTripped("sentinel weights_changed: the merge has changed no weight")
    if same := expected - changed:
        _log.warning("%d modules are unchanged: their update is below one rounding", len(same))


def _tensors(folder: Path) -> dict[str, Path]:
    """Return where each tensor of a model lies."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            found |= dict.fromkeys(tensors.keys(), path)
    return found


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as tensors:
        return tensors.get_tensor(name)
