"""What is converted: a merged model, or base and adapter, which become one on the way."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contracts import files, reference
from contracts.converter import find_converter
from contracts.entrypoint import StageContext
from contracts.errors import OnePassNotCovered, SentinelTripped
from contracts.params import GgufParams
from contracts.reference import Trained
from contracts.stages import BASE, LORA_ADAPTER, MERGED, REFERENCE
from images.weights.tokenizer import check_tokenizer


@dataclass(frozen=True)
class Source:
    """A model's folder, and the program that converts it."""

    folder: Path
    program: tuple[str, ...]
    """What stands in front of the converter's arguments."""
    home: Path
    """The folder to call it from."""
    check: Callable[[], None]
    """Looks at what was merged; after each conversion."""
    trained: Trained
    """What the files have to say of themselves."""


def source_of(context: StageContext[GgufParams]) -> Source:
    """Return what the job gives: MERGED, or BASE and LORA_ADAPTER, which are checked first."""
    trained = reference.read(context.input(REFERENCE)).trained
    if LORA_ADAPTER.name in context.job.inputs:
        source = _base_and_adapter(context, trained)
    else:
        converter = find_converter()
        program = (sys.executable, str(converter))
        merged = context.input(MERGED)
        source = Source(merged, program, converter.parent, lambda: None, trained)
    check_tokenizer(source.folder, trained)
    return source


def _base_and_adapter(context: StageContext[GgufParams], trained: Trained) -> Source:
    """Return a folder as the merge would leave it, with the base's weights in the place of its own.

    Everything but the tensors is then what the converter finds after a merge: the folder's name,
    from which it guesses, and no file that a merge would not have written.
    """
    from images.gguf.merging import MERGED_DTYPE
    from images.weights.checks import check_changed, check_pair
    from images.weights.lora import NotCovered
    from images.weights.model_files import write_the_rest
    from images.weights.shards import INDEX, SINGLE, index_of, read_header

    base, adapter = context.input(BASE), context.input(LORA_ADAPTER)
    pair = check_pair(base, adapter, context.job.inputs[BASE.name].digest)
    try:
        pair.updates()
        for name, entries in pair.shards.items():
            if len(read_header(base / name)) != len(entries):
                raise NotCovered(f"{name} holds tensors that the base's index does not name")
    except NotCovered as reason:
        raise OnePassNotCovered(
            "the one-pass conversion does not cover this adapter", why=str(reason)
        ) from reason
    folder, report = context.work / MERGED.filename, context.work / "merged.json"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_the_rest(base, folder, pair.config, MERGED_DTYPE)
    for name in pair.shards:
        (folder / name).symlink_to((base / name).resolve())
    if set(pair.shards) != {SINGLE}:
        files.write_json(folder / INDEX, index_of(pair.shards))

    def check() -> None:
        told = json.loads(report.read_text(encoding="utf-8"))
        if lost := set(told["planned"]) - set(told["merged"]):
            raise SentinelTripped(
                f"sentinel merged_tensors: {len(lost)} updates of the adapter are not in the GGUF",
                why=", ".join(sorted(lost)[:5]),
            )
        check_changed(set(told["changed"]), pair.touched)

    program = (sys.executable, "-m", "images.gguf.merging", str(find_converter()))
    # `-m` looks for our modules in the folder that it is called from.
    return Source(
        folder, (*program, str(base), str(adapter), str(report)), files.ROOT, check, trained
    )
