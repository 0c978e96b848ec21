"""What is converted: a merged model, or base and adapter, which become one on the way."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from contracts import files, reference
from contracts.converter import find_converter
from contracts.entrypoint import StageContext
from contracts.params import GgufParams
from contracts.reference import ProbeRow, Trained
from contracts.stages import BASE, LORA_ADAPTER, MERGED, REFERENCE
from images.weights.tokenizer import check_tokenizer


@dataclass(frozen=True)
class Source:
    """A model's folder, and the program that converts it."""

    folder: Path
    """With config.json and tokenizer: the merged model's, and in one pass the base's, from which it
    would have them. What a conversion itself lays out for one pass may not outlive a power cut."""
    program: tuple[str, ...]
    """What stands in front of the converter's options."""
    home: Path
    """The folder to call it from."""
    exact_type: str
    """The output type that holds the model's weights as they are."""
    trained: Trained
    """What the files have to say of themselves."""
    row: ProbeRow | None = None
    """A row as it was trained, to show a difference on; None where the record has none."""


def source_of(context: StageContext[GgufParams]) -> Source:
    """Return what the job gives: MERGED, or BASE and LORA_ADAPTER.

    Raises `SentinelTripped` for a tokenizer that is not the one of the training.
    """
    converter = find_converter()
    record = reference.read(context.input(REFERENCE))
    trained, row = record.trained, next(iter(record.rows), None)
    one_pass = LORA_ADAPTER.name in context.job.inputs
    check_tokenizer(context.input(BASE if one_pass else MERGED), trained)
    if not one_pass:
        folder = context.input(MERGED)
        program = (sys.executable, str(converter), str(folder))
        return Source(folder, program, converter.parent, _exact_type(folder), trained, row)
    base, digest = context.input(BASE), context.job.inputs[BASE.name].digest
    given = (base, digest, context.input(LORA_ADAPTER), context.work / MERGED.filename)
    module = ("-m", "images.gguf.merging", str(converter))
    # `-m` looks for our modules in the folder that it is called from.
    merging = (sys.executable, *module, *map(str, given))
    return Source(base, merging, files.ROOT, "bf16", trained, row)


def _exact_type(merged: Path) -> str:
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    return "f32" if "float32" in (config.get("dtype"), config.get("torch_dtype")) else "bf16"
