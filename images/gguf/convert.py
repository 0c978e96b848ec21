"""Stage CONVERT: the trained model in the format of the serving engine, by llama.cpp's own tools.

Its converter writes q8_0, f16 and bf16 itself, from a merged model or, in one pass, from base and
adapter; llama-quantize makes the k-quants from a file in the merged model's precision. Each file is
read back, published by rename, and kept if the stage is killed later. With deploy.form=adapter the
adapter alone is converted (adapter.py).
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from contracts.entrypoint import StageContext
from contracts.errors import SentinelTripped
from contracts.gguf_header import (
    FILE_TYPES,
    Header,
    matrix_type,
    read_header,
)
from contracts.params import (
    GgufMetrics,
    GgufParams,
)
from contracts.params.model import K_QUANTS
from contracts.stages import (
    GGUF,
    GGUF_VARIANTS,
    LORA_ADAPTER,
    TRAIN_SPLIT,
)
from images.gguf import adapter, programs
from images.gguf.finished import Finished
from images.gguf.programs import Parts, Tell
from images.gguf.resemblance import check_resemblance
from images.gguf.source import Source, source_of
from images.gguf.trained import (
    CONVERT_ANEW,
    VOCABULARY,
    check_metadata,
    check_vocabulary,
    read_back,
)
from images.weights.shards import by_name, is_recomputed, model_shards

_PRE_TOKENIZER = {"qwen3": "qwen2"}
"""By architecture, the name under which llama.cpp knows the tokenizer's word splitting. Each of
these has a tensor in the GGUF for each in its files; others may be split or joined."""


@dataclass(frozen=True)
class _Product:
    """A file to be made, and how: `make` writes it under another name, `check` looks at that."""

    target: Path
    make: Callable[[Path, Tell], None]
    check: Callable[[Path], object]


def work(context: StageContext[GgufParams]) -> GgufMetrics:
    """Make every file that an attempt before has not finished, and look at it."""
    finished = Finished(context.work / "gguf.json", _made_of(context))
    _remove_unfinished(context.work, finished)
    context.output(GGUF_VARIANTS).mkdir(exist_ok=True)
    products = list(_products_of(context, finished))
    parts = Parts(context, len(products) + len(_others(context)))
    for product in products:
        if not finished.digest(product.target):
            written = context.work / f"{product.target.name}.partial"
            product.make(written, parts.tell)
            product.check(written)
            finished.publish(written, product.target)
        parts.finish_one()
    _compare(context, parts)
    for made in (context.output(GGUF), *context.output(GGUF_VARIANTS).iterdir()):
        context.digested(made, finished.digest(made))
    _remove_scaffold(context.work)
    header = read_header(context.output(GGUF))
    return GgufMetrics(
        bytes=context.output(GGUF).stat().st_size,
        tensors=len(header.tensors),
        architecture=str(header.values["general.architecture"]),
        outtype=() if context.params.form == "adapter" else context.params.outtype,
        way=_way(context),
    )


def _way(context: StageContext[GgufParams]) -> Literal["one_pass", "two_step", "adapter"]:
    if context.params.form == "adapter":
        return "adapter"
    return "one_pass" if LORA_ADAPTER.name in context.job.inputs else "two_step"


def _products_of(context: StageContext[GgufParams], finished: Finished) -> Iterator[_Product]:
    if context.params.form == "merged":
        yield from _products(context, source_of(context), finished)
        return
    make, check = partial(adapter.convert, context), partial(adapter.check, context)
    yield _Product(context.output(GGUF), make, check)


def _others(context: StageContext[GgufParams]) -> list[Path]:
    """Return the files of all output types but the first."""
    if context.params.form == "adapter":
        return []
    return [_variant(context, each) for each in context.params.outtype[1:]]


def _variant(context: StageContext[GgufParams], outtype: str) -> Path:
    return context.output(GGUF_VARIANTS) / f"model-{outtype}.gguf"


def _compare(context: StageContext[GgufParams], parts: Parts) -> None:
    """Hold the weights of every output type against those of the first, which evaluate looks at.

    Which of two is the damaged one they do not tell, so neither is kept, nor what k-quants are
    made from.
    """
    first, exact = context.output(GGUF), context.work / "exact.gguf"
    for other in _others(context):
        try:
            check_resemblance(first, other, parts.tell)
        except SentinelTripped:
            for path in (first, other, exact):
                path.unlink(missing_ok=True)
            raise
        parts.finish_one()


def _products(
    context: StageContext[GgufParams], source: Source, finished: Finished
) -> Iterator[_Product]:
    """Yield the files of these params in the order in which they need each other."""

    def product(target: Path, outtype: str, make: Callable[[Path, Tell], None]) -> _Product:
        return _Product(target, make, partial(_checked_header, source, outtype))

    def converted(target: Path, outtype: str) -> _Product:
        make = partial(programs.convert, source, outtype, context.job.task)
        return product(target, outtype, make)

    params = context.params
    first, variants = params.outtype[0], context.output(GGUF_VARIANTS)
    targets: dict[str, Path] = {each: _variant(context, each) for each in params.outtype}
    targets[first] = context.output(GGUF)
    for outtype, target in targets.items():
        if outtype not in K_QUANTS:
            yield converted(target, outtype)
    k_quants = {each: target for each, target in targets.items() if each in K_QUANTS}
    if all(finished.digest(target) for target in k_quants.values()):
        return
    exact = targets.get(source.exact_type, context.work / "exact.gguf")
    if exact not in targets.values():
        yield converted(exact, source.exact_type)
    imatrix = variants / "imatrix.gguf" if params.imatrix else None
    if imatrix:
        rows = context.input(TRAIN_SPLIT)
        make = partial(programs.measure, exact, rows, context.job.task, params.imatrix_chunks)
        yield _Product(imatrix, make, read_back)
    for outtype, target in k_quants.items():
        yield product(target, outtype, partial(programs.quantize, exact, outtype, imatrix))


def _made_of(context: StageContext[GgufParams]) -> dict[str, Any]:
    return {
        "inputs": {name: given.digest for name, given in context.job.inputs.items()},
        "code": context.job.code_digest,
        "params": context.params.identity(),
    }


def _remove_unfinished(work: Path, finished: Finished) -> None:
    """Remove what an attempt that was killed has not finished, or has made of something else."""
    for path in [*work.glob("*.partial"), *(work / "out").rglob("*.gguf")]:
        if not finished.digest(path):
            path.unlink()


def _remove_scaffold(work: Path) -> None:
    """Remove what only the way to the files needed."""
    (work / "exact.gguf").unlink(missing_ok=True)
    shutil.rmtree(work / "merged", ignore_errors=True)


def _checked_header(source: Source, outtype: str, path: Path) -> Header:
    """Read the file back; raise `SentinelTripped` where it is not the merged model, or is not
    served as it was trained.
    """
    header = read_back(path, VOCABULARY)
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    architecture = config["model_type"]
    _same("architecture", header.values.get("general.architecture"), architecture)
    if pre := _PRE_TOKENIZER.get(architecture):
        _same("pre-tokenizer", header.values.get("tokenizer.ggml.pre"), pre)
    eos = config.get("eos_token_id")
    known = eos if isinstance(eos, list) else [eos]
    found = header.values.get("tokenizer.ggml.eos_token_id")
    _same("end-of-turn token", found, found if found in known else known)
    layers = header.values.get(f"{architecture}.block_count")
    _same("number of layers", layers, config["num_hidden_layers"])
    _same("file type", header.values.get("general.file_type"), FILE_TYPES[outtype])
    if architecture in _PRE_TOKENIZER:
        names = by_name(model_shards(source.folder))
        _check_tensors(header, sum(not is_recomputed(name) for name in names))
    _check_types(header, outtype)
    check_metadata(header, source.trained, source.row)
    check_vocabulary(header, source.folder, source.trained)
    return header


def _check_tensors(header: Header, count: int) -> None:
    """Raise `SentinelTripped` unless there are `count` tensors, and the same in each layer."""
    _same("number of tensors", len(header.tensors), count)
    layers = defaultdict(set)
    for _, layer, part in (t.name.split(".", 2) for t in header.tensors if t.name[:4] == "blk."):
        layers[layer].add(part)
    every = set().union(*layers.values())
    if lacking := {layer: every - parts for layer, parts in layers.items() if every - parts}:
        layer, parts = min(lacking.items())
        raise SentinelTripped(
            f"sentinel gguf: layer {layer} has no {min(parts)}",
            why="other layers have it",
            todo=CONVERT_ANEW,
        )


def _check_types(header: Header, outtype: str) -> None:
    """Raise `SentinelTripped` unless most matrices of the layers are in the type asked for.

    Not all: the M of a mixture is that some, fewer than half, are in a wider one.
    """
    matrices = [t for t in header.tensors if t.name.startswith("blk.") and len(t.shape) == 2]
    as_asked = [t for t in matrices if t.type == matrix_type(outtype, t.shape[0])]
    if 2 * len(as_asked) <= len(matrices):
        raise SentinelTripped(
            f"sentinel gguf: {len(as_asked)} of {len(matrices)} matrices are of type {outtype}",
            why="more than half have to be, or the file is not what its name says",
            todo=CONVERT_ANEW,
        )


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise SentinelTripped(
            f"sentinel gguf: the {what} is {found!r} instead of {expected!r}",
            why="the file is not the model that was trained, as it was asked for",
            todo=CONVERT_ANEW,
        )
