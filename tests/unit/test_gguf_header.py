"""What a GGUF says of itself is read, and damage in it is named, wherever it is."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from contracts.gguf_header import F32, GgufInvalid, file_type, read_header


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(*, alignment: int = 32) -> bytes:
    """Return a file of one tensor of four weights, with a value of several kinds."""
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("qwen3"),
        text("general.alignment") + struct.pack("<II", 4, alignment),
        text("general.file_type") + struct.pack("<II", 4, 0),
        text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("ja") + text("nein"),
        text("scores") + struct.pack("<IIQff", 9, 6, 2, 0.5, 1.5),
    ]
    tensor = text("output.weight") + struct.pack("<IQQIQ", 2, 2, 2, F32, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + tensor
    return head + bytes(-len(head) % 32) + struct.pack("<4f", 1, 2, 3, 4)


def test_values_arrays_and_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    header = read_header(path, ["tokens"])
    assert header.values["general.architecture"] == "qwen3"
    assert header.values["scores"] == 2
    assert header.arrays == {"tokens": ["ja", "nein"]}
    assert [tensor.shape for tensor in header.tensors] == [(2, 2)]
    assert file_type(header) == "f32"


def test_any_damage_is_named(tmp_path: Path) -> None:
    """Every beginning of the file, and bytes that are changed anywhere in it."""
    whole, path = gguf(), tmp_path / "model.gguf"
    chance = random.Random(7)  # noqa: S311  # repeatable, no secret
    damaged = [whole[:length] for length in range(len(whole))]
    for at in range(len(whole)):
        for value in (0x00, 0x7F, 0xFF, chance.randrange(256)):
            damaged.append(whole[:at] + bytes([value]) + whole[at + 1 :])
            damaged.append(whole[:at] + bytes([value]) * 8 + whole[at + 8 :])
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            read_header(path, ["tokens"])
        except GgufInvalid:
            refused += 1
    assert refused > len(whole)


def test_an_alignment_of_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(alignment=0))
    with pytest.raises(GgufInvalid, match="ZeroDivisionError"):
        read_header(path)
