"""Each way in which a GGUF can be served as another model is planted, and is found."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contracts import reference
from contracts.errors import SentinelTripped
from contracts.gguf_header import Q8_0, read_header
from contracts.reference import Position, ProbeRow
from contracts.stages import EVALUATE
from images.gguf.convert import _checked_header
from images.gguf.source import Source
from images.labeler.drift import _comparable, check_candidate
from serving.engine import TokenChance
from serving.llamacpp import LlamaCpp
from tasks import load_task
from tests.tiny_gguf import tiny_gguf
from tests.unit.labeler_stage import StageRun
from tests.unit.trained_model import converted, merged, merged_model, train_briefly

__all__ = ["tiny_gguf"]

TASK = load_task("liga_relevance")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a trained model, merged and as a file, and its record."""
    root = tmp_path_factory.mktemp("made")
    trained = train_briefly(root / "train", tiny_base)
    merged(root / "merge", trained)
    model = merged_model(root / "merge")
    gguf = converted(root / "gguf", model, trained["reference"])
    return {**trained, "merged": model, "gguf": gguf}


def judged(folder: Path, made: dict[str, Path], gguf: Path, task: Any = TASK) -> Any:
    """Return the drift of a file in llama.cpp, as the evaluate stage measures it."""
    stage = StageRun(EVALUATE, folder)
    (folder / "reference.json").unlink()
    (folder / "reference.json").symlink_to(made["reference"])
    (folder / "model.gguf").symlink_to(gguf)
    engine = LlamaCpp(folder / "serving")
    engine.create("candidate", gguf, TASK.modelfile())

    def work(context: Any) -> Any:
        return check_candidate(context, engine, "candidate", task)

    try:
        return stage.run(work)
    finally:
        engine.close()


def test_the_right_file_does_not_drift(made: dict[str, Path], tmp_path: Path) -> None:
    found = judged(tmp_path, made, made["gguf"])
    assert found.divergence < 1e-3
    assert found.agreement == 1
    assert found.positions == reference.read(made["reference"]).positions()


