"""The frame of a page for people: one file, no network, light and dark, narrow and wide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


class Cell(str):
    """A table cell that is markup already; a plain string is escaped."""

    __slots__ = ()


def page(title: str, body: str) -> str:
    """Return a whole page; `body` is markup, `title` is not."""
    style = (resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    return _PAGE.format(title=escape(title), body=body, style=style)


def section(key: str, heading: str, body: str) -> str:
    """Return a section that can be linked to as `#key`; "" where there is nothing to say."""
    if not body:
        return ""
    return f'<section id="{escape(key)}"><h2>{escape(heading)}</h2>\n{body}</section>\n'


def folded(summary: str, body: str) -> str:
    """Return what is shown when its summary is clicked; "" without a body."""
    if not body:
        return ""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """Return a table. Numbers stand to the right, whole ones without a point.

    One that is wider than the screen is scrolled by itself.
    """
    shown = list(rows)
    numeric = [
        bool(shown) and all(not isinstance(row[place], str) for row in shown)
        for place in range(len(head))
    ]
    heads = "".join(
        f'<th scope="col"{" class=number" if number else ""}>{escape(each)}'
        for each, number in zip(head, numeric, strict=True)
    )
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in shown)
    return f'<div class="scroll" tabindex="0"><table><tr>{heads}</tr>\n{lines}</table></div>'


def meter(share: float) -> Cell:
    """Return a bar for a share of 1."""
    return Cell(f'<meter min="0" max="1" value="{share:.3f}">{share:.0%}</meter>')


def _cell(value: str | float) -> str:
    if isinstance(value, Cell):
        return f"<td>{value}"
    if isinstance(value, str):
        return f"<td>{escape(value)}"
    return (
        f'<td class="number">{value:,}'
        if isinstance(value, int)
        else (f'<td class="number">{value:.3f}')
    )
