"""Predictions as a record keeps them, and a model's predictions held against a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from contracts import drift
from contracts.drift import Drift
from contracts.reference import KEPT, ProbeRow, Reference
from images.weights.forward import Packed, Weights, pack, predict

Predicted = list[dict[int, float]]
"""The likeliest tokens of each place, with their log-probabilities."""


def packed_rows(rows: Sequence[ProbeRow]) -> Packed:
    """Return rows and their places as one sequence."""
    return pack([row.tokens for row in rows], [[p.before for p in row.positions] for row in rows])


def likeliest(predicted: torch.Tensor) -> Predicted:
    """Return the `KEPT` likeliest of log-probabilities [places, vocabulary]."""
    values, tokens = predicted.topk(min(KEPT, predicted.shape[-1]), dim=-1)
    return [
        {token: round(value, 6) for token, value in zip(*place, strict=True)}
        for place in zip(tokens.tolist(), values.tolist(), strict=True)
    ]


def compare(reference: Predicted, found: torch.Tensor) -> Drift:
    """Return how far log-probabilities [places, vocabulary] are from a reference."""
    pairs = []
    for known, place in zip(reference, found, strict=True):
        tokens = sorted({*known, int(place.argmax())})
        pairs.append((known, dict(zip(tokens, place[tokens].tolist(), strict=True))))
    return drift.measure(pairs)


def drift_of(
    weights: Weights,
    config: Mapping[str, Any],
    reference: Reference,
    tell: Callable[[int, int], None],
) -> Drift:
    """Return how far a model is from the record, which has positions; `tell` hears of layers done.

    Raises `NotCovered` for a model that is no plain Qwen3.
    """
    found = predict(weights, config, packed_rows(reference.rows), tell=tell)
    known = [position.known() for row in reference.rows for position in row.positions]
    return compare(known, found)
