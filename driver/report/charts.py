"""The pictures of the report: intervals of a measure, reliability, loss, and a run's time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from driver.report import svg
from driver.report.display import duration

Points = Sequence[tuple[float, float]]

_ROW = 18.0
"""Height of a line of text, and so of what is drawn beside it."""
_Z = 1.96
"""Standard deviations of a 95 % interval."""


# --- a measure of several models -----------------------------------------------------------------
def intervals(name: str, models: Mapping[str, Mapping[str, float]]) -> str:
    """Draw a measure from 0 to 1, a row for each model: a dot, and its 95 % interval as a line.

    Of a model that the measure has nothing of the row is empty.
    """
    height = _ROW * len(models)
    parts = [
        svg.line(svg.percent(tick / 4), 0, svg.percent(tick / 4), height, "grid")
        for tick in range(5)
    ]
    for number, (role, measure) in enumerate(models.items()):
        if measure.get("of_nothing"):
            continue
        y = _ROW * (number + 0.5)
        low, value, high = (svg.percent(measure[key]) for key in ("low", "value", "high"))
        parts.append(svg.line(low, y, high, y, f"whisker {role}"))
        parts.append(svg.dot(value, y, 4.5, f"dot {role}"))
    told = "; ".join(
        f"{role} has none"
        if each.get("of_nothing")
        else f"{role} {each['value']:.3f} ({each['low']:.3f} to {each['high']:.3f})"
        for role, each in models.items()
    )
    return svg.picture(parts, title=name, text=told, height=height)


def scale() -> str:
    """Draw the ticks that `intervals` has lines for."""
    parts = [
        svg.words(svg.percent(tick / 4), 13, f"{tick / 4:g}", "tick", "middle") for tick in range(5)
    ]
    return svg.picture(parts, title="scale", text="from 0 to 1", height=_ROW)


# --- what a stated probability is worth ----------------------------------------------------------
_SIDE, _LEFT, _TOP, _BELOW = 240.0, 44.0, 10.0, 84.0


def reliability(role: str, stated: str, truth: str, bins: Sequence[Mapping[str, float]]) -> str:
    """Draw the share that was true against the probability stated, with how often it was stated.

    The lines are 95 % intervals of the share (Wilson 1927, JASA 22:209). On the diagonal a
    statement can be taken at its word.
    """

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x * _SIDE, _TOP + (1 - y) * _SIDE

    right, bottom = at(1, 0)
    parts = [svg.path([at(0, 0), at(1, 1)], "ideal")]
    for tick in (0.0, 0.5, 1.0):
        x, y = at(tick, tick)
        parts += [
            svg.line(_LEFT, y, right, y, "grid"),
            svg.line(x, _TOP, x, bottom, "grid"),
            svg.words(_LEFT - 8, y + 4, f"{tick:g}", "tick", "end"),
            svg.words(x, bottom + 16, f"{tick:g}", "tick", "middle"),
        ]
    parts.append(svg.path([at(each["stated"], each["true"]) for each in bins], f"curve {role}"))
    most = max((each["rows"] for each in bins), default=1)
    floor = bottom + _BELOW - 22
    for each in bins:
        x, y = at(each["stated"], each["true"])
        low, high = wilson(each["true"], each["rows"])
        parts += [
            svg.line(x, at(0, low)[1], x, at(0, high)[1], f"whisker {role}"),
            svg.dot(x, y, 4, f"dot {role}"),
            svg.bar(x - 5, floor - 28 * each["rows"] / most, 10, 28 * each["rows"] / most, role),
        ]
    parts += [
        svg.line(_LEFT, floor, right, floor, "grid"),
        svg.words(_LEFT - 8, floor - 8, "rows", "tick", "end"),
        svg.words(_LEFT + _SIDE / 2, floor + 18, stated, "label", "middle"),
        (
            f'<text transform="translate(12 {_TOP + _SIDE / 2:g}) rotate(-90)" class="label" '
            f'text-anchor="middle">share {escape(truth)}</text>'
        ),
    ]
    told = "; ".join(
        f"stated {each['stated']:.2f}: true {each['true']:.2f} of {each['rows']} rows"
        for each in bins
    )
    title = f"Reliability of {stated}, {role}"
    width, height = _LEFT + _SIDE + 16, _TOP + _SIDE + _BELOW
    return svg.picture(parts, title=title, text=told, height=height, width=width)


def wilson(share: float, rows: float) -> tuple[float, float]:
    """Return the 95 % score interval of a share of so many rows."""
    if not rows:
        return 0.0, 1.0
    under = 1 + _Z**2 / rows
    middle = (share + _Z**2 / (2 * rows)) / under
    half = _Z / under * math.sqrt(share * (1 - share) / rows + _Z**2 / (4 * rows**2))
    return max(0.0, middle - half), min(1.0, middle + half)


# --- loss ----------------------------------------------------------------------------------------
_WIDTH, _HEIGHT, _EDGE, _FOOT = 420.0, 250.0, 44.0, 40.0
MANY = 60
"""Points from which on a line is drawn smoothed, over what it was."""


def losses(training: Points, validation: Points, best: float | None = None) -> str:
    """Draw the loss (nats an answer token) by optimizer step; `best` is the step that was kept."""
    both = {"training": _finite(training), "validation": _finite(validation)}
    lines = {name: points for name, points in both.items() if points}
    every = [point for points in lines.values() for point in points]
    if not every:
        return ""
    steps, tops = _ticks(max(step for step, _ in every)), _ticks(max(loss for _, loss in every))

    def at(step: float, loss: float) -> tuple[float, float]:
        x = _EDGE + step / steps[-1] * (_WIDTH - _EDGE - 12)
        return x, 12 + (1 - loss / tops[-1]) * (_HEIGHT - 12 - _FOOT)

    parts = []
    for loss in tops:
        x, y = at(0, loss)
        parts.append(svg.line(x, y, _WIDTH - 12, y, "grid"))
        parts.append(svg.words(x - 8, y + 4, f"{loss:g}", "tick", "end"))
    for step in steps:
        x, y = at(step, 0)
        parts.append(svg.words(x, y + 18, f"{step:g}", "tick", "middle"))
    parts.append(svg.words((_EDGE + _WIDTH) / 2, _HEIGHT - 4, "optimizer step", "label", "middle"))
    if best is not None and any(step == best for step, _ in both["validation"]):
        x = at(best, 0)[0]
        parts.append(svg.line(x, 12, x, at(0, 0)[1], "kept"))
    for name, points in lines.items():
        places = [at(*point) for point in points]
        if len(points) > MANY:
            parts.append(svg.path(places, f"curve {name} raw"))
        parts.append(svg.path([at(*point) for point in _smoothed(points)], f"curve {name}"))
        if name == "validation":
            parts += [svg.dot(x, y, 3.5, f"dot {name}") for x, y in places]
    told = "; ".join(
        f"{name} from {points[0][1]:.3f} to {points[-1][1]:.3f}" for name, points in lines.items()
    )
    return svg.picture(parts, title="Loss by step", text=told, height=_HEIGHT, width=_WIDTH)


def _smoothed(points: Points) -> Points:
    """Return the mean of each point's neighbourhood: a batch is small, and its loss jumps."""
    if len(points) <= MANY:
        return points
    reach = len(points) // MANY + 2
    means = []
    for place, (step, _) in enumerate(points):
        near = [loss for _, loss in points[max(0, place - reach) : place + reach + 1]]
        means.append((step, sum(near) / len(near)))
    return means


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(step, loss) for step, loss in points if math.isfinite(step) and math.isfinite(loss)]


