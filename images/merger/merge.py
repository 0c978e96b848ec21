"""Stage MERGE: the original base model plus the adapter, as bf16 safetensors.

Always into the unquantised base itself: the weights that a 4-bit training ran on are not those of
the base any more, and a merge into them once answered in garbage.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from contracts import files
from contracts.base_model import HEAD, embedding_of
from contracts.entrypoint import StageContext
from contracts.errors import SentinelTripped
from contracts.params import (
    MergeMetrics,
    MergeParams,
)
from contracts.safetensors_header import Entry, read_header
from contracts.stages import (
    BASE,
    LORA_ADAPTER,
    MERGED,
)
from images.merger.drift import check_against_training
from images.merger.streamed import Meter, Progress, spared_threads, write_shard
from images.weights.arithmetic import check_finite
from images.weights.checks import REPORT, Pair, check_changed, check_pair
from images.weights.lora import NotCovered, Update
from images.weights.model_files import DTYPES, base_config, write_the_rest
from images.weights.shards import (
    INDEX,
    NAMES,
    SINGLE,
    by_name,
    index_of,
    is_recomputed,
    model_shards,
)

PROGRESS = "merge.json"
_log = logging.getLogger(__name__)

Shards = dict[str, list[Entry]]


def work(context: StageContext[MergeParams]) -> MergeMetrics:
    """Merge, write, and look at what was written."""
    base, adapter = context.input(BASE), context.input(LORA_ADAPTER)
    out, dtype = context.output(MERGED), DTYPES[context.params.dtype]
    with spared_threads():
        pair = check_pair(base, adapter, context.job.inputs[BASE.name].digest)

    why = ""
    try:
        updates = pair.updates()
        with spared_threads():
            changed = _streamed(context, pair.shards, updates)
    except NotCovered as reason:
        why = str(reason)
        changed = _by_peft(context, why, pair.touched)
    untied = bool(why) and _is_untied(pair.config, out)
    _check_written(_expected(pair, out, untied=untied), out, dtype)
    check_changed(changed, pair)
    config = {**pair.config, "tie_word_embeddings": False} if untied else pair.config
    write_the_rest(base, out, config, dtype)
    found = check_against_training(context)
    return MergeMetrics(
        merged_modules=len(pair.touched),
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
    changed = set()
    embedding = embedding_of(before)
    for name in sorted(after):
        # A head that the base has not was its embedding.
        old = name if name in before or name != HEAD else embedding
        if old not in before:
            continue  # named by `_check_written`
        new = _read(after[name], name)
        check_finite(name, new)
        if not torch.equal(_read(before[old], old).to(dtype), new):
            changed.add(name)
    # A head that the adapter holds beside its embedding, and keeps tied, is that tensor still.
    if HEAD not in after and embedding in changed and HEAD.removesuffix(".weight") in modules:
        changed.add(HEAD)
    return changed


def _is_untied(config: Mapping[str, Any], out: Path) -> bool:
    """Return whether PEFT has parted the head from the embedding, one of them trained as a copy.

    `config` is the base's; PEFT's own stands in `out` until the rest is written.
    """
    merged = base_config(out).get("tie_word_embeddings")
    return bool(config.get("tie_word_embeddings")) and merged is False


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
def _expected(pair: Pair, out: Path, *, untied: bool) -> dict[str, Entry]:
    """Return the base's tensors as the merged model has to have them.

    A tied head stays tied: a copy of the embedding in the base's files is not written by PEFT's
    way, and may be missing. One that is `untied` is there, of the embedding's shape.
    """
    base = pair.tensors
    if untied and (embedding := embedding_of(base)):
        return {HEAD: base[embedding], **base}
    if pair.config.get("tie_word_embeddings") and HEAD not in _places(out):
        base.pop(HEAD, None)
    return base


def _check_written(base: Mapping[str, Entry], out: Path, dtype: torch.dtype) -> None:
    """Compare the headers: the same names, shapes, the asked type."""
    after = by_name(model_shards(out))
    if odd := {name for name in set(base) ^ set(after) if not is_recomputed(name)}:
        raise SentinelTripped(
            "sentinel tensor_names: the merged model has other tensors than the base",
            why=", ".join(sorted(odd)[:5]),
            todo=REPORT,
        )
    for name, entry in after.items():
        if entry.shape != base[name].shape:
            raise SentinelTripped(
                f"sentinel shapes: {name} was written as {entry.shape}",
                why=f"it is {base[name].shape} in the base",
                todo=REPORT,
            )
        if entry.dtype != NAMES[dtype]:
            raise SentinelTripped(
                f"sentinel dtype: {name} was written in {entry.dtype}",
                why=f"merge.dtype asks for {NAMES[dtype]}",
                todo=REPORT,
            )
