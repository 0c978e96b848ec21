"""`driver label --preview N`, from the rows that are chosen to the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from contracts import files
from contracts.errors import SettingsInvalid
from driver import locks
from driver.preview.comparison import preview
from driver.report import preview as shown
from driver.report.display import LastingConsole
from driver.task.diff import since_when

if TYPE_CHECKING:
    from driver.session import Session


def show(session: Session, count: int, since: str, out: Path | None) -> int:
    """Print both answers of each row where they differ, and write the page with all of them."""
    if count < 1:
        raise SettingsInvalid("--preview takes a number of rows, from 1 on")
    console, path = LastingConsole(highlight=False, soft_wrap=True), out or Path("preview.html")
    with locks.workspace(session.workspace):
        found = preview(
            session,
            count,
            since_when(session, since),
            lambda task, done, total: console.say(f"the task {task}: asked {done} of {total}"),
        )
    shown.show(found, console)
    files.write_text(path, shown.markup(found, session.task))
    console.say(f"{path} shows every field, with what differs marked.")
    return 0
