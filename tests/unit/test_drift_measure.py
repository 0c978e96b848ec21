"""Divergence from the likeliest tokens alone: never above the true one, and not blind."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import drift
from contracts.errors import SentinelTripped


def softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in logits)
    return [math.log(math.exp(value) / total) for value in logits]


def top(logprobs: list[float], count: int) -> dict[int, float]:
    order = sorted(range(len(logprobs)), key=lambda token: -logprobs[token])
    return {token: logprobs[token] for token in order[:count]}


@given(
    st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=4, max_size=40),
    st.integers(1, 10),
    st.integers(1, 10),
)
def test_it_is_a_lower_bound(pairs: list[tuple[float, float]], kept: int, told: int) -> None:
    reference, found = softmax([a for a, _ in pairs]), softmax([b for _, b in pairs])
    true = sum(math.exp(p) * (p - q) for p, q in zip(reference, found, strict=True))
    bound = drift.divergence(top(reference, kept), top(found, told))
    assert -1e-9 <= bound <= true + 1e-5


def test_it_is_near_the_true_one_where_few_tokens_matter() -> None:
    source = random.Random(1)  # noqa: S311
    logits = sorted((source.gauss(0, 4) for _ in range(2000)), reverse=True)
    reference = softmax(logits)
    found = softmax([value + source.gauss(0, 0.2) for value in logits])
    true = sum(math.exp(p) * (p - q) for p, q in zip(reference, found, strict=True))
    bound = drift.divergence(top(reference, 64), top(found, 20))
    assert 0.5 * true < bound <= true
    assert drift.divergence(top(reference, 64), top(reference, 20)) < 1e-6


def test_predictions_without_a_common_token_are_far_apart() -> None:
    reference = {token: math.log(1 / 64.1) for token in range(64)}
    found = {token: math.log(1 / 20.1) for token in range(100, 120)}
    assert drift.divergence(reference, found) > 3


@pytest.mark.parametrize("place", ["reference", "found"])
def test_a_model_that_predicts_no_numbers_is_far_from_any(place: str) -> None:
    """In one place of a hundred, so that the top tokens alone would not tell."""
    sound = {1: math.log(0.9), 2: math.log(0.05)}
    broken = dict.fromkeys(sound, math.nan)
    pairs = [(sound, sound)] * 99 + [(broken, sound) if place == "reference" else (sound, broken)]
    found = drift.measure(pairs)
    with pytest.raises(SentinelTripped, match="sentinel gguf_drift"):
        drift.check("gguf_drift", found, drift.GGUF["q4_k_m"], what="", todo="")


def test_near_ties_agree_and_others_do_not() -> None:
    reference = {1: math.log(0.45), 2: math.log(0.43), 3: math.log(0.1)}
    assert drift.agree(reference, {2: -0.1, 1: -2.0})
    assert not drift.agree(reference, {3: -0.1, 1: -2.0})
    assert not drift.agree(reference, {9: -0.1})


@pytest.mark.parametrize(
    ("divergence", "agreement", "trips"),
    [(0.005, 0.95, False), (0.0051, 1.0, True), (0.0, 0.94, True)],
)
def test_either_figure_trips_it(divergence: float, agreement: float, trips: bool) -> None:
    found = drift.Drift(divergence, agreement, 100)
    if not trips:
        drift.check("x", found, drift.GGUF["q8_0"], what="w", todo="t")
        return
    with pytest.raises(SentinelTripped, match="sentinel x: w") as caught:
        drift.check("x", found, drift.GGUF["q8_0"], what="w", todo="t")
    assert "of 100 positions" in caught.value.why
