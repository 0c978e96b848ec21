"""What a person sees while it runs: the plan, a bar for the stage at work, and the end."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from contracts.errors import RetrainError
from contracts.stage import Event, Result, Stage
from driver.plan import Action, Step
from driver.report.console import WrittenConsole
from driver.store import Run

_QUIET_INTERVAL_S, _LONGEST_INTERVAL_S = 10.0, 60.0
"""Without a terminal: seconds between two lines about a stage, of a short one and of a long one,
whether there is progress or not."""
_POLL_S = 1.0
_NAME_WIDTH = 9


class _Telling:
    """A stream that tells of a terminal that is gone (EIO) as of a reader that is."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _as_broken_pipe():
            return self._stream.write(text)

    def flush(self) -> None:
        with _as_broken_pipe():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _as_broken_pipe() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise BrokenPipeError(errno.EPIPE, "the terminal is gone") from error


class LastingConsole(WrittenConsole):
    """A console that outlives its reader: a run goes on, and says nothing more.

    Behind `| head`, say, or in a terminal that was closed.
    """

    @property
    def file(self) -> IO[str]:
        """Where it writes."""
        return cast("IO[str]", _Telling(super().file))

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    def say(self, line: str) -> None:
        """Print a line as it is; where that fails (a full disk, say), nothing any more."""
        try:
            self.print(line, markup=False)
            self.file.flush()
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on; also what Python itself flushes at the end."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


class Display:
    """A live bar on a terminal; elsewhere plain lines, every ten seconds, later every minute."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or LastingConsole(highlight=False, soft_wrap=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description:<9}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[metrics]}"),
            console=self.console,
            transient=True,
        )
        self._task: Any = None
        self._started = 0.0
        self._said = 0.0
        self._first: tuple[float, float] | None = None
        """When the stage first told how far it was, and how far: loading is no part of its pace."""
        self._event: Event | None = None
        self._heard = 0.0
        """When the last event came."""
        self._ended = threading.Event()
        """Tells the thread of the stage at work that it is no longer."""
        self._saying = threading.Lock()

    # --- before and after ------------------------------------------------------------------------
    def nothing_to_do(self, plan: list[Step], last: Run | None) -> None:
        """Say that every result is there."""
        self.console.print(f"Nothing has changed: all {len(plan)} stages are reused, nothing ran.")
        if last:
            self.console.print(f"The last run is {escape(str(last.folder))}")

    def begin(self, plan: list[Step], run: Run) -> None:
        """Show what will run, and why."""
        running = sum(step.action is Action.RUN for step in plan)
        self.console.print(f"[bold]Run {run.id}[/bold]: {running} of {len(plan)} stages to run")

    def note(self, text: str) -> None:
        """Show something worth knowing before it happens."""
        self.console.print(f"[dim]{escape(text)}[/dim]")

    def warn(self, text: str) -> None:
        """Show something that does not stop the run."""
        self.console.print(f"[yellow]! {escape(text)}[/yellow]")

    # --- one stage -------------------------------------------------------------------------------
    def reused(self, step: Step) -> None:
        """Show a stage that is taken as it is."""
        self._line("=", step.stage.name, "", f"reused: {escape(step.reason)}", style="dim")

    def started(self, step: Step) -> None:
        """Begin the bar of a stage."""
        self._clear()  # of an attempt that failed
        self._first = self._event = None
        self._started = self._said = self._heard = time.monotonic()
        self._line(">", step.stage.name, "", escape(step.reason))
        if self.console.is_terminal:
            self._task = self._bar.add_task(step.stage.name, total=None, unit="", metrics="")
            self._bar.start()
        else:
            self._ended = threading.Event()
            at_work = (step.stage.name, self._ended)
            threading.Thread(target=self._keep_saying, args=at_work, daemon=True).start()

    def event(self, event: Event) -> None:
        """Move the bar."""
        self._first = self._first or (time.monotonic(), event.done)
        if self._task is not None:
            self._bar.update(
                self._task,
                completed=event.done,
                total=event.total,
                unit=escape(event.unit),
                metrics=escape(_metrics(event)),
            )
            return
        self._event, self._heard = event, time.monotonic()
        self._say_if_due(event.stage, self._ended)

    def _keep_saying(self, stage: str, ended: threading.Event) -> None:
        """Say how far a stage is while it tells nothing: a request can take minutes."""
        while not ended.wait(_POLL_S):
            self._say_if_due(stage, ended)

    def _say_if_due(self, stage: str, ended: threading.Event) -> None:
        with self._saying:
            if ended.is_set():
                return
            now = time.monotonic()
            interval_s = (now - self._started) / 10
            interval_s = min(max(interval_s, _QUIET_INTERVAL_S), _LONGEST_INTERVAL_S)
            if now - self._said < interval_s:
                return
            text = "at work"
            if (event := self._event) is not None:
                text = f"{progress(event)}{self._eta(event)}  {_metrics(event)}".rstrip()
            if self._heard < self._said:
                text += f", nothing new for {duration(now - self._heard)}"
            self._said = now
            self._line(" ", stage, self._elapsed(), escape(text))

    def finished(self, step: Step, result: Result, summary: str) -> None:
        """End the bar with the stage's result."""
        self._clear()
        self._line("+", step.stage.name, duration(result.seconds), escape(summary), style="green")

    def failed(self, stage: Stage) -> None:
        """End the bar of a stage that failed; the error itself comes last of all."""
        self._clear()
        self._line("x", stage.name, self._elapsed(), "failed", style="red")

    # --- the end ---------------------------------------------------------------------------------
    def end(
        self,
        state: Mapping[str, Mapping[str, Any]],
        results: Mapping[str, Result],
        run: Run,
        report: Path | None,
        seconds: float,
    ) -> None:
        """Show the table, the canary's answer, and where everything lies."""
        table = Table("stage", "time", "result", title=f"Run {run.id}", title_justify="left")
        for name, facts in state.items():
            took = "reused" if facts.get("state") == "reused" else duration(facts.get("seconds", 0))
            table.add_row(name, took, escape(str(facts.get("summary", facts.get("reason", "")))))
        self.console.print()
        self.console.print(table)
        if answer := results["verify"].metrics.get("answer"):
            self.console.print("\nThe model's answer to the canary (validated):")
            self.console.out(json.dumps(answer, ensure_ascii=False, indent=2), highlight=False)
        where = f" Report: {escape(str(report))}" if report else ""
        self.console.print(f"\nDone in {duration(seconds)}.{where}")
        self.console.print(f"Run folder: {escape(str(run.folder))}")

    # --- details ---------------------------------------------------------------------------------
    def _clear(self) -> None:
        with self._saying:  # so that no line of its thread comes later
            self._ended.set()
        if self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None

    def _line(self, mark: str, name: str, took: str, text: str, style: str = "") -> None:
        self.console.print(f"{mark} {name:<{_NAME_WIDTH}} {took:>7}  {text}", style=style)

    def _elapsed(self) -> str:
        if not self._started:  # it failed before it began
            return ""
        return duration(time.monotonic() - self._started)

    def _eta(self, event: Event) -> str:
        """Return the time left at the stage's average pace since its first word."""
        if not event.total or not self._first or event.done <= self._first[1]:
            return ""
        pace = (time.monotonic() - self._first[0]) / (event.done - self._first[1])
        return f", {duration(pace * (event.total - event.done))} left"


