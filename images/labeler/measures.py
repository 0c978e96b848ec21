"""What is measured of a model's answers: each measure a function of sums over rows.

A resampling of the rows then costs one matrix product, so that ten thousand of them, for every
measure and every model, take seconds (images/labeler/resampling.py).

Names: `valid` is the share of valid answers, `rules` that of answers which also break no label
rule, `rules.positive` the latter among those that are positive by the task, or not valid: their
texts are the long ones. A field's own name is its main measure, `FIELD.precision` and the like its
further ones. An answer that is not valid counts in each as the worst that could be given to its
row: none that can be read is ever rated below one that cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from annotated_types import MaxLen
from numpy.typing import NDArray
from pydantic import BaseModel

from contracts.params.service import RULES_OF_POSITIVE
from images.labeler.fields import Kind, kinds
from tasks.definition import Task
from tasks.values import choices

Floats = NDArray[np.float64]

CALIBRATION_BINS = 10
"""Equal bins of the stated probability; with 150 rows about 15 in each."""


@dataclass(frozen=True)
class Judged:
    """A row of the test split: what was expected, the valid answer or None, the broken rules."""

    expected: BaseModel
    answer: BaseModel | None
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measure:
    """One measure over n rows.

    `counts` is [n, k]: what each row adds to k sums. `value` turns sums [..., k] into values [...].
    """

    counts: Floats
    value: Callable[[Floats], Floats]
    higher_is_better: bool = True

    def on(self, rows: NDArray[np.bool_]) -> Measure:
        """Return the measure over those of the rows [n] alone; there are as many rows as before."""
        return replace(self, counts=self.counts * rows[:, None])

    def of(self, sums: Floats) -> Floats:
        """Return the values of sums [..., k]."""
        return self.value(sums)

    @property
    def observed(self) -> float:
        """The value over all rows, each counted once."""
        return float(self.value(self.counts.sum(axis=0)))


def measures(task: Task, rows: Sequence[Judged]) -> dict[str, Measure]:
    """Return every measure by name; 0 is worst and 1 best, but for those told as errors."""
    found = {
        "valid": _share([row.answer is not None for row in rows]),
        "rules": _share([row.answer is not None and not row.broken for row in rows]),
        RULES_OF_POSITIVE: _rules_of_positive(task, rows),
    }
    for name, kind in kinds(task.output).items():
        values = _Field(
            choices(task.output.model_fields[name].annotation),
            [getattr(row.expected, name) for row in rows],
            [None if row.answer is None else getattr(row.answer, name) for row in rows],
            np.array([row.answer is not None for row in rows], dtype=bool),
            _most(task.output.model_fields[name].metadata),
        )
        for suffix, measure in _BY_KIND[kind](values).items():
            found[f"{name}{suffix}"] = measure
        if order := task.ordinal.get(name):
            found[f"{name}.kappa"] = _kappa(values, order)
    for stated, truth in task.calibrated.items():
        found |= _calibration(stated, truth, rows)
    return found


def is_of_nothing(name: str, measure: Measure) -> bool:
    """Whether a measure has no answer that it could be of: `rules.positive` without a positive one.

    Its value is then not to be shown, for it says nothing.
    """
    return name == RULES_OF_POSITIVE and not measure.counts[:, 1].any()


def measure_names(task: Task) -> list[str]:
    """Return the names that `measures` gives for a task."""
    return list(measures(task, []))


def agreement(task: Task, pairs: Sequence[tuple[BaseModel, BaseModel]]) -> dict[str, float]:
    """Return how far answers (second) agree with others of the same items (first), by measure."""
    found = measures(task, [Judged(expected, answer) for expected, answer in pairs])
    return {
        name: round(m.observed, 4) for name, m in found.items() if name.partition(".")[0] != "rules"
    }


@dataclass(frozen=True)
class _Field:
    """The values of one field; `valid` says of which rows the answer counts.

    `choices` are all values it can have, of which `most` may be chosen: every model's sums then
    have the same places.
    """

    choices: list[Any]
    expected: list[Any]
    answered: list[Any]
    valid: NDArray[np.bool_]
    most: float
    pairs: list[tuple[Any, Any, bool]] = field(init=False)

    def __post_init__(self) -> None:
        together = zip(self.expected, self.answered, self.valid.tolist(), strict=True)
        object.__setattr__(self, "pairs", list(together))

    def right(self) -> Measure:
        return _share([ok and e == a for e, a, ok in self.pairs])

    def detected(self, one: Any) -> Floats:
        """Return hits, expected and detected [n, 3] of one value, which is what an invalid answer
        says wherever it is wrong."""
        found = [(e, a == one if ok else e != one) for e, a, ok in self.pairs]
        return _counts([_hits({e} & {one}, {one} if is_ else set()) for e, is_ in found])


def _flag(values: _Field) -> dict[str, Measure]:
    """Accuracy, and the detection of true; an invalid answer says the opposite of the label."""
    return {"": values.right(), **_detection(values.detected(True))}


def _choice(values: _Field) -> dict[str, Measure]:
    """Accuracy, and the mean F1 of all classes that were expected or answered; none is a class.

    An invalid answer misses its class, and is one of every other: which a wrong one would cost most
    depends on all the rest.
    """
    return {
        "": values.right(),
        ".macro_f1": _macro_f1([values.detected(one) for one in values.choices]),
    }


def _choices(values: _Field) -> dict[str, Measure]:
    """Micro F1 over all chosen values, macro F1 over them, share of rows with all right.

    An invalid answer chooses all that is wrong: for the micro F1 as much as may be chosen.
    """
    every = set(values.choices)
    sets = [(set(e), set(a) if ok else every - set(e)) for e, a, ok in values.pairs]
    together = _counts([_hits(e, a) for e, a in sets])
    together[~values.valid, 2] = np.minimum(together[~values.valid, 2], values.most)
    return {
        "": _detection(together)[".f1"],
        ".macro_f1": _macro_f1(
            [_counts([_hits(e & {one}, a & {one}) for e, a in sets]) for one in values.choices]
        ),
        ".exact": _share([ok and set(e) == set(a) for e, a, ok in values.pairs]),
    }


def _number(values: _Field) -> dict[str, Measure]:
    """One minus the mean absolute error; an error counts as 1 at most, a missing value too."""
    return {"": _mean([_closeness(e, a, ok) for e, a, ok in values.pairs])}


def _closeness(expected: float | None, answer: float | None, ok: bool) -> float:
    if not ok or (expected is None) != (answer is None):
        return 0.0
    return 1 - min(1.0, abs((expected or 0) - (answer or 0)))


def _presence(values: _Field) -> dict[str, Measure]:
    """Share of rows in which the text, or list, is there or not as expected."""
    return {"": _share([ok and bool(e) == bool(a) for e, a, ok in values.pairs])}


def _most(metadata: Sequence[Any]) -> float:
    """Return how many values a list may hold, by its field's metadata."""
    return min((each.max_length for each in metadata if isinstance(each, MaxLen)), default=np.inf)


