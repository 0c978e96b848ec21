"""The files of a model beside its weights: what a merge takes over from the base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from contracts import files
from contracts.errors import BaseModelMissing

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

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def base_config(base: Path) -> dict[str, Any]:
    """Return config.json; raise `BaseModelMissing` where there is none, or a damaged one."""
    path = base / "config.json"
    if not path.is_file():
        raise BaseModelMissing(f"{base} has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaseModelMissing(f"{path} is damaged", why=str(error)) from error
    if not isinstance(config, dict):
        raise BaseModelMissing(f"{path} is damaged", why="it holds no object")
    return config


def write_the_rest(base: Path, out: Path, config: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write to `out` all of a merged model but its weights."""
    for name in COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    # The base's own words, since transformers would write a newer form of them.
    key = "dtype" if "dtype" in config else "torch_dtype"
    files.write_json(out / "config.json", {**config, key: str(dtype).removeprefix("torch.")})
