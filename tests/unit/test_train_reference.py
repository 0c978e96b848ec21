"""The record that training leaves: which places, whose predictions, and a model that is another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts import reference
from contracts.errors import InputMissing, SentinelTripped
from contracts.params import TrainParams
from images.trainer.backends import load_model
from images.trainer.reference import ANSWER_TOKENS, POSITIONS_PER_ROW, Recorder, choose_rows
from images.trainer.rows import Row, encode
from images.weights.forward import tokens_in
from tasks.chat import QWEN3
from tests.unit.model_stages import TRAINING, chat_row, rows

PARAMS = TrainParams(**TRAINING)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


def encoded(tokenizer: Any, given: list[dict[str, Any]]) -> list[Row]:
    return [encode(row, tokenizer, QWEN3) for row in given]


def test_places_are_spread_over_the_answers_within_the_budget(tokenizer: Any) -> None:
    long = [chat_row(f"long-{i}", "Frage", f"{i}: Straße, " * 40) for i in range(30)]
    given = encoded(tokenizer, long)
    chosen = choose_rows(given, tokenizer, 600)
    assert 2 < len(chosen) < 8
    assert tokens_in([row.tokens for row in chosen]) <= 600
    assert chosen == choose_rows(given[::-1], tokenizer, 600)
    for row in chosen:
        assert 20 < len(row.positions) <= POSITIONS_PER_ROW
        assert row.positions[0].before == row.prompt_tokens
        assert row.prompt_tokens + 80 < len(row.tokens) <= row.prompt_tokens + ANSWER_TOKENS
        for place in row.positions:
            text = row.prompt + place.answer
            assert tuple(tokenizer(text)["input_ids"]) == row.tokens[: place.before]
    assert len(choose_rows(given, tokenizer, 10)) == 1  # one row at least
    assert choose_rows(given, tokenizer, 0) == ()


def test_the_end_of_a_short_answer_is_a_place(tokenizer: Any) -> None:
    (row,) = choose_rows(encoded(tokenizer, rows(1)), tokenizer, 500)
    assert row.positions[-1].answer == "Antwort 0"


@pytest.fixture
def trained(tiny_base: Path, tokenizer: Any, tmp_path: Path) -> tuple[Any, Recorder, Path]:
    """Return a model with a random adapter, one that has looked at it before, and the adapter."""
    model = load_model("transformers", tiny_base, PARAMS)
    recorder = Recorder(tiny_base, encoded(tokenizer, rows(6)), tokenizer, QWEN3, PARAMS)
    recorder.look_before(model)
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    model.save_pretrained(tmp_path / "adapter")
    return model, recorder, tmp_path / "adapter"


def test_the_record_is_what_the_model_predicts(
    trained: tuple[Any, Recorder, Path], tmp_path: Path
) -> None:
    model, recorder, adapter = trained
    for weight in (w for name, w in model.named_parameters() if "lora_B" in name):
        weight.data.zero_()  # the last step's adapter; the published one is of the best
    found = recorder.record(model, adapter)
    assert found.effect is not None
    assert found.effect > 0.01
    assert found.held_drift is not None
    assert found.held_drift < 1e-8
    record = found.reference
    assert record.of == "original"
    assert record.trained.control_tokens["<|im_end|>"] == 151_645
    assert record.trained.context_length == 40_960

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([record.rows[0].tokens])).logits[0]
    place = record.rows[0].positions[-1]
    expected = torch.log_softmax(logits[place.before - 1], dim=-1).topk(64)
    assert place.tokens == tuple(expected.indices.tolist())
    assert place.logprobs == pytest.approx(expected.values.tolist(), abs=1e-4)

    reference.write(tmp_path / "reference.json", record)
    assert reference.read(tmp_path / "reference.json") == record
    (tmp_path / "reference.json").write_text("{}")
    with pytest.raises(InputMissing, match="no reference"):
        reference.read(tmp_path / "reference.json")


def test_an_adapter_that_is_read_otherwise_than_it_was_trained_is_found(
    trained: tuple[Any, Recorder, Path],
) -> None:
    model, recorder, adapter = trained
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 24}))
    with pytest.raises(SentinelTripped, match="sentinel held_drift: the model trained in fp32"):
        recorder.record(model, adapter)


def test_an_unknown_kind_of_adapter_is_recorded_as_held(
    trained: tuple[Any, Recorder, Path],
) -> None:
    model, recorder, adapter = trained
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    found = recorder.record(model, adapter)
    assert (found.reference.of, found.held_drift) == ("trained", None)
    assert found.reference.positions() > 10
