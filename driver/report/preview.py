"""The preview of an edit for people: both answers side by side, on the terminal and as a page."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

from rich.markup import escape as plain
from rich.table import Table

from driver.preview.comparison import Compared, Preview
from driver.preview.sides import Told
from driver.report.display import LastingConsole
from driver.report.page import Cell, page, table
from tasks.definition import Task

_EXCERPT = 300
"""Characters of an item's text that tell a person which one it is."""
_PIECE = re.compile(r"\s+|\w+|[^\w\s]")


def summary(found: Preview) -> str:
    """Return in one line how much differs."""
    count = len(found.rows)
    apart = sum(any(each.differs(name) for name in found.fields) for each in found.rows)
    broken = [sum(bool(side(each).broken) for each in found.rows) for side in (_old, _new)]
    return (
        f"{count} rows, {apart} with different answers; {broken[0]} broke a rule, {broken[1]} do "
        f"now. The teacher was asked {found.asked} times; no label was changed."
    )


def show(found: Preview, console: LastingConsole) -> None:
    """Print what differs: a table for each row on a terminal, lines with tabs elsewhere."""
    for each in found.rows:
        lines = list(_lines(found, each))
        title = f"{each.row.item.id} ({each.row.why})"
        if not console.is_terminal:
            for name, old, new in lines or [("the same", "", "")]:
                _say(console, "\t".join(" ".join(x.split()) for x in (title, name, old, new)))
            continue
        shown = Table(title=plain(title), title_justify="left", title_style="bold")
        shown.add_column("", no_wrap=True)
        shown.add_column(plain(found.since), ratio=1)
        shown.add_column("now", ratio=1)
        for name, old, new in lines or [("the same", "", "")]:
            style = "red" if name == "breaks" else "yellow" if name == "warned of" else None
            shown.add_row(plain(name), plain(old), plain(new), style=style)
        console.print(shown, soft_wrap=False)
    console.say(summary(found))


def markup(found: Preview, task: Task) -> str:
    """Return the page: every field of every row, with what differs marked."""
    counted = "".join(_row(found, each, task) for each in found.rows)
    heading = f"{task.name} {found.since} and now"
    return page(
        "Preview of an edit", f"<p>{escape(heading)}. {escape(summary(found))}</p>{counted}"
    )


def _say(console: LastingConsole, line: str) -> None:
    """Write a line as it is: rich would turn its tabs into blanks."""
    try:
        console.file.write(f"{line}\n")
    except OSError:
        console.on_broken_pipe()


def _old(row: Compared) -> Told:
    return row.old


def _new(row: Compared) -> Told:
    return row.new


def _lines(found: Preview, row: Compared) -> Iterator[tuple[str, str, str]]:
    """Yield the fields that differ, and what is wrong with either answer."""
    for name in found.fields:
        if row.differs(name):
            yield name, _value(row.old, name), _value(row.new, name)
    yield from _faults(row)


def _faults(row: Compared) -> Iterator[tuple[str, str, str]]:
    for name, old, new in (
        ("breaks", row.old.broken, row.new.broken),
        ("warned of", row.old.warnings, row.new.warnings),
    ):
        if old or new:
            yield name, "; ".join(old), "; ".join(new)


def _value(told: Told, name: str) -> str:
    if told.fields is None:
        return told.text
    if name not in told.fields:
        return "–"
    value: Any = told.fields[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(found: Preview, row: Compared, task: Task) -> str:
    rows = []
    for name in found.fields:
        old, new = _value(row.old, name), _value(row.new, name)
        if row.differs(name):
            rows.append((f"{name} ≠", *_marked(old, new)))
        else:
            rows.append((name, Cell(escape(old)), Cell(escape(new))))
    rows += [(f"{name} ✗", Cell(escape(o)), Cell(escape(n))) for name, o, n in _faults(row)]
    opened = " open" if any(_lines(found, row)) else ""
    return (
        f"<details{opened}><summary><b>{escape(row.row.item.id)}</b>: {escape(row.row.why)}"
        f"</summary><p>{escape(task.text_of(row.row.item)[:_EXCERPT])} …</p>"
        f"{table(('', found.since, 'now'), rows)}</details>"
    )


def _marked(old: str, new: str) -> tuple[Cell, Cell]:
    """Return two texts with the words marked that the other one does not have."""
    then, now = _PIECE.findall(old), _PIECE.findall(new)
    sides = ([], [])  # type: tuple[list[str], list[str]]
    for kind, i, j, k, m in difflib.SequenceMatcher(None, then, now, autojunk=False).get_opcodes():
        for side, pieces in ((0, then[i:j]), (1, now[k:m])):
            text = escape("".join(pieces))
            sides[side].append(text if kind == "equal" or not text else f"<mark>{text}</mark>")
    return Cell("".join(sides[0])), Cell("".join(sides[1]))
