"""Small pieces of SVG that belong into a page: text in the page's font, colours of its theme.

A picture is fluid where its places are shares of its width, given in percent: it then fills any
screen, and its text and strokes keep their size. Colours are classes or `currentColor`, which
page.py sets for light and for dark.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def picture(
    parts: Iterable[str], *, title: str, text: str, height: float, width: float | None = None
) -> str:
    """Return a picture, described for those who do not see it.

    `width` in the units of its places scales it as a whole; without one it is fluid.
    """
    size = f'viewBox="0 0 {width:g} {height:g}"' if width else f'width="100%" height="{height:g}"'
    return (
        f'<svg {size} role="img"><title>{escape(title)}</title><desc>{escape(text)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def line(x1: str | float, y1: float, x2: str | float, y2: float, kind: str) -> str:
    """Return a line; `kind` is its class."""
    return (
        f'<line x1="{_at(x1)}" y1="{_at(y1)}" x2="{_at(x2)}" y2="{_at(y2)}" '
        f'class="{escape(kind)}"/>'
    )


def bar(x: str | float, y: float, width: str | float, height: float, kind: str) -> str:
    """Return a filled rectangle."""
    return (
        f'<rect x="{_at(x)}" y="{_at(y)}" width="{_at(width)}" height="{_at(height)}" '
        f'class="{escape(kind)}"/>'
    )


def dot(x: str | float, y: float, radius: float, kind: str) -> str:
    """Return a circle."""
    return f'<circle cx="{_at(x)}" cy="{_at(y)}" r="{_at(radius)}" class="{escape(kind)}"/>'


def words(x: str | float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    """Return a text whose baseline is at y."""
    return (
        f'<text x="{_at(x)}" y="{_at(y)}" text-anchor="{anchor}" class="{escape(kind)}">'
        f"{escape(text)}</text>"
    )


def path(points: Iterable[tuple[float, float]], kind: str) -> str:
    """Return a line through points."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" class="{escape(kind)}"/>'


def percent(share: float) -> str:
    """Return a place in a fluid picture."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def _at(place: str | float) -> str:
    return place if isinstance(place, str) else f"{place:.1f}".removesuffix(".0")
