"""Several output types in one run: what is kept after a kill, and the importance matrix."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts import files
from contracts.converter import CONVERTER, find_program
from contracts.errors import DiskFull, OutOfMemory, SentinelTripped, SettingsInvalid, StageFailed
from contracts.files import ROOT
from contracts.gguf_header import (
    F16,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    Header,
    Tensor,
    read_header,
)
from contracts.stage import Event, Result
from contracts.stages import CONVERT, convert_stage
from examples import tiny_qwen3
from images.gguf import convert, programs
from images.gguf.source import Source
from images.weights.shards import SINGLE
from tests.unit import references
from tests.unit.model_stages import chat_row, folder_of, run

TOOLS = Path(os.environ.get("LLAMA_CPP_DIR", ROOT / ".cache" / "llama.cpp"))
WITH_ROWS = convert_stage(one_pass=False, imatrix=True)


def has_programs() -> bool:
    try:
        return bool(find_program("llama-imatrix") and find_program("llama-quantize"))
    except StageFailed:
        return False


needs_programs = pytest.mark.skipif(not has_programs(), reason="LLAMA_CPP_BIN has no programs")
pytestmark = pytest.mark.skipif(
    not (TOOLS / CONVERTER).is_file(), reason="LLAMA_CPP_DIR has no converter"
)


@pytest.fixture(scope="module", autouse=True)
def _tools() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_CPP_DIR", str(TOOLS))
        yield


@pytest.fixture(scope="module")
def known(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the tiny base as the converter writes it."""
    return converted_to(("q8_0", "bf16"), tiny_base, tmp_path_factory.mktemp("known"))


def converted_to(types: tuple[str, ...], base: Path, folder: Path) -> dict[str, Path]:
    """Return a model as the converter writes it, by output type."""
    program = (sys.executable, str(TOOLS / CONVERTER), str(base))
    source = Source(base, program, TOOLS, "bf16", references.empty().trained)
    made = {outtype: folder / f"{outtype}.gguf" for outtype in types}
    for outtype, path in made.items():
        programs.convert(source, outtype, "liga_relevance", path, lambda _share: None)
    return made


class Stopped(Exception):
    """Stands for a kill while a file is written."""


class Converter:
    """Gives the known files again, in the place of a conversion of seconds."""

    def __init__(self, known: dict[str, Path], stop_at: str = "") -> None:
        self.made: list[str] = []
        self._known, self._stop_at = known, stop_at

    def __call__(self, _source: Source, outtype: str, _name: str, out: Path, _tell: Any) -> None:
        if outtype == self._stop_at:
            out.write_bytes(self._known[outtype].read_bytes()[:1000])
            raise Stopped
        shutil.copyfile(self._known[outtype], out)
        self.made.append(outtype)


def converted(
    root: Path, model: Path, converter: Converter, events: list[Event] | None = None, **params: Any
) -> Result | None:
    """Run the stage with this converter; None if it was stopped."""
    (root / "in").mkdir(parents=True, exist_ok=True)
    inputs = {"merged": root / "in" / "merged", "train_split": root / "in" / "train.jsonl"}
    inputs["merged"].unlink(missing_ok=True)
    inputs["merged"].symlink_to(model)
    if not params.get("imatrix"):
        del inputs["train_split"]
    emit = (lambda _event: None) if events is None else events.append
    stage = WITH_ROWS if params.get("imatrix") else CONVERT
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Stopped):
        patch.setattr(programs, "convert", converter)
        return run(root, stage, convert.work, inputs, params, emit)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["nothing", "the model", "the file", "the types"])
