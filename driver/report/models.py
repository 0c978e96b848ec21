"""The versions of the served model, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driver.versions import Version
from serving.engine import full_tag

_SHOWN_SCORES = 4


def show(found: Sequence[Version], name: str, live: str) -> None:
    """Print the versions, the newest first; `live` is the digest that the alias names, or ""."""
    console = Console()
    if found:
        console.print(_table(found, name))
    else:
        console.print(f"There is no version of {escape(name)} in the serving engine yet.")
    if live and not any(each.live for each in found):
        console.print(
            f"Live is none of these: {escape(full_tag(name))} names digest {escape(live[:12])}, "
            "which is no version here. `driver rollback` goes back, and keeps it a name."
        )


def _table(found: Sequence[Version], name: str) -> Table:
    heads = ("version", "", "GB", "digest", "scores", "errors (less is better)")
    table = Table(*heads, title=escape(name), title_justify="left")
    for each in found:
        table.add_row(
            escape(each.tag),
            escape(_state(each)),
            f"{each.size_bytes / 1e9:.2f}",
            each.digest[:12],
            escape(_figures(list(each.scores.items())[:_SHOWN_SCORES])) or "not known here",
            escape(_figures(each.errors.items())),
        )
    return table


def _figures(found: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{measure} {value:.2f}" for measure, value in found)


def _state(version: Version) -> str:
    told = [
        "live" if version.live else "",
        "taken back" if version.rejected else "",
        f"forced: {version.forced}" if version.forced else "",
    ]
    return ", ".join(each for each in told if each)
