"""How sure a measure is, and whether two models differ: both by resampling the test rows.

No formula is at hand for the interval of a macro F1 or a weighted kappa, and answers to the same
rows are not independent; resampling needs neither a formula nor independence of the models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from images.labeler.measures import Measure

BOOTSTRAPS = 2000
"""Resamplings for an interval: its ends then move by about 1 % of its width (Efron 1987)."""
SWAPS = 9999
"""Random swaps for a test: p is told to about 0.002 near 0.05, and at best 0.0001."""
_AT_ONCE = 500
"""Resamplings in one product, which bounds the memory."""
_SEED = 20_261


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much better a model is than another: positive is better, also for an error."""

    name: str
    value: float
    low: float
    high: float
    """95 % interval of the difference (paired percentile bootstrap)."""
    least: float
    """One-sided: the difference is above this with 95 % confidence."""
    p_worse: float
    """Chance of a difference this bad, or worse, between two models that are alike."""
    p_better: float
    """Chance of a difference this good, or better, between two models that are alike."""
    rows: int
    """On how many rows both have what is compared."""
    fewest: int = 0
    """On how many they need it; 0 for a measure that every row has."""
    texts: int = 0
    """Positive answers of the one that has fewer, where `rows` are too few."""
    invalid: int = 0
    """Rows with an invalid answer among those compared: it counts as a positive one."""

    @property
    def compared(self) -> bool:
        """Whether there are enough rows; with fewer, `p_worse` alone is of use."""
        return self.rows >= self.fewest


@dataclass(frozen=True)
class Lead:
    """How a model stands to a constant answer in a measure."""

    name: str
    value: float
    reached: float
    """By the best constant answer."""
    least: float
    """One-sided: the model is better by more than this with 95 % confidence."""
    attainable: float
    """The same of the labels themselves; where it is not above 0, no model could be shown to be
    better on these rows."""


def intervals(measures: Mapping[str, Measure], rows: int) -> dict[str, Interval]:
    """Return each measure with its percentile bootstrap interval (Efron 1979).

    The same resamplings serve every measure and every call with as many rows.
    """
    weights = _bootstraps(rows)
    found = {}
    for name, measure in measures.items():
        values = measure.of(weights @ measure.counts)
        low, high = np.percentile(values, [2.5, 97.5])
        found[name] = Interval(measure.observed, float(low), float(high))
    return found


def differences(
    ours: Mapping[str, Measure], other: Mapping[str, Measure], names: Sequence[str], rows: int
) -> list[Difference]:
    """Compare two models on the same rows, in the measures named.

    The p values are of a paired permutation test, approximate by random swaps of the two answers
    to a row (Noreen 1989; for F1, Yeh 2000, COLING 2:947): exact under the hypothesis that it does
    not matter whose answer is whose, whatever the measure.
    """
    weights, swaps = _bootstraps(rows), _swaps(rows)
    return [_difference(name, ours[name], other[name], weights, swaps) for name in names]


def leads(
    ours: Mapping[str, Measure],
    constants: Mapping[str, Measure],
    labels: Mapping[str, Measure],
    rows: int,
) -> list[Lead]:
    """Compare a model with the best constant answer to the same rows, in each measure of these.

    `labels` are the measures of what was expected, given as the answer.
    """
    weights = _bootstraps(rows)

    def least(own: Measure, other: Measure) -> float:
        sign = 1.0 if own.higher_is_better else -1.0
        drawn = sign * (own.of(weights @ own.counts) - other.of(weights @ other.counts))
        return float(np.percentile(drawn, 5.0))

    return [
        Lead(
            name,
            ours[name].observed,
            other.observed,
            least(ours[name], other),
            least(labels[name], other),
        )
        for name, other in constants.items()
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm 1979): each may be held against alpha, and
    with probability 1 - alpha none of all that hold by chance is taken for true."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _difference(
    name: str,
    ours: Measure,
    other: Measure,
    weights: NDArray[np.float64],
    swaps: Sequence[NDArray[np.bool_]],
) -> Difference:
    sign = 1.0 if ours.higher_is_better else -1.0
    observed = sign * (ours.observed - other.observed)
    drawn = sign * (ours.of(weights @ ours.counts) - other.of(weights @ other.counts))
    low, least, high = np.percentile(drawn, [2.5, 5.0, 97.5])
    whole, apart = other.counts.sum(axis=0), ours.counts - other.counts
    as_bad = as_good = 0
    for kept in swaps:
        moved = kept @ apart  # what the rows kept add to the sums of the one, and take of the other
        ours_sums, other_sums = whole + moved, ours.counts.sum(axis=0) - moved
        chance = sign * (ours.of(ours_sums) - other.of(other_sums))
        as_bad += int((chance <= observed + 1e-12).sum())
        as_good += int((chance >= observed - 1e-12).sum())
    return Difference(
        name,
        observed,
        float(low),
        float(high),
        float(least),
        (1 + as_bad) / (1 + SWAPS),
        (1 + as_good) / (1 + SWAPS),
        len(ours.counts),
    )


def _bootstraps(rows: int) -> NDArray[np.float64]:
    """Return how often each row is drawn, [BOOTSTRAPS, rows]."""
    random = np.random.default_rng(_SEED)
    drawn = random.multinomial(rows, np.full(rows, 1 / rows), size=BOOTSTRAPS)
    return drawn.astype(np.float64)


def _swaps(rows: int) -> list[NDArray[np.bool_]]:
    """Return which rows keep their answers, [SWAPS, rows] in pieces."""
    random = np.random.default_rng(_SEED + 1)
    sizes = [min(_AT_ONCE, SWAPS - start) for start in range(0, SWAPS, _AT_ONCE)]
    return [random.random((size, rows)) < 0.5 for size in sizes]