_BY_KIND: Mapping[Kind, Callable[[_Field], dict[str, Measure]]] = {
    Kind.FLAG: _flag,
    Kind.CHOICE: _choice,
    Kind.CHOICES: _choices,
    Kind.NUMBER: _number,
    Kind.TEXT: _presence,
}


# --- the forms that a measure can have -----------------------------------------------------------
def _counts(rows: Sequence[Sequence[float]], width: int = 3) -> Floats:
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1 if rows else width)


def _hits(expected: set[Any], found: set[Any]) -> tuple[int, int, int]:
    return len(expected & found), len(expected), len(found)


def _ratio(over: Floats, under: Floats, empty: float) -> Floats:
    """Return over / under, `empty` where under is 0."""
    return np.where(under > 0, over / np.where(under > 0, under, 1.0), empty)


def _mean(values: Sequence[float], *, higher_is_better: bool = True) -> Measure:
    counts = _counts([(value, 1.0) for value in values], 2)
    return Measure(counts, lambda s: _ratio(s[..., 0], s[..., 1], 0.0), higher_is_better)


def _share(flags: Sequence[bool]) -> Measure:
    return _mean([float(flag) for flag in flags])


def _rules_of_positive(task: Task, rows: Sequence[Judged]) -> Measure:
    """Share of the positive answers that break no label rule; 1 where there are none.

    An invalid answer has no text that keeps them: it counts as a positive one that breaks them.
    Most articles are irrelevant, and an answer that says so has hardly a text to break a rule with:
    over all rows a model that breaks one in every text can still reach 0.6.
    """
    positive = [row.answer is None or task.positive(row.answer) for row in rows]
    kept = [row.answer is not None and not row.broken for row in rows]
    counts = [(of and ok, of) for of, ok in zip(positive, kept, strict=True)]
    return Measure(_counts(counts, 2), lambda s: _ratio(s[..., 0], s[..., 1], 1.0))


def _f1(hits: Floats, wanted: Floats, found: Floats) -> Floats:
    """2 hits / (wanted + found); nothing wanted and nothing found is right: 1."""
    return _ratio(2 * hits, wanted + found, 1.0)


