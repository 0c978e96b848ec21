"""Markdown tables, and the sections that the documents of a task share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from driver.task.source import Source


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; what would end a cell is written so that it does not."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell(each) for each in line)} |" for line in lines)


def cell(text: str) -> str:
    """Return a text on one line that holds no markup but its own code."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def choices(source: Source) -> list[str]:
    """Return a heading, a sentence and a table for each enum of an answer."""
    parts = []
    for name, shape in source.choices.items():
        rows = [(f"`{choice.value}`", choice.meaning) for choice in shape.choices]
        parts += [f"## {name}", cell(shape.about), table(("value", "meaning"), rows)]
    return parts
