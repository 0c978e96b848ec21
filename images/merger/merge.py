"""Stage MERGE: the original base model plus the adapter, as bf16 safetensors.

Always into the unquantised base itself: the weights that a 4-bit training ran on are not those of
the base any more, and a merge into them once answered in garbage.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
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
from images.merger.drift import check_against_training
from images.merger.streamed import Meter, Progress, spared_threads, write_shard
from images.weights.lora import NotCovered, Update, plan_updates, read_config, touched_modules
from images.weights.shards import (
    FLOATS,
    INDEX,
    NAMES,
    SINGLE,
    Entry,
    index_of,
    model_shards,
    read_header,
)

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

PROGRESS = "merge.json"
BASE_BY_DIGEST = "base@sha256:"
"""What the trainer writes in front of the digest of its base, as the adapter's base model."""

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_SMALL = ("I8", "U8", "I4", "U4", "F8", "F6", "F4")  # types of quantised matrices
_log = logging.getLogger(__name__)

Shards = dict[str, list[Entry]]


def work(context: StageContext[MergeParams]) -> MergeMetrics:
    """Merge, write, and look at what was written."""
    base, adapter = context.input(BASE), context.input(LORA_ADAPTER)
    out, dtype = context.output(MERGED), DTYPES[context.params.dtype]
    config = _base_config(base)
    shards = model_shards(base)
    tensors = {entry.name: entry for entries in shards.values() for entry in entries}
    _check_unquantised(config, tensors)
    _check_commit(adapter, context.job.inputs[BASE.name].digest)
    with spared_threads():
        touched = touched_modules(adapter)

    why = ""
    try:
        _check_streamable(tensors)
        updates = plan_updates(adapter, tensors, config)
        with spared_threads():
            changed = _streamed(context, shards, updates)
    except NotCovered as reason:
        why = str(reason)
        changed = _by_peft(context, why, touched)
    _check_written(tensors, out, dtype)
    _check_changed(changed, touched)
    _write_the_rest(base, out, config, dtype)
    found = check_against_training(context)
    return MergeMetrics(
        merged_modules=len(touched),
        bytes=files.size_of(out),
        way="peft" if why else "streamed",
        why=why,
        drift=found.divergence if found else None,
        agreement=found.agreement if found else None,
    )


# --- the two ways, each of which returns the names of the tensors that it changed ----------------
def _streamed(
    context: StageContext[MergeParams], shards: Shards, updates: Mapping[str, Update]
) -> set[str]:
    base, out, dtype = context.input(BASE), context.output(MERGED), DTYPES[context.params.dtype]
    out.mkdir(parents=True, exist_ok=True)
    made_of = {
        "base": context.job.inputs[BASE.name].digest,
        "adapter": context.job.inputs[LORA_ADAPTER.name].digest,
        "code": context.job.code_digest,
        "dtype": context.params.dtype,
    }
    progress = Progress(context.work / PROGRESS, made_of)
    done = {name: progress.finished(base / name, out / name) for name in shards}
    _remove_others(out, {name for name, shard in done.items() if shard})
    if finished := sum(shard is not None for shard in done.values()):
        _log.warning("%d of %d shards were finished before", finished, len(shards))

    total = sum(e.elements * dtype.itemsize for entries in shards.values() for e in entries)
    meter = Meter(total, lambda done, total: context.progress(done, total, "bytes"))
    changed: set[str] = set()
    for name, entries in shards.items():
        shard = done[name]
        if shard is None:
            shard = write_shard(base / name, entries, out / name, dtype, updates, meter.advance)
            progress.note(base / name, out / name, shard)
            meter.tell()
        else:
            meter.advance(shard.bytes)
        context.digested(out / name, shard.digest)
        changed.update(shard.changed)
    context.progress(total, total, "bytes")  # headers are written too, and not counted
    if set(shards) != {SINGLE}:
        files.write_json(out / INDEX, index_of({name: read_header(out / name) for name in shards}))
    return changed


