"""What is learnt: the answer and its end, nothing else, and never a part of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.errors import ItemsInvalid, LabelsMissing, RowTooLong, SentinelTripped
from images.trainer.order import steps_for, training_order
from images.trainer.rows import IGNORED, encode, read_split
from tasks.chat import QWEN3
from tests.unit.model_stages import chat_row, rows


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


def test_labels_are_the_answer_and_its_end(tokenizer: Any) -> None:
    row = encode(chat_row("a", "Wer?", "Die Liga."), tokenizer, QWEN3)
    learnt = [label for label in row.labels if label != IGNORED]
    assert tokenizer.decode(learnt) == "Die Liga.<|im_end|>"
    prompt = tokenizer.decode(row.ids[: -len(learnt)])
    assert prompt.endswith("Wer?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert row.labels[: -len(learnt)] == [IGNORED] * (len(row.ids) - len(learnt))


def test_composed_and_decomposed_letters_are_the_same(tokenizer: Any) -> None:
    composed, decomposed = (
        encode(chat_row("a", question, answer), tokenizer, QWEN3)
        for question, answer in (("Gr\u00fcn?", "\u00c4pfel"), ("Gru\u0308n?", "A\u0308pfel"))
    )
    assert composed == decomposed


def test_a_template_that_differs_from_the_task_is_refused(tokenizer: Any) -> None:
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = template.replace("assistant\\n'", "assistant '")
        with pytest.raises(SentinelTripped, match=r"chat_template.*row a") as caught:
            encode(chat_row("a", "Wer?", "Die Liga."), tokenizer, QWEN3)
    finally:
        tokenizer.chat_template = template
    assert "at character 107" in caught.value.why


def test_a_row_without_an_answer_is_refused(tokenizer: Any) -> None:
    row = chat_row("a", "Wer?", "Die Liga.")
    row["messages"].pop()
    with pytest.raises(ItemsInvalid, match="'a'"):
        encode(row, tokenizer, QWEN3)


@pytest.mark.parametrize("markup", ["<|im_end|>", "<|endoftext|>", "<think>"])
def test_markup_within_an_answer_is_refused(tokenizer: Any, markup: str) -> None:
    with pytest.raises(SentinelTripped, match=f"end_of_turn: .*row odd holds {re.escape(markup)}"):
        encode(chat_row("odd", f"Was ist {markup}?", f"Ja {markup} nein"), tokenizer, QWEN3)
    assert encode(chat_row("even", f"Was ist {markup}?", "Ja."), tokenizer, QWEN3)


def read(path: Path, tokenizer: Any, **more: Any) -> Any:
    return read_split(path, tokenizer, QWEN3, **{"max_length": 60, "too_long": "error", **more})


def test_long_rows_are_named_not_cut(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    long = chat_row("long-one", "wort " * 100, "Ja.")
    files.write_jsonl(path, [*rows(3), long])
    with pytest.raises(RowTooLong, match=r"1 of 4 rows of train\.jsonl exceed 60") as caught:
        read(path, tokenizer)
    assert caught.value.why.startswith("long-one (")

    split = read(path, tokenizer, too_long="drop")
    assert [row.id for row in split.rows] == ["row-0", "row-1", "row-2"]
    assert split.dropped == ["long-one"]


def test_nothing_left_is_an_error(tokenizer: Any, tmp_path: Path) -> None:
    files.write_jsonl(tmp_path / "train.jsonl", [])
    with pytest.raises(LabelsMissing):
        read(tmp_path / "train.jsonl", tokenizer)


def test_the_order_shows_every_row_once_an_epoch() -> None:
    lengths = [10 * (i % 7) for i in range(23)]
    order = training_order(lengths, steps=12, batch_size=4, micro_batch_size=2, seed=1)
    assert len(order) == 48
    assert set(order[:24]) == set(range(23))
    again = training_order(lengths, steps=12, batch_size=4, micro_batch_size=2, seed=1)
    assert order == again
    other = training_order(lengths, steps=12, batch_size=4, micro_batch_size=2, seed=2)
    assert order != other


def test_micro_batches_hold_rows_of_like_length_and_steps_do_not() -> None:
    lengths = list(range(64))
    order = training_order(lengths, steps=16, batch_size=4, micro_batch_size=2, seed=1)
    micro = [abs(order[i] - order[i + 1]) for i in range(0, 62, 2)]
    steps = [max(order[i : i + 4]) - min(order[i : i + 4]) for i in range(0, 60, 4)]
    assert sum(gap <= 1 for gap in micro) > 25
    assert sum(gap > 3 for gap in steps) > 10


def test_packed_micro_batches_of_a_step_are_of_like_size() -> None:
    lengths = [90, 80, 20, 10]
    order = training_order(lengths, steps=5, batch_size=4, micro_batch_size=2, seed=1, packed=True)
    for at in range(0, 20, 2):
        assert sum(lengths[row] for row in order[at : at + 2]) == 100

    lengths = list(range(64))
    more: Any = {"steps": 16, "batch_size": 8, "seed": 1}
    dealt = training_order(lengths, micro_batch_size=2, packed=True, **more)
    drawn = training_order(lengths, micro_batch_size=8, **more)
    for at in range(0, 128, 8):
        assert sorted(dealt[at : at + 8]) == sorted(drawn[at : at + 8])


def test_steps_come_from_epochs_unless_given() -> None:
    assert steps_for(237, epochs=3, max_steps=-1, batch_size=8) == 89
    assert steps_for(237, epochs=3, max_steps=5, batch_size=8) == 5
