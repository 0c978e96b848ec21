"""The versions of the served model, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from driver.versions import Version

_SHOWN_SCORES = 4


def show(found: Sequence[Version], name: str) -> None:
    """Print the versions, the newest first."""
    console = Console()
    if not found:
        console.print(f"There is no version of {name} in the serving engine yet.")
        return
    table = Table("version", "", "GB", "digest", "scores", title=name, title_justify="left")
    for each in found:
        scores = list(each.scores.items())[:_SHOWN_SCORES]
        table.add_row(
            each.tag,
            _state(each),
            f"{each.size_bytes / 1e9:.2f}",
            each.digest[:12],
            ", ".join(f"{measure} {value:.2f}" for measure, value in scores) or "not known here",
        )
    console.print(table)


def _state(version: Version) -> str:
    told = [
        "live" if version.live else "",
        "taken back" if version.rejected else "",
        f"forced: {version.forced}" if version.forced else "",
    ]
    return ", ".join(each for each in told if each)
