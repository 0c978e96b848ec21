"""What a base model has to be for a LoRA to be trained on it and merged into it.

Told by config.json and the headers of its files alone, so it is asked where the model is fetched,
before anything is stopped, and again by each stage that works on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import SentinelTripped

HEAD, _EMBEDDING = "lm_head.weight", "embed_tokens.weight"
_SMALL = ("I8", "U8", "I4", "U4", "F8", "F6", "F4")
"""How the types of quantised matrices begin in a header: bitsandbytes, fp8, nvfp4 and their kin."""
_PACKED = "I32"
"""The type of a matrix of GPTQ and AWQ, eight weights of four bits in each."""
_SETTINGS = ("quantization_config", "compression_config")
_BLOCK = 2**20


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file: type as the header names it, shape, place in bytes."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int


def check_base(config: Mapping[str, Any], tensors: Mapping[str, Stored]) -> None:
    """Raise `SentinelTripped` for a base that would be trained in vain; `tensors` by name."""
    check_unquantised(config, tensors)
    _check_head(config, tensors)


def check_unquantised(config: Mapping[str, Any], tensors: Mapping[str, Stored]) -> None:
    """Raise `SentinelTripped` for a base that says it is quantised, or has such matrices."""
    told = next((config[name] for name in _SETTINGS if config.get(name)), None)
    small = sorted(name for name, tensor in tensors.items() if _is_quantised(tensor))
    if told is None and not small:
        return
    method = told.get("quant_method") if isinstance(told, Mapping) else None
    found = [f"config.json tells of {method or 'it'}"] if told is not None else []
    found += [f"{len(small)} matrices are stored so, {small[0]} first"] if small else []
    raise SentinelTripped(
        "sentinel unquantised_base: the base model is quantised",
        why=f"{' and '.join(found)}; a merge into quantised weights rounds the training away",
        todo="Set fetch.model or fetch.path to the original model in bf16, fp16 or fp32; "
        "train.load_in quantises it for the training.",
    )


def embedding_of(names: Iterable[str]) -> str:
    """Return which of these tensors is the embedding; "" for none."""
    return next((name for name in names if name.endswith(f".{_EMBEDDING}")), "")


def _is_quantised(tensor: Stored) -> bool:
    if tensor.dtype == _PACKED:
        return len(tensor.shape) == 2
    return tensor.dtype.startswith(_SMALL) and len(tensor.shape) > 1


def _check_head(config: Mapping[str, Any], tensors: Mapping[str, Stored]) -> None:
    """Raise `SentinelTripped` for a head that config.json ties to an embedding that it is not.

    Tools would take one or the other: training the embedding, llama.cpp the stored head.
    """
    head, embedding = tensors.get(HEAD), tensors.get(embedding_of(tensors))
    if not config.get("tie_word_embeddings") or head is None or embedding is None:
        return
    if not _same_bytes(head, embedding):
        raise SentinelTripped(
            f"sentinel base_head: {HEAD} is tied to the embedding, and holds something else",
            why="config.json has tie_word_embeddings, so training and serving would compute with "
            "different heads",
            todo="Set tie_word_embeddings to false in the base's config.json if it was trained "
            f"with a head of its own, else remove {HEAD} from its files; or fetch it anew.",
        )


def _same_bytes(one: Stored, other: Stored) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with one.file.open("rb") as a, other.file.open("rb") as b:
        a.seek(one.begin)
        b.seek(other.begin)
        left = one.end - one.begin
        while left > 0:
            size = min(left, _BLOCK)
            if a.read(size) != b.read(size):
                return False
            left -= size
    return True
