"""What an answer that is the same for every row reaches: a model that is of use reaches more.

A share of relevant rows of 40 % lets "relevant" to everything reach an F1 of 0.57. Which constant
does best is found on the very rows it is measured on, which favours it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from images.labeler.fields import Kind, kinds
from images.labeler.measures import Judged, Measure, measures
from images.labeler.resampling import Lead, leads
from tasks.definition import Task

OF_FORM = frozenset({"valid", "rules"})
"""Measures, by the word before the point, that are not about being right: a constant answer can be
perfect in them. They have least values of their own."""
CALIBRATION = ".ece"
"""How the name of a measure ends in which whoever states the same share for all is perfect too."""


def leads_over_constants(
    task: Task, rows: Sequence[Judged], ours: Mapping[str, Measure], names: Sequence[str]
) -> list[Lead]:
    """Return how a model's measures of these rows stand to the best constant answer's, in each
    measure named that is neither `OF_FORM` nor of calibration."""
    labels = measures(task, [Judged(row.expected, row.expected) for row in rows])
    return leads(ours, best_constants(task, rows, names), labels, len(rows))


def one_sided(task: Task, rows: Sequence[Judged], leads: Sequence[Lead]) -> str:
    """Say that no row's label is positive by the task, or that those of one kind are too few for
    anybody to be shown to be better than a constant answer in the field that says which; else "".

    Without such a field among the measures it may be a task of texts, in which every row is
    positive.
    """
    counts = Counter(task.positive(row.expected) for row in rows)
    cannot = "cannot tell a model from one that always answers the same"
    if not counts[True]:
        return f"the test set has no positive row ({len(rows)} in all): it {cannot}"
    for each in leads:
        if each.attainable <= 0 and _says_which(task, rows, each.name):
            rarer, kind = min((counts[False], "negative"), (counts[True], "positive"))
            found = f"{rarer or 'no'} {kind} row{'s' if rarer > 1 else ''}"
            field = each.name.partition(".")[0]
            return f"the test set has {found} ({len(rows)} in all): in {field} it {cannot}"
    return ""


def _says_which(task: Task, rows: Sequence[Judged], name: str) -> bool:
    """Return whether a measure is of a field by whose one value the positive labels are known.

    Not a recall, in which a constant answer can be perfect on any rows.
    """
    field, _, measure = name.partition(".")
    if kinds(task.output).get(field) not in (Kind.FLAG, Kind.CHOICE) or measure == "recall":
        return False
    values: dict[bool, set[Any]] = {True: set(), False: set()}
    for row in rows:
        values[task.positive(row.expected)].add(getattr(row.expected, field))
    return len(values[True]) == 1 and not values[True] & values[False]


def best_constants(task: Task, rows: Sequence[Judged], names: Sequence[str]) -> dict[str, Measure]:
    """Return, for each measure named that is neither `OF_FORM` nor of calibration, the measure of
    the constant best in it.

    Every measure of a field is a function of that field's answers, so the constants are tried field
    by field: each value that was expected; of a number also the mean; of several to choose also the
    most frequent ones.
    """
    of_field: dict[str, list[str]] = {}
    for name in names:
        field = name.partition(".")[0]
        if field not in OF_FORM and not name.endswith(CALIBRATION):
            of_field.setdefault(field, []).append(name)
    found = {}
    for field, own in of_field.items():
        tried = [
            measures(task, [_answering(row, field, value, rows) for row in rows])
            for value in _values(
                kinds(task.output)[field], [getattr(r.expected, field) for r in rows]
            )
        ]
        for name in own:
            found[name] = max((each[name] for each in tried), key=_goodness)
    return {name: found[name] for name in names if name in found}


def _answering(row: Judged, field: str, value: Any, rows: Sequence[Judged]) -> Judged:
    """Return a row to which the answer is the first row's expected one, with this value."""
    return Judged(row.expected, rows[0].expected.model_copy(update={field: value}))


def _values(kind: Kind, expected: Sequence[Any]) -> list[Any]:
    """Return the values to try."""
    if kind is Kind.TEXT:
        return list({bool(value): value for value in expected}.values())
    if kind is Kind.NUMBER and (numbers := [value for value in expected if value is not None]):
        return list(dict.fromkeys([*expected, fmean(numbers)]))
    if kind is not Kind.CHOICES:
        return list(dict.fromkeys(expected))
    frequent = [value for value, _ in Counter(v for each in expected for v in each).most_common()]
    tops = [tuple(frequent[:count]) for count in range(len(frequent) + 1)]
    return [list(each) for each in dict.fromkeys((*map(tuple, expected), *tops))]


def _goodness(measure: Measure) -> float:
    return measure.observed if measure.higher_is_better else -measure.observed
