"""`driver reprocess`: how far it is, by its files, and what a restoration would change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from contracts.errors import InputMissing
from driver import locks
from driver.host_stages.reanalysis import Outcome, Row
from driver.host_stages.record import Record
from driver.report.console import WrittenConsole
from driver.report.display import duration
from driver.restoration import Difference, Standing, count

_PACE_OVER = 100
"""Items over which the pace is taken: the last ones say most about the next."""
_DONE = Outcome.PROCESSED
_SHOWN, _WIDTH = 10, 60


def status(workspace: Path) -> int:
    """Print how far the last reprocess is, and why items failed; changes and asks nothing."""
    console = WrittenConsole(highlight=False, soft_wrap=True)
    try:
        record = Record.find(workspace)
    except InputMissing:
        console.print(f"There is no reprocess in {escape(str(workspace))} yet.")
        return 0
    about, lines = record.about(), record.lines()
    last = {line["id"]: line for line in lines if "outcome" in line}
    begun = {line["id"] for line in lines if "until" in line}
    console.print(f"Reprocess of run {escape(about.runs[0])}, {escape(about.backend)}")
    console.print(_progress(workspace, len(last), about.items, lines))
    table = Table("outcome", "items", "reason")
    told = Counter((line["outcome"], line["reason"]) for line in last.values())
    for (outcome, reason), number in sorted(told.items(), key=lambda each: (each[0][0], -each[1])):
        table.add_row(outcome, str(number), escape(reason))
    if under_way := _open(lines):
        table.add_row("under way", str(under_way), "asked about; the outcome is not known yet")
    if begun or last:
        console.print(table)
    if about.restored_at:
        console.print(
            f"The items were given back what they had before, {escape(about.restored_at)}."
        )
    console.print(f"Folder: {escape(str(record.folder))}")
    return 0


def _open(lines: Sequence[Row]) -> int:
    asked: set[str] = set()
    for line in lines:
        if "until" in line:
            asked.add(line["id"])
        elif "outcome" in line:
            asked.discard(line["id"])
    return len(asked)


def _progress(workspace: Path, done: int, items: int, lines: Sequence[Row]) -> str:
    told = f"{done} of {items} items"
    if lines and "finished" in lines[-1]:
        return f"{told}, finished"
    if lines and "due" in lines[-1]:
        return f"{told}, all due again: {escape(str(lines[-1]['due']))}"
    if not locks.is_held(workspace):
        return f"{told}, interrupted: `driver reprocess`, or `driver run`, goes on"
    times = [line["at"] for line in lines if line.get("outcome") == _DONE and "at" in line]
    recent = times[-_PACE_OVER:]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return f"{told}, under way"
    pace_s = (recent[-1] - recent[0]) / (len(recent) - 1)
    return f"{told}, under way, {duration(pace_s * max(items - done, 0))} left"


def differences(found: Sequence[Difference], writable: set[str]) -> None:
    """Print what differs from before, by item and field, and what of it can be written back."""
    console = WrittenConsole(highlight=False, soft_wrap=True)
    for standing, number in count(found).items():
        console.print(f"{number:6} items: {standing}{escape(_which(found, standing))}")
    due = [each for each in found if each.standing is Standing.DIFFERS]
    if not due:
        console.print("There is nothing to give back.")
        return
    table = Table("item", "field", "before", "now")
    for each in due[:_SHOWN]:
        for name, value in each.before.items():
            table.add_row(escape(each.item_id), escape(name), _short(value), _short(each.now[name]))
    console.print(table)
    if len(due) > _SHOWN:
        console.print(f"… and {len(due) - _SHOWN} more items; --out FILE writes all of them")
    if writable:
        console.print(f"The backend lets these be written: {escape(', '.join(sorted(writable)))}.")
    else:
        console.print(
            "The backend's API has no way to write items: by its /openapi.json it knows neither "
            "PATCH nor PUT /api/items/{item_id} with any of these fields."
        )


def _which(found: Sequence[Difference], standing: Standing) -> str:
    """Return the ids of the first items that are not given back although they differ."""
    if standing not in {Standing.REVIEWED, Standing.CHANGED}:
        return ""
    ids = [each.item_id for each in found if each.standing is standing]
    return f" ({', '.join(ids[:_SHOWN])}{', …' if len(ids) > _SHOWN else ''})"


def _short(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…")
