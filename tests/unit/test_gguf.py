"""The conversion: llama.cpp's own, its failures told, its result read back and served."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.converter import find_converter
from contracts.errors import OutOfMemory, SentinelTripped, StageFailed
from contracts.files import ROOT
from contracts.gguf_header import GgufInvalid, read_header
from contracts.stage import Event
from contracts.stages import (
    CONVERT,
    MERGE,
)
from images.gguf import convert, fetch_converter
from images.merger import merge
from tests.tiny_gguf import complete
from tests.unit.lora_models import make_adapter
from tests.unit.model_stages import folder_of, run

CONVERTER = Path(os.environ.get("LLAMA_CPP_DIR", ROOT / ".cache" / "llama.cpp"))


def converted(root: Path, model: Path, events: list[Event]) -> Path:
    (root / "in").mkdir(parents=True)
    (root / "in" / "merged").symlink_to(model)
    run(root, CONVERT, convert.work, {"merged": root / "in" / "merged"}, {}, events.append)
    return folder_of(root, CONVERT) / "out" / "model.gguf"


def script(folder: Path, text: str) -> None:
    """Put a script in the converter's place."""
    folder.mkdir(exist_ok=True)
    (folder / "convert_hf_to_gguf.py").write_text(text)


@pytest.mark.slow
@pytest.mark.skipif(
    not (CONVERTER / "convert_hf_to_gguf.py").is_file(), reason="LLAMA_CPP_DIR has no converter"
)
def test_the_file_reads_back_as_qwen3_and_is_served(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(CONVERTER))
    events: list[Event] = []
    gguf = converted(tmp_path / "ws", tiny_base, events)

    assert events[-1].done == events[-1].total == 100
    header = read_header(gguf)
    assert header.values["general.architecture"] == "qwen3"
    assert header.values["general.name"] == "liga_relevance"
    assert header.values["tokenizer.ggml.pre"] == "qwen2"
    assert header.values["tokenizer.ggml.eos_token_id"] == 151_645
    assert header.values["tokenizer.ggml.tokens"] == 151_936
    assert len(header.tensors) == 2 + 2 * 11  # embedding, last norm, eleven a layer

    beginning = tmp_path / "half.gguf"
    beginning.write_bytes(gguf.read_bytes()[: gguf.stat().st_size // 2])
    with pytest.raises(GgufInvalid):
        read_header(beginning)

    assert complete(gguf, "Guten Tag")


@pytest.mark.slow
@pytest.mark.skipif(
    not (CONVERTER / "convert_hf_to_gguf.py").is_file(), reason="LLAMA_CPP_DIR has no converter"
)
def test_the_table_of_a_rotary_embedding_is_dropped_as_the_converter_does(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(CONVERTER))
    shutil.copytree(tiny_base, tmp_path / "old")
    weights = load_file(tiny_base / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    save_file(weights, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})
    header = read_header(converted(tmp_path / "ws", tmp_path / "old", []))
    assert len(header.tensors) == len(weights) - 1


@pytest.mark.skipif(
    not (CONVERTER / "convert_hf_to_gguf.py").is_file(), reason="LLAMA_CPP_DIR has no converter"
)
def test_a_head_that_a_merge_has_untied_is_in_the_file(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(CONVERTER))
    adapter = make_adapter(tmp_path / "adapter", tiny_base, modules_to_save=["lm_head"])
    (tmp_path / "merge" / "in").mkdir(parents=True)
    inputs = {name: tmp_path / "merge" / "in" / name for name in ("base", "lora_adapter")}
    inputs["base"].symlink_to(tiny_base)
    inputs["lora_adapter"].symlink_to(adapter)
    run(tmp_path / "merge", MERGE, merge.work, inputs, {})
    model = folder_of(tmp_path / "merge", MERGE) / "out" / "merged"
    header = read_header(converted(tmp_path / "ws", model, []))
    assert {"output.weight", "token_embd.weight"} <= {each.name for each in header.tensors}


def test_a_missing_converter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    with pytest.raises(StageFailed, match="converter is missing") as caught:
        find_converter()
    assert "fetch_converter" in caught.value.todo


def test_a_failing_converter_shows_its_last_lines(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "tools", "import sys\nprint('step one')\nsys.exit('no such architecture')\n")
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path / "tools"))
    with pytest.raises(StageFailed, match="exit code 1") as caught:
        converted(tmp_path / "ws", tiny_base, [])
    assert caught.value.why == "step one\nno such architecture"


def test_a_killed_converter_is_out_of_memory(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "tools", "import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path / "tools"))
    with pytest.raises(OutOfMemory):
        converted(tmp_path / "ws", tiny_base, [])


def test_progress_is_read_from_the_bar_and_garbage_is_found(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "import os, sys\n"
        "assert 'PYTHONPATH' not in os.environ\n"
        "open(sys.argv[sys.argv.index('--outfile') + 1], 'w').write('garbage')\n"
        "for done in (0, 50, 100):\n"
        "    sys.stderr.write(f'\\rWriting: {done:3}%|###| {done}M/100M')\n"
    )
    script(tmp_path / "tools", text)
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path / "tools"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    events: list[Event] = []
    with pytest.raises(SentinelTripped, match="cannot be read back"):
        converted(tmp_path / "ws", tiny_base, events)
    assert [event.done for event in events] == [0, 50, 100]


def test_a_complete_converter_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".complete").write_text(fetch_converter.SOURCE + "\n")
    for name in fetch_converter.WANTED:
        (tmp_path / name).touch()
    assert fetch_converter.fetch(tmp_path) is False
    (tmp_path / ".complete").write_text("another\n")
    with pytest.raises(FileExistsError):
        fetch_converter.fetch(tmp_path)
