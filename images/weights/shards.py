"""A model's safetensors files, as far as a merge that never holds a model needs them.

How a header is read stands in contracts/safetensors_header.py. All offsets in it follow from names,
types and shapes, so one can be written before the first tensor is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import torch

from contracts.errors import BaseModelMissing
from contracts.safetensors_header import Entry, read_header

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The types that a base in full precision has, by their names in a header."""

NAMES = {dtype: name for name, dtype in FLOATS.items()}

_METADATA = {"format": "pt"}  # transformers refuses a file without it
_ALIGNMENT = 8


def layout(
    tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...]]],
) -> tuple[bytes, list[Entry]]:
    """Return the header of a file of these tensors, and where each of them goes.

    Byte for byte what `safetensors.torch.save_file` writes: wide types first and then by name, no
    gap between tensors, the header filled up with spaces to a multiple of 8.
    """
    ordered = sorted(tensors, key=lambda tensor: (-tensor[1].itemsize, tensor[0]))
    header: dict[str, object] = {"__metadata__": _METADATA}
    spans, offset = [], 0
    for name, dtype, shape in ordered:
        end = offset + prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": (offset, end)}
        spans.append((name, NAMES[dtype], tuple(shape), offset, end))
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    start = 8 + len(text)
    entries = [
        Entry(name, dtype, shape, start + a, start + b) for name, dtype, shape, a, b in spans
    ]
    return len(text).to_bytes(8, "little") + text, entries


def model_shards(folder: Path) -> dict[str, list[Entry]]:
    """Return the tensors of each file of a model, by file name, in the index's order of names.

    As transformers does, one `model.safetensors` goes before an index. Raises `BaseModelMissing`
    when a file is missing, or its tensors are not those that the index has in it.
    """
    if (folder / SINGLE).is_file():
        return {SINGLE: read_header(folder / SINGLE)}
    if not (folder / INDEX).is_file():
        raise BaseModelMissing(f"{folder} has neither {SINGLE} nor {INDEX}")
    index = _weight_map(folder / INDEX)
    shards = {}
    for name in sorted(set(index.values())):
        if not (folder / name).is_file():
            raise BaseModelMissing(f"{folder} has no {name}", why=f"{INDEX} names it")
        shards[name] = read_header(folder / name)
        named = {tensor for tensor, file in index.items() if file == name}
        if odd := named ^ {entry.name for entry in shards[name]}:
            raise BaseModelMissing(
                f"{name} does not hold the tensors that {INDEX} has in it",
                why=", ".join(sorted(odd)[:5]),
            )
    return shards


def by_name(shards: Mapping[str, Iterable[Entry]]) -> dict[str, Entry]:
    """Return the tensors of all files of a model by name."""
    return {entry.name: entry for entries in shards.values() for entry in entries}


def _weight_map(path: Path) -> dict[str, str]:
    """Return the file of each tensor; raise `BaseModelMissing` for an index that is damaged, or
    that names a file elsewhere: a merge writes under the same names."""
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        for file in found.values():
            if Path(file).name != file:
                raise ValueError(f"{file} is no name of a file in this folder")
        return dict(found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelMissing(
            f"{path} is damaged", why=f"{type(error).__name__}: {error}"
        ) from error


def is_recomputed(name: str) -> bool:
    """Return whether a tensor is the table of a rotary embedding, as old Llamas' files have it.

    It follows from config.json, and every tool computes it anew: transformers does not read it,
    nor write it again, and llama.cpp's converter drops it.
    """
    return name.endswith(".rotary_emb.inv_freq")


def index_of(shards: Mapping[str, list[Entry]]) -> dict[str, object]:
    """Return the content of the index file of a model in several files."""
    total = sum(entry.bytes for entries in shards.values() for entry in entries)
    names = {entry.name: shard for shard, entries in shards.items() for entry in entries}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