def _detection(counts: Floats) -> dict[str, Measure]:
    """Return precision, recall and F1 of detected against expected values, over all rows.

    Nothing expected and nothing detected is right: 1. One of them without the other: 0.
    """

    def rate(sums: Floats, own: int) -> Floats:
        nothing = (sums[..., 1] + sums[..., 2]) == 0
        return np.where(nothing, 1.0, _ratio(sums[..., 0], sums[..., own], 0.0))

    return {
        ".precision": Measure(counts, lambda s: rate(s, 2)),
        ".recall": Measure(counts, lambda s: rate(s, 1)),
        ".f1": Measure(counts, lambda s: _f1(s[..., 0], s[..., 1], s[..., 2])),
    }


def _macro_f1(classes: Sequence[Floats]) -> Measure:
    """Mean F1 of classes; `classes` holds hits, expected, detected [n, 3] of each.

    A class that a resampling has neither expected nor detected is left out of its mean. Nothing
    expected and nothing detected is right: 1, as in a detection.
    """

    def value(sums: Floats) -> Floats:
        each = sums.reshape(*sums.shape[:-1], -1, 3)
        seen = (each[..., 1] + each[..., 2]) > 0
        f1 = np.where(seen, _f1(each[..., 0], each[..., 1], each[..., 2]), 0.0)
        return _ratio(f1.sum(axis=-1), seen.sum(axis=-1).astype(np.float64), 1.0)

    return Measure(np.concatenate(classes, axis=1), value)


def _kappa(values: _Field, order: Sequence[Any]) -> Measure:
    """Cohen's kappa with quadratic weights (Cohen 1968, Psychological Bulletin 70:213).

    1 - Σ w O / Σ w E with w = (i - j)² / (K - 1)². Chance alone gives 0; where nothing varies, 1 if
    all is right. An invalid answer is as far off as one to its row can be, and chance is held to
    come nearer than by any class that is not right everywhere; -1, the least that answers can reach
    (Lin 1989, Biometrics 45:255: it is a concordance), is the least here too.
    """
    size = len(order)
    place = {one: index for index, one in enumerate(order)}
    told = np.zeros((len(values.pairs), size, size + 1))
    for row, (expected, answer, ok) in enumerate(values.pairs):
        told[row, place[expected], place[answer] if ok else size] = 1
    apart = np.subtract.outer(np.arange(size), np.arange(size)) ** 2 / max(1, (size - 1) ** 2)
    weights = np.hstack([apart, apart.max(axis=1, keepdims=True)])

    def value(sums: Floats) -> Floats:
        table = sums.reshape(*sums.shape[:-1], size, size + 1)
        total, answered = table.sum(axis=(-2, -1)), table.sum(axis=-2)
        chance = table.sum(axis=-1) @ apart  # of each class, as an answer to all rows
        nearest = np.where(chance > 0, chance, np.inf).min(axis=-1, keepdims=True)
        chance = np.concatenate([chance, np.where(np.isinf(nearest), 0.0, nearest)], axis=-1)
        by_chance = (answered * chance).sum(axis=-1)
        seen = (table * weights).sum(axis=(-2, -1))
        kappa = np.maximum(-1.0, 1 - _ratio(seen * total, by_chance, 1.0))
        return np.where(by_chance > 0, kappa, np.where(seen > 0, 0.0, 1.0))

    return Measure(told.reshape(len(values.pairs), size * (size + 1)), value)


def _calibration(stated: str, truth: str, rows: Sequence[Judged]) -> dict[str, Measure]:
    """How far a stated probability can be believed: Brier score and expected calibration error.

    Brier (1950): the mean of (p - y)². ECE (Naeini et al. 2015): Σ |Σ y - Σ p| over equal bins of
    p, divided by n. Both are errors, 0 is best. An invalid answer counts 1 to both; its gap is in a
    bin of its own, where no other makes up for it.
    """
    brier, bins = [], np.zeros((len(rows), CALIBRATION_BINS + 1, 3))
    for index, row in enumerate(rows):
        if row.answer is None:
            brier.append(1.0)
            bins[index, CALIBRATION_BINS] = (1, 1, 0)
            continue
        p, y = float(getattr(row.answer, stated)), float(getattr(row.expected, truth))
        brier.append((p - y) ** 2)
        bins[index, min(CALIBRATION_BINS - 1, int(p * CALIBRATION_BINS))] = (1, p, y)

    def ece(sums: Floats) -> Floats:
        each = sums.reshape(*sums.shape[:-1], CALIBRATION_BINS + 1, 3)
        gap = np.abs(each[..., 1] - each[..., 2]).sum(axis=-1)
        return _ratio(gap, each[..., 0].sum(axis=-1), 0.0)

    return {
        f"{stated}.brier": _mean(brier, higher_is_better=False),
        f"{stated}.ece": Measure(
            bins.reshape(len(rows), (CALIBRATION_BINS + 1) * 3), ece, higher_is_better=False
        ),
    }