def _by_peft(context: StageContext[MergeParams], why: str, modules: set[str]) -> set[str]:
    from images.merger.with_peft import merge_with_peft

    _log.warning("PEFT merges, with the whole model in memory, since %s", why)
    base, out, dtype = context.input(BASE), context.output(MERGED), DTYPES[context.params.dtype]

    def tell(done: int, total: int) -> None:
        context.progress(done, total, "parts")

    merge_with_peft(base, context.input(LORA_ADAPTER), out, dtype, modules, tell)
    before, after = _places(base), _places(out)
    return {
        name
        for name in set(before) & set(after)
        if not torch.equal(_read(before[name], name).to(dtype), _read(after[name], name))
    }


def _remove_others(folder: Path, keep: set[str]) -> None:
    """Empty the folder of what an attempt that was killed has not finished."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in keep:
            path.unlink()


def _places(folder: Path) -> dict[str, Path]:
    """Return where each tensor of a model lies."""
    return {e.name: folder / name for name, found in model_shards(folder).items() for e in found}


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as tensors:
        found: torch.Tensor = tensors.get_tensor(name)
    return found


# --- what has to hold ----------------------------------------------------------------------------
def _base_config(base: Path) -> dict[str, Any]:
    path = base / "config.json"
    if not path.is_file():
        raise BaseModelMissing(f"{base} has no config.json")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


def _check_unquantised(config: Mapping[str, Any], tensors: Mapping[str, Entry]) -> None:
    small = [e.name for e in tensors.values() if e.dtype.startswith(_SMALL) and len(e.shape) > 1]
    if "quantization_config" in config or small:
        raise SentinelTripped(
            "sentinel unquantised_base: the base model is quantised",
            why="a merge into quantised weights rounds the training away",
            todo="Set fetch.model to the original model in bf16.",
        )


def _check_commit(adapter: Path, digest: str) -> None:
    """Raise if the adapter names the base that it was trained on, and it is not this one."""
    trained_on = str(read_config(adapter).get("base_model_name_or_path") or "")
    if not trained_on.startswith(BASE_BY_DIGEST):
        _log.warning("the adapter does not say by digest what base it was trained on")
    elif trained_on != BASE_BY_DIGEST + digest:
        raise SentinelTripped(
            "sentinel base_commit: the adapter was trained on another base model",
            why=f"on {trained_on}, and this is {BASE_BY_DIGEST}{digest}",
            todo="Train again on this base, or merge into the one that it was trained on.",
        )


def _check_streamable(tensors: Mapping[str, Entry]) -> None:
    for entry in tensors.values():
        if entry.dtype not in FLOATS:
            raise NotCovered(f"{entry.name} is {entry.dtype} in the base")


def _check_written(base: Mapping[str, Entry], out: Path, dtype: torch.dtype) -> None:
    """Compare the headers: the same names (so a tied head stays tied), shapes, the asked type."""
    after = {entry.name: entry for found in model_shards(out).values() for entry in found}
    if odd := set(base) ^ set(after):
        raise SentinelTripped(
            "sentinel tensor_names: the merged model has other tensors than the base",
            why=", ".join(sorted(odd)[:5]),
        )
    for name, entry in after.items():
        if entry.shape != base[name].shape:
            raise SentinelTripped(f"sentinel shapes: {name} was written as {entry.shape}")
        if entry.dtype != NAMES[dtype]:
            raise SentinelTripped(f"sentinel dtype: {name} was written in {entry.dtype}")


def _check_changed(changed: set[str], touched: set[str]) -> None:
    """Raise unless there are changes, and only in modules that the adapter has something for."""
    of_adapter = {
        name: module for name in changed for module in _and_parents(name) if module in touched
    }
    if stray := changed - set(of_adapter):
        raise SentinelTripped(
            "sentinel untouched_tensors: tensors without a LoRA have changed",
            why=", ".join(sorted(stray)[:5]),
        )
    if not changed:
        raise SentinelTripped("sentinel weights_changed: the merge has changed no weight")
    if same := touched - set(of_adapter.values()):
        _log.warning("%d modules are unchanged: their update is below one rounding", len(same))


def _and_parents(name: str) -> list[str]:
    """Return a dotted name, and all that it lies in."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _write_the_rest(base: Path, out: Path, config: Mapping[str, Any], dtype: torch.dtype) -> None:
    for name in COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    # The base's own words, since transformers would write a newer form of them.
    key = "dtype" if "dtype" in config else "torch_dtype"
    files.write_json(out / "config.json", {**config, key: str(dtype).removeprefix("torch.")})
