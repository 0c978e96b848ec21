"""The header of a safetensors file: which tensors it holds, and where their bytes lie.

A file is 8 bytes of header length (little endian), a JSON header, and the tensors' bytes one after
another: https://huggingface.co/docs/safetensors, section Format. Standard library only, so that a
base is looked at where it is fetched as it is where it is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from contracts.errors import BaseModelMissing

BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""Per value, of the types that a base in full precision has, by their names in a header."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: type as the header names it, shape, place in the file in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Return the number of values; 1 for a scalar."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Return the size in the file."""
        return self.end - self.begin


def read_header(path: Path) -> list[Entry]:
    """Return the tensors of a file in the order of their bytes; there is one at least.

    Raises `BaseModelMissing` for what is no safetensors file, one that was cut off, and one whose
    tensors have more or fewer bytes than their shapes need.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size - 8:
                raise ValueError("it is shorter than its header")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        entries = [
            Entry(
                name,
                str(told["dtype"]),
                tuple(told["shape"]),
                *(8 + length + offset for offset in told["data_offsets"]),
            )
            for name, told in header.items()
        ]
        for entry in entries:
            _check_span(entry)
        if not entries:
            raise ValueError("it holds no tensor")
        if (wanted := max(entry.end for entry in entries)) != size:
            raise ValueError(f"it has {size} bytes, and its header speaks of {wanted}")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise BaseModelMissing(f"{path} is damaged", why=str(error)) from error
    return sorted(entries, key=lambda entry: (entry.begin, entry.end))


def _check_span(entry: Entry) -> None:
    """Raise ValueError where what is read by the shape would be others' bytes."""
    if not all(type(size) is int and size >= 0 for size in entry.shape):
        raise ValueError(f"{entry.name} has the shape {entry.shape}")
    if entry.dtype not in BYTES:  # none of those is read
        return
    if entry.bytes != (needed := entry.elements * BYTES[entry.dtype]):
        raise ValueError(f"{entry.name} has {entry.bytes} bytes, and needs {needed}")
