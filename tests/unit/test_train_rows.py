"""What is learnt: the answer and its end, nothing else, and never a part of it."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.errors import ItemsInvalid, LabelsMissing, RowTooLong, SentinelTripped
from contracts.fit import divisors
from images.trainer.order import micro_batches, steps_for, training_order
from images.trainer.rows import IGNORED, Row, encode, read_split
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


@pytest.mark.parametrize("templates", [None, {"tool_use": "{{ messages }}"}])
def test_a_base_without_a_default_template_is_refused(tokenizer: Any, templates: Any) -> None:
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = templates
        with pytest.raises(SentinelTripped, match=r"chat_template: .* no chat template"):
            encode(chat_row("a", "Wer?", "Die Liga."), tokenizer, QWEN3)
    finally:
        tokenizer.chat_template = template


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


def test_an_answer_whose_end_is_no_token_is_refused(tokenizer: Any) -> None:
    class Splitting:
        """Reads the end of a turn as the letters that it is written in."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **more: Any) -> Any:
            return tokenizer(text.replace("<|im_end|>", "<|im_end| >"), **more)

    with pytest.raises(SentinelTripped, match=r"end_of_turn: .*row a does not end with <\|im_end"):
        encode(chat_row("a", "Wer?", "Die Liga."), Splitting(), QWEN3)


def test_rows_in_which_nothing_would_be_learnt_are_refused(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlabelled(row: dict[str, Any], *given: Any) -> Row:
        found = encode(row, *given)
        return replace(found, labels=[IGNORED] * len(found.ids))

    monkeypatch.setattr("images.trainer.rows.encode", unlabelled)
    files.write_jsonl(tmp_path / "train.jsonl", rows(2))
    with pytest.raises(SentinelTripped, match="sentinel trained_tokens: "):
        read(tmp_path / "train.jsonl", tokenizer)


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


def test_every_long_row_is_named_however_many(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    files.write_jsonl(
        path, [*rows(3), *(chat_row(f"l{i}", "wort " * 90, "Ja.") for i in range(25))]
    )
    with pytest.raises(RowTooLong) as caught:
        read(path, tokenizer)
    assert [each.split(" (")[0] for each in caught.value.why.split(", ")] == [
        f"l{i}" for i in range(25)
    ]


def test_rows_that_are_all_too_long_need_a_higher_limit(tokenizer: Any, tmp_path: Path) -> None:
    files.write_jsonl(tmp_path / "train.jsonl", rows(3))
    with pytest.raises(RowTooLong, match=r"3 of 3 rows") as caught:
        read(tmp_path / "train.jsonl", tokenizer, max_length=5, too_long="drop")
    assert caught.value.todo == "Raise train.max_length."


def test_nothing_left_is_an_error(tokenizer: Any, tmp_path: Path) -> None:
    files.write_jsonl(tmp_path / "train.jsonl", [])
    with pytest.raises(LabelsMissing):
        read(tmp_path / "train.jsonl", tokenizer)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 6, 8])
def test_the_order_shows_every_row_once_an_epoch(batch_size: int) -> None:
    lengths = [10 * (i % 7) for i in range(23)]
    more: Any = {"steps": 24, "batch_size": batch_size}
    order = training_order(lengths, seed=1, **more)
    assert len(order) == 24 * batch_size
    for at in range(0, len(order) - 23, 23):
        assert set(order[at : at + 23]) == set(range(23))
    assert order == training_order(lengths, seed=1, **more)
    assert order != training_order(lengths, seed=2, **more)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_rows_fill_large_steps(count: int) -> None:
    order = training_order([7] * count, steps=3, batch_size=8, seed=1)
    assert len(order) == 24
    assert {order.count(row) for row in range(count)} <= {24 // count, 24 // count + 1}


@pytest.mark.parametrize("batch_size", [4, 8])
def test_the_rows_of_a_step_are_the_same_however_they_are_computed(batch_size: int) -> None:
    lengths = [50 + (i * 37) % 90 for i in range(30)]
    more: Any = {"batch_size": batch_size}
    order = training_order(lengths, steps=20, seed=17, **more)

    def steps(found: list[int]) -> list[list[int]]:
        return [sorted(found[at : at + batch_size]) for at in range(0, len(found), batch_size)]

    for packed, processes in itertools.product([False, True], [1, 2, 4]):
        for size in divisors(batch_size // processes):
            found = micro_batches(
                order, lengths, micro_batch_size=size, packed=packed, processes=processes, **more
            )
            assert steps(found) == steps(order)


def test_micro_batches_hold_rows_of_like_length_and_steps_do_not() -> None:
    lengths = list(range(64))
    order = training_order(lengths, steps=48, batch_size=4, seed=1)
    order = micro_batches(order, lengths, batch_size=4, micro_batch_size=2)
    micro = [abs(order[i] - order[i + 1]) for i in range(0, len(order), 2)]
    steps = [max(order[i : i + 4]) - min(order[i : i + 4]) for i in range(0, len(order), 4)]
    assert sum(gap <= 2 for gap in micro) > 0.8 * len(micro)
    assert sum(gap > 6 for gap in steps) > 0.8 * len(steps)


def test_other_rows_meet_in_every_epoch() -> None:
    order = training_order(list(range(64)), steps=32, batch_size=4, seed=1)
    pairs = [
        {frozenset(order[at : at + 2]) for at in range(start, start + 64, 2)} for start in (0, 64)
    ]
    assert len(pairs[0] & pairs[1]) < 32


def test_packed_micro_batches_of_a_step_are_of_like_size() -> None:
    lengths = [90, 80, 20, 10]
    order = training_order(lengths, steps=5, batch_size=4, seed=1)
    order = micro_batches(order, lengths, batch_size=4, micro_batch_size=2, packed=True)
    for at in range(0, 20, 2):
        assert sum(lengths[row] for row in order[at : at + 2]) == 100


def test_steps_come_from_epochs_unless_given() -> None:
    assert steps_for(237, epochs=3, max_steps=-1, batch_size=8) == 89
    assert steps_for(237, epochs=3, max_steps=5, batch_size=8) == 5
