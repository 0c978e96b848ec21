"""The frame of a page for people: one file, no network, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100%; margin-bottom: 1rem }}
th, td {{ text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #8884;
  vertical-align: top }}
td.number {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }}
tr.reused {{ opacity: .65 }}
meter {{ width: 10rem }}
pre {{ white-space: pre-wrap; background: #8881; padding: 1rem; border-radius: .4rem }}
details {{ margin: .4rem 0 }}
svg {{ max-width: 100%; height: auto }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


class Cell(str):
    """A table cell that is markup already; a plain string is escaped."""

    __slots__ = ()


def page(title: str, body: str) -> str:
    """Return a whole page; `body` is markup, `title` is not."""
    return _PAGE.format(title=escape(title), body=body)


def table(head: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """Return a table. Numbers stand to the right, whole ones without a point."""
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f"<table><tr><th>{'<th>'.join(map(escape, head))}</tr>\n{lines}</table>"


def meter(share: float) -> Cell:
    """Return a bar for a share of 1."""
    return Cell(f'<meter min="0" max="1" value="{share:.3f}"></meter>')


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
