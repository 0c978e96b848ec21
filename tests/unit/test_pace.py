"""How long a training takes: tokens, rates and words."""

from __future__ import annotations

import pytest

from contracts import pace
from contracts.params import TrainParams
from contracts.vram import QWEN3_14B


def test_tokens_are_steps_times_batch_times_length() -> None:
    params = TrainParams(epochs=3, batch_size=4)
    assert pace.tokens_to_train(490, 1200.0, params) == 368 * 4 * 1200  # 367.5 steps, rounded up
    assert pace.tokens_to_train(490, 1200.0, TrainParams(max_steps=10)) == 10 * 4 * 1200


def test_operations_are_counted_by_hand_for_qwen3_14b() -> None:
    projections, head = 13_212_057_600, 151_936 * 5120
    short = pace.operations_per_token(QWEN3_14B, checkpointing=True, length=0)
    assert short == 6 * projections + 4 * head
    long = pace.operations_per_token(QWEN3_14B, checkpointing=True, length=2048)
    # scores and values, each 2·length·width, half of them seen: twice forward, twice as much back
    assert long - short == (2 + 2) * 2 * 2048 * 5120 * 40
    kept = pace.operations_per_token(QWEN3_14B, checkpointing=False, length=2048)
    assert kept == 4 * projections + 4 * head + 3 * 2 * 2048 * 5120 * 40


@pytest.mark.parametrize(
    ("card", "tflops"),
    [
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10G", 70),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_a_card_is_known_by_the_name_that_nvml_gives(card: str, tflops: int | None) -> None:
    found = pace.estimated(QWEN3_14B, TrainParams(), card=card, length=1000)
    if tflops is None:
        assert found is None
        return
    each = pace.operations_per_token(QWEN3_14B, checkpointing=True, length=1000)
    assert found is not None
    assert found.tokens_per_s == pytest.approx(0.35 * tflops * 1e12 / each)


def test_the_production_training_takes_an_hour_or_two_by_estimate() -> None:
    """700 rows, 70 % of them trained on, three epochs, about 1,200 tokens each."""
    params = TrainParams()
    rate = pace.estimated(QWEN3_14B, params, card="NVIDIA GeForce RTX 3090", length=1200)
    assert rate is not None
    tokens = pace.tokens_to_train(490, 1200.0, params)
    seconds = pace.training_s(tokens, rate, base_bytes=29.5e9)
    assert pace.in_words(seconds) == "1 h 40 min"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (40, "40 s"),
        (95, "2 min"),
        (1500, "25 min"),
        (3599, "1 h"),
        (3600, "1 h"),
        (6600, "1 h 50 min"),
        (7150, "2 h"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert pace.in_words(seconds) == words
