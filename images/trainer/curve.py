"""The loss curve as SVG: two lines, two axes, readable on light and dark ground."""

from __future__ import annotations

import math
from html import escape

Points = list[tuple[float, float]]
"""(optimizer step, loss in nats per answer token)."""

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 40, 52
_INK, _GRID = "#808a94", "#808a9440"  # mid grey: enough contrast on white and on black
_COLOURS = {"training": "#3f8fd2", "validation": "#e0803c"}


def loss_curve(training: Points, validation: Points, *, title: str) -> str:
    """Return the SVG text. Points that are not finite are left out."""
    lines = {"training": _finite(training), "validation": _finite(validation)}
    points = [point for line in lines.values() for point in line]
    right = max((step for step, _ in points), default=1.0) or 1.0
    top = max((loss for _, loss in points), default=1.0) or 1.0
    x_ticks, y_ticks = _ticks(right), _ticks(top)
    right, top = max(right, x_ticks[-1]), max(top, y_ticks[-1])

    def at(step: float, loss: float) -> tuple[float, float]:
        x = _LEFT + step / right * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - loss / top * (_HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            f'width="{_WIDTH}" height="{_HEIGHT}" role="img" font-family="sans-serif" '
            f'font-size="12" fill="{_INK}">'
        ),
        f"<title>{escape(title)}</title>",
    ]
    for tick in y_ticks:
        x, y = at(0, tick)
        parts.append(f'<path d="M{x} {y}H{_WIDTH - _RIGHT}" stroke="{_GRID}"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x, y = at(tick, 0)
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{tick:g}</text>')
    x, y = at(0, 0)
    parts.append(f'<path d="M{x} {_TOP}V{y}H{_WIDTH - _RIGHT}" fill="none" stroke="{_INK}"/>')
    parts += _labels()
    for position, (name, line) in enumerate(lines.items()):
        parts += _line(name, [at(*point) for point in line], position)
    return "\n".join([*parts, "</svg>", ""])


def _labels() -> list[str]:
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    return [
        f'<text x="{middle_x}" y="{_HEIGHT - 10}" text-anchor="middle">optimizer step</text>',
        (
            f'<text transform="translate(18 {middle_y}) rotate(-90)" text-anchor="middle">'
            "loss (nats per answer token)</text>"
        ),
    ]


def _line(name: str, points: Points, position: int) -> list[str]:
    """Return a polyline with its entry in the legend; validation has its points marked."""
    colour, x = _COLOURS[name], _LEFT + 16 + position * 110
    path = " ".join(f"{px},{py}" for px, py in points)
    parts = [
        f'<path d="M{x} 20h22" stroke="{colour}" stroke-width="2"/>',
        f'<text x="{x + 28}" y="24">{name}</text>',
        (
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            'stroke-linejoin="round"/>'
        ),
    ]
    if name == "validation":
        parts += [f'<circle cx="{px}" cy="{py}" r="3" fill="{colour}"/>' for px, py in points]
    return parts


def _finite(points: Points) -> Points:
    return [(step, loss) for step, loss in points if math.isfinite(step) and math.isfinite(loss)]


def _ticks(top: float) -> list[float]:
    """Return 0 and up to six round values, the last at or above `top`."""
    rough = top / 5
    power: float = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [round(step * i, 10) for i in range(math.ceil(top / step - 1e-9) + 1)]