def test_a_finished_type_is_kept_after_a_kill_unless_something_has_changed(
    tmp_path: Path, tiny_base: Path, known: dict[str, Path], changed: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_base, model)
    types = ["q8_0", "bf16"]
    assert converted(tmp_path, model, Converter(known, "bf16"), outtype=types) is None
    work = folder_of(tmp_path, CONVERT) / "work"
    kept = work / "out" / "model.gguf"
    assert kept.read_bytes() == known["q8_0"].read_bytes()
    assert not (work / "out" / "variants" / "model-bf16.gguf").exists()
    if changed == "the model":
        (model / "generation_config.json").write_text("{}")
    elif changed == "the file":
        kept.write_bytes(kept.read_bytes()[:-1])
    elif changed == "the types":
        types = ["bf16", "q8_0"]

    again = Converter(known)
    events: list[Event] = []
    result = converted(tmp_path, model, again, events, outtype=types)
    assert again.made == (["bf16"] if changed == "nothing" else types)
    assert result is not None
    out = folder_of(tmp_path, CONVERT) / "out"
    assert files.digest_path(out / "model.gguf") == files.digest_path(known[types[0]])
    for name, path in (("gguf", "model.gguf"), ("gguf_variants", "variants")):
        assert result.outputs[name].digest == files.digest_path(out / path)
    assert result.metrics["outtype"] == types
    assert [path.name for path in work.iterdir()] == ["gguf.json"]


@pytest.mark.slow
def test_a_file_of_another_type_than_asked_for_is_refused(
    tmp_path: Path, tiny_base: Path, known: dict[str, Path]
) -> None:
    swapped = Converter({"q8_0": known["bf16"]})
    with pytest.raises(SentinelTripped, match="file type is 32 instead of 7"):
        converted(tmp_path, tiny_base, swapped)
    assert not list(folder_of(tmp_path, CONVERT).rglob("model.gguf"))


@pytest.mark.slow
def test_a_file_without_a_tensor_of_the_model_is_refused(
    tmp_path: Path, tiny_base: Path, known: dict[str, Path]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_base, model)
    tensors = load_file(model / SINGLE)
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)
    save_file(tensors, model / SINGLE, metadata={"format": "pt"})
    with pytest.raises(SentinelTripped, match="number of tensors is 24 instead of 25"):
        converted(tmp_path, model, Converter(known))


def test_a_layer_that_lacks_what_others_have_is_refused() -> None:
    names = [f"blk.{layer}.attn_{part}.weight" for layer in range(3) for part in ("q", "q_norm")]

    def header(*names: str) -> Header:
        return Header(3, {}, [Tensor(name, (64,), F16, 0) for name in names], {})

    convert._check_tensors(header(*names, "token_embd.weight"), 7)
    with pytest.raises(SentinelTripped, match=r"layer 2 has no attn_q_norm\.weight"):
        convert._check_tensors(header(*names[:-1]), 5)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["bf16", "q8_0"])
def test_a_type_whose_weights_are_not_those_of_the_first_is_refused_and_made_anew(
    tmp_path: Path, tiny_base: Path, known: dict[str, Path], damaged: str
) -> None:
    """Headers, sizes and types are right; of the last matrix every seventh byte has some bits
    turned over.
    """
    content = bytearray(known[damaged].read_bytes())
    last = slice(len(content) - 7_000, len(content) - 1_000, 7)
    content[last] = bytes(byte ^ 0x15 for byte in content[last])
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(content)
    types = ["q8_0", "bf16"]
    with pytest.raises(SentinelTripped, match="sentinel variant_weights"):
        converted(tmp_path, tiny_base, Converter({**known, damaged: broken}), outtype=types)
    assert not list(folder_of(tmp_path, CONVERT).rglob("*.gguf"))
    again = Converter(known)
    assert converted(tmp_path, tiny_base, again, outtype=types)
    assert again.made == types


