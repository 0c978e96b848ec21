"""What texts are printed with."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class WrittenConsole(Console):
    """A console that shows texts as they are written: `:x:` in what a user gave is no picture."""

    def __init__(self, **given: Any) -> None:
        super().__init__(emoji=False, **given)
