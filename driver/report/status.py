"""`driver status`: the last run, or the one under way, from its folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from contracts import files
from contracts.stage import Event
from driver import locks
from driver.report.console import WrittenConsole
from driver.report.display import duration, progress
from driver.store import Run
from driver.window import Window


def show(workspace: Path) -> int:
    """Print the newest run's stages and return 0; also where there is no run yet.

    Raises `RunUnreadable` where the run's own notes are damaged.
    """
    console = WrittenConsole(highlight=False, soft_wrap=True)
    if Window(workspace, None).is_open:
        console.print("[yellow]! the service is stopped for the GPU window[/yellow]")
    run = Run.last(workspace)
    if run is None:
        console.print(f"There is no run in {escape(str(workspace))} yet.")
        return 0
    state = run.read_state()
    alive = locks.is_held(workspace)
    table = Table("stage", "state", "time", "result", title=f"Run {run.id}", title_justify="left")
    for name, noted in state.stages.items():
        shown = noted.state
        if shown == "running" and not alive:
            shown = "interrupted"
        text = noted.summary or noted.error or noted.reason
        if shown == "running":
            text = _last_progress(run, name) or text
        took = duration(noted.seconds) if noted.seconds else ""
        table.add_row(escape(name), escape(shown), took, escape(text))
    console.print(table)
    for drift in state.accepted_drift:
        console.print(f"[yellow]! accepted (--accept-drift): {escape(drift)}[/yellow]")
    console.print(f"Run folder: {escape(str(run.folder))}")
    return 0


def _last_progress(run: Run, stage: str) -> str:
    """Return the newest progress of a stage, "" when it has told none."""
    try:
        text = files.read_bytes(run.folder / "events.jsonl").decode(errors="replace")
    except OSError:
        return ""
    for line in reversed(text.splitlines()):
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            continue  # the line that is being written
        if event.stage == stage:
            return progress(event)
    return ""