def test_a_converter_that_fails_on_a_full_disk_is_told_apart(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of the disk's free space: filling a disk needs one of its own (tests/faults)."""

    def fails(*_given: Any) -> None:
        raise StageFailed("llama.cpp's converter failed with exit code 1")

    converter: Any = fails
    with pytest.raises(StageFailed):
        converted(tmp_path, tiny_base, converter)
    full = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
    with pytest.raises(DiskFull) as named:
        converted(tmp_path, tiny_base, converter)
    assert "converter failed" in named.value.why


def test_a_missing_program_is_named_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_BIN", str(tmp_path))
    with pytest.raises(StageFailed, match="llama-quantize is missing") as refused:
        find_program("llama-quantize")
    assert str(tmp_path) in refused.value.why
    assert "LLAMA_CPP_BIN" in refused.value.todo
    (tmp_path / "llama-quantize").write_text("#!/bin/sh\n")
    (tmp_path / "llama-quantize").chmod(0o755)
    assert find_program("llama-quantize") == str(tmp_path / "llama-quantize")


# --- the importance matrix -----------------------------------------------------------------------
@pytest.mark.slow
def test_a_matrix_that_cannot_be_read_is_named(
    tmp_path: Path, tiny_base: Path, known: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of llama-imatrix, which says that all is well and leaves nothing in its file."""
    (tmp_path / "in").mkdir()
    files.write_jsonl(tmp_path / "in" / "train.jsonl", [chat_row("r", "Wie?", "Ja.")])
    program = tmp_path / "llama-imatrix"
    program.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n: > "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("LLAMA_CPP_BIN", str(tmp_path))
    with pytest.raises(SentinelTripped, match="sentinel gguf: the file cannot be read back"):
        converted(tmp_path, tiny_base, Converter(known), outtype="q4_k_m", imatrix=True)


@pytest.mark.parametrize(
    ("script", "error"),
    [("exit 1", StageFailed), ("kill -9 $$", OutOfMemory), (None, StageFailed)],
)
def test_a_matrix_that_fails_leaves_no_text_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, error: type[Exception]
) -> None:
    files.write_jsonl(tmp_path / "train.jsonl", [chat_row("r", "Wie?", "Ja.")])
    (work := tmp_path / "work").mkdir()
    if script:
        (tmp_path / "llama-imatrix").write_text(f"#!/bin/sh\ntest -s imatrix.txt && {script}\n")
        (tmp_path / "llama-imatrix").chmod(0o755)
    monkeypatch.setenv("LLAMA_CPP_BIN", str(tmp_path))
    with pytest.raises(error, match="llama-imatrix"):
        programs.measure(
            tmp_path / "exact.gguf",
            tmp_path / "train.jsonl",
            "liga_relevance",
            2,
            work / "imatrix.gguf.partial",
            lambda _share: None,
        )
    assert list(work.iterdir()) == []


@pytest.mark.slow
@needs_programs
def test_too_few_tokens_for_a_matrix_are_named(
    tmp_path: Path, tiny_base: Path, known: dict[str, Path]
) -> None:
    (tmp_path / "in").mkdir()
    files.write_jsonl(tmp_path / "in" / "train.jsonl", [chat_row("r", "Wie?", "Ja.")])
    with pytest.raises(SettingsInvalid, match=r"gguf\.imatrix") as named:
        converted(tmp_path, tiny_base, Converter(known), outtype="q4_k_m", imatrix=True)
    assert "tokenizes to only" in named.value.why
    assert "gguf.imatrix=false" in named.value.todo


@pytest.mark.slow
@needs_programs
def test_an_importance_matrix_comes_from_the_training_rows_and_changes_the_k_quant(
    tmp_path: Path,
    tiny_base: Path,
    known: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [chat_row(f"r{i}", f"Frage {i}: " + "wie, wo, was? " * 20, "Ja.") for i in range(20)]
    plain = tmp_path / "plain"
    assert converted(plain, tiny_base, Converter(known), outtype="q4_k_m")
    made = []
    for threads in (1, 2):
        root = tmp_path / str(threads)
        (root / "in").mkdir(parents=True)
        # in another order, which changes nothing
        files.write_jsonl(root / "in" / "train.jsonl", rows[:: 1 if threads == 1 else -1])
        monkeypatch.setattr(programs, "_threads", lambda count=threads: count)
        events: list[Event] = []
        given = {"outtype": "q4_k_m", "imatrix": True, "imatrix_chunks": 2}
        assert converted(root, tiny_base, Converter(known), events, **given)
        assert events[-1].done == 100
        assert [event.done for event in events] == sorted(event.done for event in events)
        made.append(folder_of(root, CONVERT) / "out")
    one, two = made
    for name in ("model.gguf", "variants/imatrix.gguf"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    without = folder_of(plain, CONVERT) / "out" / "model.gguf"
    assert (one / "model.gguf").read_bytes() != without.read_bytes()
    values = read_header(one / "model.gguf").values
    assert values["quantize.imatrix.file"] == "imatrix.gguf"
    assert values["quantize.imatrix.chunks_count"] == 2
    assert [path.name for path in (one.parent / "work").iterdir()] == ["gguf.json"]


# --- blocks of 256, which a model of Qwen3's own width has ---------------------------------------
K_TYPES = {"q4_k_m": (Q4_K, Q5_0), "q5_k_m": (Q5_K, Q5_1), "q6_k": (Q6_K, Q8_0)}
"""By output type, what rows of whole blocks get, and what rows of another length get."""


@pytest.mark.parametrize("outtype", K_TYPES)
def test_a_file_that_holds_mostly_other_types_is_refused(outtype: str) -> None:
    def header(*types: int) -> Header:
        found = [Tensor(f"blk.{i}.ffn_up.weight", (512, 64), t, 0) for i, t in enumerate(types)]
        return Header(3, {}, [*found, Tensor("token_embd.weight", (512, 64), Q6_K, 0)], {})

    blocks, other = K_TYPES[outtype]
    convert._check_types(header(blocks, blocks, F16), outtype)
    for types in ((blocks, F16, F16, F16), (other, other, other)):
        with pytest.raises(SentinelTripped, match=f"matrices are of type {outtype}"):
            convert._check_types(header(*types), outtype)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base whose rows are blocks of 256 but for those of the attention's output, 128."""
    base = tmp_path_factory.mktemp("wide") / "base"
    tiny_qwen3.make(base, hidden=256, layers=1)
    return base


@pytest.mark.slow
@needs_programs
def test_a_k_quant_has_the_blocks_that_it_is_named_after(tmp_path: Path, wide: Path) -> None:
    exact = Converter(converted_to(("bf16",), wide, tmp_path))
    outs = {}
    for imatrix in (False, True):
        root = tmp_path / ("weighed" if imatrix else "plain")
        (root / "in").mkdir(parents=True)
        rows = [chat_row(f"r{i}", f"Frage {i}: " + "wie, wo, was? " * 20, "Ja.") for i in range(20)]
        files.write_jsonl(root / "in" / "train.jsonl", rows)
        more: dict[str, Any] = {"imatrix": True, "imatrix_chunks": 2} if imatrix else {}
        assert converted(root, wide, exact, outtype=list(K_TYPES), **more)
        outs[imatrix] = folder_of(root, WITH_ROWS if imatrix else CONVERT) / "out"
    for number, (outtype, (blocks, other)) in enumerate(K_TYPES.items()):
        name = f"variants/model-{outtype}.gguf" if number else "model.gguf"
        for out in outs.values():
            header = read_header(out / name)
            types = {t.name: t.type for t in header.tensors if len(t.shape) == 2}
            whole = ("attn_q", "attn_k", "ffn_gate", "ffn_up")
            assert {types[f"blk.0.{each}.weight"] for each in whole} == {blocks}
            for each in ("attn_v", "ffn_down"):  # what the M of a mixture makes wider
                assert types[f"blk.0.{each}.weight"] in {blocks, Q6_K}
            assert types["blk.0.attn_output.weight"] == other
            assert types["token_embd.weight"] == Q6_K  # it is the head too
        plain, weighed = ((out / name).read_bytes() for out in outs.values())
        layer = 100_000  # bytes at the end, which lie in the layer: the same blocks, weighed
        assert 0 < len(weighed) - len(plain) < 1000, "it says what the matrix was made of"
        assert plain[-layer:] != weighed[-layer:]
