"""What the trainings of benchmarks/gpu are given: a base of random weights, and rows.

    python -m benchmarks.gpu.prepare FOLDER --shape 14b --device cuda --rows 64

A process of its own, since it leaves memory behind on the GPU. The base is a folder like any other,
so that it is loaded and quantised as a real one is; 28 GB are written for Qwen3-14B, on the GPU in
seconds, and best to a file system in memory.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts import files

SEED = 17
VALIDATION_ROWS = 8
ROWS_AT_MOST = 300
PREPARED = "prepared.json"

_QWEN3 = {
    "attention_bias": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
    "transformers_version": "4.51.0",  # readers ask for it
    "vocab_size": 151936,
}
_HEADS_14B = {"num_attention_heads": 40, "num_key_value_heads": 8}
_WIDTHS_14B = {**_HEADS_14B, "hidden_size": 5120, "intermediate_size": 17408}
SHAPES: dict[str, dict[str, Any]] = {
    "14b": {**_QWEN3, **_WIDTHS_14B, "num_hidden_layers": 40},
    "slice": {**_QWEN3, **_WIDTHS_14B, "num_hidden_layers": 4},
    "heads": {
        **_QWEN3,
        **_HEADS_14B,
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "num_hidden_layers": 4,
    },
}
"""Qwen3-14B, after its published config.json; four layers of it; and its attention on a narrow
body, for what is only compared. Besides these there is `tiny`, that of examples/tiny_qwen3.py."""
_LAYERS_A_FILE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=[*SHAPES, "tiny"], required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--heads", action="store_true", help="write the narrow base as well")
    given = parser.parse_args()
    wanted = {"shape": given.shape, "rows": given.rows, "heads": given.heads}
    place = given.folder / PREPARED
    if place.exists() and json.loads(place.read_text(encoding="utf-8"))["made_for"] == wanted:
        return  # of an earlier call in the same folder
    prepare(given.folder, given.shape, given.device, given.rows, heads=given.heads)
    files.write_json(place, {"made_for": wanted, **_lengths(given.folder)})


def prepare(folder: Path, shape: str, device: str, count: int, *, heads: bool) -> None:
    """Write base/, train.jsonl and validation.jsonl, and heads/ if asked for."""
    from examples import tiny_qwen3

    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "base"
    for old in ("tiny", "base", "heads"):
        shutil.rmtree(folder / old, ignore_errors=True)
    tiny_qwen3.make(folder / "tiny")
    if shape == "tiny":
        (folder / "tiny").rename(base)
    else:
        random_base(base, SHAPES[shape], device, tokenizer=folder / "tiny")
    if heads:
        random_base(folder / "heads", SHAPES["heads"], device, tokenizer=base)
    rows = _rows(base, short=shape == "tiny")
    if not 0 < count <= min(ROWS_AT_MOST, len(rows) - VALIDATION_ROWS):
        raise SystemExit(f"{count} rows are not to be had of {len(rows)}")
    files.write_jsonl(folder / "train.jsonl", rows[:count])
    files.write_jsonl(folder / "validation.jsonl", rows[count : count + VALIDATION_ROWS])
    files.write_jsonl(folder / "sample.jsonl", rows)


def random_base(base: Path, size: dict[str, Any], device: str, *, tokenizer: Path) -> None:
    """Write a Qwen3 of this size, with the tokenizer of another base."""
    import torch

    from benchmarks.random_qwen3 import write_base

    generator = torch.Generator(device).manual_seed(SEED)
    write_base(base, size, generator, count=max(1, size["num_hidden_layers"] // _LAYERS_A_FILE))
    for path in tokenizer.iterdir():
        if path.name in {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}:
            shutil.copy(path, base)


def _rows(base: Path, *, short: bool) -> list[dict[str, Any]]:
    """Return the sample's rows that a training takes, in random order.

    `short` ones are cut: for a program that is only to be seen working.
    """
    from transformers import AutoTokenizer

    from benchmarks.sample import conversations
    from contracts.params import TrainParams

    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = conversations()
    random.Random(SEED).shuffle(rows)  # noqa: S311
    if short:
        rows = [{**row, "messages": _shortened(row["messages"])} for row in rows[:60]]
    longest = TrainParams().max_length
    return [
        row for row, tokens in zip(rows, _tokens(rows, tokenizer), strict=True) if tokens <= longest
    ]


def _shortened(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    system, user, answer = messages
    return [
        {**system, "content": system["content"][:200]},
        {**user, "content": user["content"][:300]},
        {**answer, "content": answer["content"][:200]},
    ]


def _lengths(folder: Path) -> dict[str, Any]:
    """Return the tokens of each row, in the order of the files."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    return {
        split: _tokens(list(files.read_jsonl(folder / f"{split}.jsonl")), tokenizer)
        for split in ("train", "validation", "sample")
    }


def _tokens(rows: Sequence[dict[str, Any]], tokenizer: Any) -> list[int]:
    from benchmarks.sample import TASK
    from images.trainer.rows import encode
    from tasks import load_task

    chat = load_task(TASK).chat
    return [len(encode(row, tokenizer, chat).ids) for row in rows]


if __name__ == "__main__":
    main()