def _metrics(event: Event) -> str:
    return "  ".join(f"{name} {_short(value)}" for name, value in event.metrics.items())


def progress(event: Event) -> str:
    """Return how far a stage is, in words."""
    if not event.total:
        return f"{_short(event.done)} {event.unit}"
    return f"{_short(event.done)}/{_short(event.total)} {event.unit}"


def duration(seconds: float) -> str:
    """Return a time as people say it: 0.4 s, 12 s, 3 min 20 s, 1 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plan_table(plan: list[Step], console: Console) -> None:
    """Show what a run would do about each stage, and why."""
    table = Table("stage", "action", "why")
    for step in plan:
        style = "bold" if step.action is Action.RUN else "dim"
        table.add_row(step.stage.name, step.action, escape(step.reason), style=style)
    console.print(table)


def complain(error: RetrainError, raised: BaseException | None = None) -> None:
    """Show a failure on stderr: what broke, why, what to do.

    What failed before it comes first: a stage, after which the service did not come back either.
    `raised` is what was raised, where that is another exception than the one to show.
    """
    console = LastingConsole(stderr=True, highlight=False, soft_wrap=True, file=sys.stderr)
    for earlier in _before(raised or error, set()):
        console.print(f"[bold red]first[/bold red] {escape(str(earlier))}")
    console.print(f"[bold red]error[/bold red] {escape(str(error))}")


def _before(error: BaseException, seen: set[int]) -> Iterator[RetrainError]:
    """Yield the failures behind an exception, the first one first, and each once.

    Not those whose words it repeats, as its cause.
    """
    seen.add(id(error))
    for each in (error.__cause__, error.__context__):
        if each is None or id(each) in seen:
            continue
        yield from _before(each, seen)
        wrapped = each is error.__cause__
        if isinstance(each, RetrainError) and not (wrapped and each.what in str(error)):
            yield each


def _short(value: float | str) -> str:
    return (
        value
        if isinstance(value, str)
        else f"{value:.4g}"
        if abs(value) < 10_000
        else f"{value:,.0f}"
    )
