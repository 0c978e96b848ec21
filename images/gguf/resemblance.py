"""Every further output type, held against the first: the same tensors, but for rounding.

The first one is served and compared with base and adapter in evaluate; the others are never served
here. So their weights are compared, as numbers, by the dequantisation of llama.cpp's own Python
package (gguf-py, beside the pinned converter): ||other - first|| / ||first|| of each tensor, in the
Frobenius norm.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from contracts.converter import find_converter
from contracts.errors import SentinelTripped
from contracts.gguf_header import (
    BF16,
    BYTES_PER_BLOCK,
    F16,
    F32,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    Header,
    Tensor,
)
from images.gguf.programs import Tell
from images.gguf.trained import read_back

ROUNDING = {
    F32: 0.0,
    BF16: 0.004,
    F16: 0.004,
    Q8_0: 0.02,
    Q6_K: 0.06,
    Q5_K: 0.13,
    Q5_0: 0.13,
    Q5_1: 0.13,
    Q4_K: 0.2,
}
"""By tensor type, the relative error that rounding may have: two to four times what llama.cpp's
tools leave on normally distributed weights (q8_0 0.0054, Q6_K 0.018, Q5_K 0.036, Q5_0 0.043, Q4_K
0.071). Seen where every 96th column is 40 times as large: 0.013, 0.038, 0.051, 0.077, 0.09. At
most, in a block of 32 with two opposite outliers: 8 / 15 / sqrt(12) = 0.154 in Q4_K."""

_TODO = "Run the stage again: both are made anew."
_CHUNK = 2**20
"""Weights that are dequantised at a time: a dozen MiB with all that numpy holds beside them."""

Array = Any
"""A numpy array: [rows, columns] in fp32, or raw bytes."""


def check_resemblance(first: Path, other: Path, tell: Tell) -> float:
    """Return the largest relative error, as a share of its limit, of the tensors of `other`.

    Raises `SentinelTripped` for another list of tensors, and for one that is further from that of
    `first` than the types of both explain, or holds NaN or infinity.
    """
    headers = read_back(first), read_back(other)
    ours, theirs = ({t.name: t for t in header.tensors} for header in headers)
    if {n: t.shape for n, t in ours.items()} != {n: t.shape for n, t in theirs.items()}:
        raise SentinelTripped(
            f"sentinel variant_weights: {other.name} has other tensors than {first.name}",
            why="both are made of one model",
            todo=_TODO,
        )
    dequantize = _dequantizer()
    sides = [_data(path) for path in (first, other)]
    worst = 0.0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        pairs = [(ours[name], theirs[name]) for name in ours]
        errors = pool.map(
            lambda pair: _error(
                *(
                    _Weights(data, header, tensor, dequantize)
                    for data, header, tensor in zip(sides, headers, pair, strict=True)
                )
            ),
            pairs,
        )
        for done, ((mine, their), error) in enumerate(zip(pairs, errors, strict=True), start=1):
            limit = ROUNDING[mine.type] + ROUNDING[their.type]
            if not error <= limit:  # NaN too
                pool.shutdown(cancel_futures=True)
                raise SentinelTripped(
                    f"sentinel variant_weights: {mine.name} differs by {error:.2g} of its size "
                    f"between {first.name} and {other.name}",
                    why=f"rounding explains at most {limit:.2g}; one of the files is damaged",
                    todo=_TODO,
                )
            worst = max(worst, error / limit if limit else 0.0)
            tell(done / len(pairs))
    return worst


class _Weights:
    """A tensor of a file, a few rows at a time."""

    def __init__(
        self, data: Array, header: Header, tensor: Tensor, dequantize: Callable[..., Array]
    ) -> None:
        self.columns, self.rows = tensor.shape[0], prod(tensor.shape[1:])
        block, size = BYTES_PER_BLOCK[tensor.type]
        row, start = self.columns // block * size, header.data_start + tensor.offset
        self._bytes = data[start : start + self.rows * row].reshape(self.rows, row)
        self._type, self._dequantize = tensor.type, dequantize

    def some(self, begin: int, end: int) -> Array:
        """Return rows begin to end in fp32."""
        return self._dequantize(np.ascontiguousarray(self._bytes[begin:end]), self._type)


def _error(first: _Weights, other: _Weights) -> float:
    """Return ||other - first|| / ||first||; 0 for two tensors of zeros."""
    difference = size = 0.0
    step = max(1, _CHUNK // first.columns)
    with np.errstate(all="ignore"):  # infinity and NaN are told by the result
        for begin in range(0, first.rows, step):
            mine, their = (each.some(begin, begin + step).ravel() for each in (first, other))
            size += float(np.dot(mine, mine))
            their = their - mine
            difference += float(np.dot(their, their))
    if not difference:
        return 0.0
    return math.sqrt(difference / size) if size else math.inf


def _data(path: Path) -> Array:
    return np.memmap(path, np.uint8, mode="r")


def _dequantizer() -> Callable[..., Array]:
    """Return the function of llama.cpp's Python package that takes bytes and a type's number."""
    package = str(find_converter().parent / "gguf-py")
    if Path(package).is_dir() and package not in sys.path:
        sys.path.insert(1, package)
    theirs: Any = importlib.import_module("gguf")

    def dequantize(data: Array, kind: int) -> Array:
        found: Array = theirs.quants.dequantize(data, theirs.GGMLQuantizationType(kind))
        return found

    return dequantize