def _coarse(made: dict[str, Path], out: Path) -> Path:
    """Write the file with weights of three bits under the label q8_0.

    In a model this small four bits differ by about the limit (0.0047 to 0.0060 nats, as the machine
    trains it), three bits by six times the limit (0.029).
    """
    data = bytearray(made["gguf"].read_bytes())
    tensors = read_header(made["gguf"]).tensors
    last = max(tensors, key=lambda tensor: tensor.offset)
    assert last.type != Q8_0
    start = len(data) - last.offset - -(-prod(last.shape) * 4 // 32) * 32
    for tensor in tensors:
        if tensor.type == Q8_0:
            blocks = prod(tensor.shape) // 32
            raw = np.frombuffer(data, np.uint8, blocks * 34, start + tensor.offset)
            weights = raw.reshape(blocks, 34)[:, 2:].view(np.int8)
            weights[:] = np.clip(np.round(weights / 32) * 32, -127, 127)
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("planted", ["coarse", "base"])
def test_another_model_under_the_same_label_is_found(
    made: dict[str, Path], tmp_path: Path, tiny_gguf: Path, planted: str
) -> None:
    file = _coarse(made, tmp_path / "coarse.gguf") if planted == "coarse" else tiny_gguf
    with pytest.raises(SentinelTripped, match="sentinel gguf_drift") as caught:
        judged(tmp_path / "ws", made, file)
    assert "KL divergence" in caught.value.why


def test_an_engine_that_splits_words_otherwise_is_found(
    made: dict[str, Path], tmp_path: Path
) -> None:
    planted = tmp_path / "planted.gguf"
    planted.write_bytes(_put_text(made["gguf"].read_bytes(), "tokenizer.ggml.pre", b"gpt-2"))
    with pytest.raises(SentinelTripped, match="sentinel served_tokenizer: the engine makes"):
        judged(tmp_path / "ws", made, planted)


@pytest.mark.parametrize(
    ("task", "sentinel"),
    [
        (replace(TASK, chat=replace(TASK.chat, stop=("###",))), "served_stop"),
        (replace(TASK, serving=replace(TASK.serving, num_ctx=50_000)), "served_context"),
    ],
)
def test_another_end_or_context_is_found(
    made: dict[str, Path], tmp_path: Path, task: Any, sentinel: str
) -> None:
    with pytest.raises(SentinelTripped, match=f"sentinel {sentinel}"):
        judged(tmp_path, made, made["gguf"], task)


def test_texts_that_are_not_one_token_are_left_out() -> None:
    position = Position(before=1, answer="", tokens=(1, 2, 3, 4), logprobs=(-0.1, -3.0, -4.0, -5.0))
    texts = {1: "a", 2: "", 3: "b", 4: "b"}
    told = (
        TokenChance("a", -0.2, None),
        TokenChance("", -2.0, None),
        TokenChance("c", -3.0, None),
        TokenChance("c", -4.0, None),
        TokenChance("d", -5.0, None),
    )
    assert _comparable(position, told, texts) == ({"a": -0.1}, {"a": -0.2, "d": -5.0})
    numbered = (TokenChance("", -0.2, 2), TokenChance("!", -3.0, 0))
    assert _comparable(position, numbered, texts) == (position.known(), {2: -0.2, 0: -3.0})


# --- what the file says of itself -----------------------------------------------------------------
def _value_at(data: bytes, key: str) -> int:
    """Return where the value of a key begins, behind its type."""
    return data.index(key.encode()) + len(key) + 4


def _put_number(data: bytes, key: str, value: int) -> bytes:
    at = _value_at(data, key)
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


def _put_text(data: bytes, key: str, text: bytes) -> bytes:
    """Write over the beginning of a key's text, or of the first of its texts that has this size."""
    at = _value_at(data, key) + 8
    return data[:at] + text + data[at + len(text) :]


def _replaced(data: bytes, key: str, old: bytes, new: bytes) -> bytes:
    at = data.index(len(old).to_bytes(8, "little") + old, _value_at(data, key)) + 8
    return data[:at] + new + data[at + len(new) :]


def _untyped(data: bytes) -> bytes:
    """Make <|im_end|> an ordinary token."""
    at = _value_at(data, "tokenizer.ggml.token_type") + 12 + 4 * 151_645
    return data[:at] + struct.pack("<i", 1) + data[at + 4 :]


def _markup(data: bytes) -> bytes:
    """Make tokens 1,000 to 90,000 markup."""
    at = _value_at(data, "tokenizer.ggml.token_type") + 12 + 4 * 1000
    control = struct.pack("<i", 3) * 89_000
    return data[:at] + control + data[at + len(control) :]


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (lambda d: _put_number(d, "qwen3.context_length", 4096), "gguf_metadata: .*context_length"),
        (lambda d: _put_number(d, "tokenizer.ggml.eos_token_id", 151_643), "end-of-turn|eos_token"),
        (lambda d: _put_text(d, "tokenizer.chat_template", b"{{ messages"), "chat template"),
        (lambda d: _put_text(d, "tokenizer.ggml.pre", b"gpt-2"), "pre-tokenizer"),
        (lambda d: _put_number(d, "general.file_type", 1), "file type"),
        (
            lambda d: _replaced(d, "tokenizer.ggml.tokens", b"<|im_end|>", b"<|im_ENd|>"),
            "token 151",
        ),
        (lambda d: _replaced(d, "tokenizer.ggml.merges", b"i n", b"i m"), "merges are not"),
        (_untyped, "is an ordinary token"),
        (_markup, "89000 ordinary tokens are markup"),
    ],
)
def test_metadata_that_was_not_trained_is_found(
    made: dict[str, Path], tmp_path: Path, plant: Callable[[bytes], bytes], says: str
) -> None:
    trained = reference.read(made["reference"]).trained
    source = Source(made["merged"], (), tmp_path, "bf16", trained)
    _checked_header(source, "q8_0", made["gguf"])
    planted = tmp_path / "planted.gguf"
    planted.write_bytes(plant(made["gguf"].read_bytes()))
    with pytest.raises(SentinelTripped, match=says):
        _checked_header(source, "q8_0", planted)


def test_a_token_in_front_of_every_prompt_is_found() -> None:
    from images.gguf.trained import check_metadata
    from tests.unit.references import empty

    values = {
        "general.architecture": "qwen3",
        "qwen3.context_length": 40_960,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 3,
    }
    arrays = {"tokenizer.ggml.tokens": ["a", "b", "c", "<s>"]}
    header: Any = SimpleNamespace(values=values, arrays=arrays)
    row = ProbeRow(id="7", prompt="abc", prompt_tokens=3, tokens=(0, 1, 2), positions=())
    with pytest.raises(SentinelTripped, match="in front of every prompt") as caught:
        check_metadata(header, empty().trained, row)
    first = (
        "row 7 differs from token 0, character 0: trained [0, 1, 2] ('abc'), served [3, 0, 1, 2]"
    )
    assert f"{first} ('<s>abc')" in caught.value.why