def _ticks(top: float) -> list[float]:
    """Return 0 and up to five round values, the last at or above `top`."""
    rough = (top or 1.0) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [round(step * i, 10) for i in range(math.ceil((top or 1.0) / step - 1e-9) + 1)]


# --- a run's time --------------------------------------------------------------------------------
TRACK = 28.0
"""Height of a stage's row in the timeline; page.py gives the names beside it the same."""
_AXIS = 26.0


@dataclass(frozen=True)
class Span:
    """Something that took its time: seconds since the run began."""

    name: str
    since: float
    until: float
    kind: str
    """`done`, `failed`, …: the class of its bar."""


def timeline(rows: Sequence[Span | None], away: Sequence[tuple[float, float]], whole: float) -> str:
    """Draw the stages as bars, one below the other, and when the service was away behind them.

    None is a row without a bar. Times are seconds since the run began, `whole` is its length.
    """
    whole = max(whole, 0.001)
    height = TRACK * len(rows)
    parts = _time_axis(whole, height)
    for since, until in away:
        start, end = max(0.0, since), min(whole, until)
        share = max(end - start, 0.0) / whole
        parts.append(svg.bar(svg.percent(start / whole), 0, svg.percent(share), height, "away"))
        for edge in (start, end):
            place = svg.percent(edge / whole)
            parts.append(svg.line(place, 0, place, height, "away-edge"))
    parts += [
        svg.line("0%", TRACK * number, "100%", TRACK * number, "grid")
        for number in range(len(rows) + 1)
    ]
    for number, span in enumerate(rows):
        if span is not None:
            place = svg.percent(span.since / whole)
            width = svg.percent((span.until - span.since) / whole)
            y = TRACK * number + 7
            kind = f"span {span.kind}"
            parts.append(svg.bar(place, y, width, TRACK - 14, kind))
            parts.append(svg.line(place, y, place, y + TRACK - 14, kind))  # seconds of hours
    told = [f"{s.name} from {s.since:.0f} s to {s.until:.0f} s" for s in rows if s]
    told += [f"service away from {since:.0f} s to {until:.0f} s" for since, until in away]
    return svg.picture(parts, title="What ran when", text="; ".join(told), height=height + _AXIS)


def _time_axis(whole: float, height: float) -> list[str]:
    """Return ticks at round times: at most five, the last well before the end."""
    steps = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((each for each in steps if whole / each <= 5), steps[-1])
    parts = []
    for number in range(1, math.floor(whole / step) + 1):
        place = svg.percent(number * step / whole)
        parts.append(svg.line(place, 0, place, height, "grid"))
        if number * step < 0.94 * whole:
            told = duration(number * step).removesuffix(" 00 s").removesuffix(" 00 min")
            told = told.replace(".0 s", " s")
            parts.append(svg.words(place, height + 18, told, "tick", "middle"))
    return [svg.words("0%", height + 18, "0", "tick"), *parts]
