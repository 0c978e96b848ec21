"""Reads what a GGUF file says about itself: key-value pairs and the list of tensors.

For the stage that writes such a file, and the one that judges it. A reader of our own, since the
gguf package has to match the converter, and neither image installs it. Format: ggml/docs/gguf.md in
llama.cpp, versions 2 and 3, little endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from pathlib import Path

Value = int | float | bool | str
F32, F16, BF16, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K = 0, 1, 30, 6, 7, 8, 12, 13, 14
"""Numbers of tensor types (enum ggml_type in llama.cpp's ggml.h)."""

FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "bf16": 32}
"""By output type, what a file says in general.file_type (enum llama_ftype in llama.h)."""

_TENSOR_TYPES = {"f32": F32, "f16": F16, "bf16": BF16, "q8_0": Q8_0}
_K_TYPES = {"q4_k_m": (Q4_K, Q5_0), "q5_k_m": (Q5_K, Q5_1), "q6_k": (Q6_K, Q8_0)}
_K_BLOCK = 256

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
BYTES_PER_BLOCK = {
    F32: (1, 4),
    F16: (1, 2),
    BF16: (1, 2),
    Q5_0: (32, 22),
    Q5_1: (32, 24),
    Q8_0: (32, 34),
    Q4_K: (256, 144),
    Q5_K: (256, 176),
    Q6_K: (256, 210),
}
"""By tensor type, weights in a block and its bytes (ggml-common.h)."""


class GgufInvalid(ValueError):
    """The file is no GGUF, or ends too early."""


@dataclass(frozen=True)
class Tensor:
    """A tensor: its shape (innermost first), the number of its type, and where its data starts."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class Header:
    """The scalars and strings of the key-value pairs; of an array only its length."""

    version: int
    values: dict[str, Value]
    tensors: list[Tensor]
    arrays: dict[str, list[Value]]
    """The elements of the arrays that were asked for."""
    data_start: int = 0
    """Where in the file the tensors' data begins, from which their offsets count."""


def read_header(path: Path, arrays: Collection[str] = ()) -> Header:
    """Return the header, having checked that the data of every tensor lies within the file.

    `arrays` are keys of arrays to read whole. Raises `GgufInvalid`.
    """
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _Reader(data, arrays).header()
    except GgufInvalid:
        raise
    except (struct.error, ValueError, KeyError, ArithmeticError) as error:  # empty, or damaged
        raise GgufInvalid(f"{path.name}: {type(error).__name__}: {error}") from error


def file_type(header: Header) -> str:
    """Return the output type that a file names as its own, "" for one not listed here."""
    number = header.values.get("general.file_type")
    return next((name for name, each in FILE_TYPES.items() if each == number), "")


def matrix_type(outtype: str, row: int) -> int:
    """Return what an output type has most matrices in whose rows have `row` weights.

    A k-quant has blocks of 256; for rows of another length llama-quantize takes a second type.
    """
    if outtype not in _K_TYPES:
        return _TENSOR_TYPES[outtype]
    blocks, other = _K_TYPES[outtype]
    return other if row % _K_BLOCK else blocks


class _Reader:
    def __init__(self, data: mmap.mmap, wanted: Collection[str]) -> None:
        self._data = data
        self._at = 0
        self._wanted = wanted
        self._arrays: dict[str, list[Value]] = {}

    def header(self) -> Header:
        if self._data[:4] != _MAGIC:
            raise GgufInvalid("it does not begin with GGUF")
        self._at = 4
        version, tensors, pairs = (self._scalar(kind) for kind in "IQQ")
        if version not in {2, 3}:
            raise GgufInvalid(f"version {version} is not known")
        values = dict(self._pair() for _ in range(int(pairs)))
        found = [self._tensor() for _ in range(int(tensors))]
        alignment = int(values.get("general.alignment", 32))
        start = -(-self._at // alignment) * alignment
        header = Header(int(version), values, found, self._arrays, start)
        for tensor in header.tensors:
            block, size = BYTES_PER_BLOCK.get(tensor.type, (1, 0))
            end = start + tensor.offset + prod(tensor.shape) // block * size
            if end > len(self._data):
                raise GgufInvalid(f"it ends before the data of {tensor.name}")
        return header

    def _scalar(self, kind: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from(f"<{kind}", self._data, self._at)[0]
        self._at += struct.calcsize(f"<{kind}")
        return value

    def _string(self) -> str:
        length = int(self._scalar("Q"))
        text = self._data[self._at : self._at + length].decode("utf-8")
        self._at += length
        return text

    def _pair(self) -> tuple[str, Value]:
        key, kind = self._string(), int(self._scalar("I"))
        if kind == _ARRAY:
            return key, self._array(key)
        return key, self._value(kind)

    def _value(self, kind: int) -> Value:
        return self._string() if kind == _STRING else self._scalar(_SCALARS[kind])

    def _array(self, key: str) -> int:
        """Return an array's length; keep it if it was asked for, else step over it.

        A vocabulary has 151,936 strings.
        """
        kind, length = int(self._scalar("I")), int(self._scalar("Q"))
        if kind == _ARRAY:
            raise GgufInvalid("it holds an array of arrays")
        if key in self._wanted:
            self._arrays[key] = [self._value(kind) for _ in range(length)]
            return length
        if kind != _STRING:
            self._at += struct.calcsize(f"<{_SCALARS[kind]}") * length
            return length
        for _ in range(length):
            size = int(self._scalar("Q"))  # moves the position itself
            self._at += size
        return length

    def _tensor(self) -> Tensor:
        name = self._string()
        shape = tuple(int(self._scalar("Q")) for _ in range(int(self._scalar("I"))))
        return Tensor(name, shape, int(self._scalar("I")), int(self._scalar("Q")))
