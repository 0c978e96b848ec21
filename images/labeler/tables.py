"""What the report draws of a model's answers: confusion matrices and reliability, as counts.

The measures say how good a model is in one number each; these say where it errs. Fields are found
by their kind, as the measures find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from images.labeler.fields import Kind, kinds
from images.labeler.measures import CALIBRATION_BINS, Judged
from tasks.definition import Task
from tasks.values import choices


def confusion(task: Task, rows: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    """Return for each flag and each choice of one value how often which was answered for which.

    `counts` is [expected][answered], both in the order of `values`; the last column counts the
    answers that are not valid. A scale stands in its order, nothing is the value "none".
    """
    found = {}
    for name, kind in kinds(task.output).items():
        if kind not in (Kind.FLAG, Kind.CHOICE):
            continue
        known = choices(task.output.model_fields[name].annotation)
        values = list(task.ordinal.get(name, ())) or known or [True, False]
        counts = [[0] * (len(values) + 1) for _ in values]
        for row in rows:
            answered = len(values) if row.answer is None else _place(values, row.answer, name)
            counts[_place(values, row.expected, name)][answered] += 1
        found[name] = {"values": [_told(value) for value in values], "counts": counts}
    return found


def reliability(task: Task, rows: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    """Return for each stated probability what it was worth, by equal bins of it.

    A bin has its `rows`, the mean `stated` in it and the share `true`; empty ones are left out, and
    so are answers that are not valid, which state nothing.
    """
    found = {}
    for stated, truth in task.calibrated.items():
        pairs = [
            (float(getattr(row.answer, stated)), bool(getattr(row.expected, truth)))
            for row in rows
            if row.answer is not None
        ]
        bins = []
        for number in range(CALIBRATION_BINS):
            own = [(p, y) for p, y in pairs if _bin(p) == number]
            if own:
                mean, share = (sum(values) / len(own) for values in zip(*own, strict=True))
                bins.append({"rows": len(own), "stated": round(mean, 4), "true": round(share, 4)})
        found[stated] = {"truth": truth, "bins": bins}
    return found


def _bin(p: float) -> int:
    return min(CALIBRATION_BINS - 1, int(p * CALIBRATION_BINS))


def _place(values: Sequence[Any], output: Any, name: str) -> int:
    return values.index(getattr(output, name))


def _told(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value if isinstance(value, Enum) else value)
