"""The versions of the served model, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driver.versions import Version

_SHOWN_SCORES = 4


def show(found: Sequence[Version], name: str) -> None:
    """Print the versions, the newest first."""
    console = Console()
    if not found:
        console.print(f"There is no version of {escape(name)} in the serving engine yet.")
        return
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
    console.print(table)


def _figures(found: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{measure} {value:.2f}" for measure, value in found)


def _state(version: Version) -> str:
    told = [
        "live" if version.live else "",
        "taken back" if version.rejected else "",
        f"forced: {version.forced}" if version.forced else "",
    ]
    return ", ".join(each for each in told if each)
