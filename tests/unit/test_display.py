"""Without a terminal: a stage that tells nothing for a while is still spoken of."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from contracts import files
from contracts.stage import Event, Result
from contracts.stages import EVALUATE
from driver.plan import Action, Request, Step
from driver.report import display as display_module
from driver.report.display import Display, LastingConsole

STEP = Step(Request(EVALUATE, {}, {}, "", "", ""), Action.RUN, "gguf has changed")
RESULT = Result(
    stage="evaluate", fingerprint="f", outputs={}, metrics={}, seconds=1, finished_at="2026-01-01"
)


def answered(done: int) -> Event:
    return Event(stage="evaluate", done=done, total=30, unit="items", metrics={"valid": done})


@pytest.fixture
def text() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def display(text: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Display:
    monkeypatch.setattr(display_module, "_POLL_S", 0.01)
    monkeypatch.setattr(display_module, "_QUIET_INTERVAL_S", 0.05)
    return Display(Console(file=text, highlight=False, soft_wrap=True))


def wait_for(words: str, text: io.StringIO) -> str:
    """Return the first line with these words."""
    deadline = time.monotonic() + 20
    while words not in text.getvalue():
        assert time.monotonic() < deadline, text.getvalue()
        time.sleep(0.01)
    return next(line for line in text.getvalue().splitlines() if words in line)


def test_a_stage_that_has_told_nothing_yet_is_at_work(display: Display, text: io.StringIO) -> None:
    display.started(STEP)
    assert "evaluate" in wait_for("at work", text)
    display.failed(EVALUATE)


def test_silence_is_named_with_what_was_told_last(display: Display, text: io.StringIO) -> None:
    display.started(STEP)
    display.event(answered(0))
    assert "0/30 items  valid 0" in wait_for("nothing new for", text)
    display.event(answered(3))
    assert "valid 3" in wait_for("3/30 items", text)
    display.finished(STEP, RESULT, "3 of 30")


def test_after_the_stage_nothing_more_is_said(display: Display, text: io.StringIO) -> None:
    before = threading.active_count()
    display.started(STEP)
    display.started(STEP)  # tried again
    display.finished(STEP, RESULT, "3 of 30")
    deadline = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert text.getvalue().splitlines()[-1].startswith("+ evaluate")


def test_a_reader_that_went_away_does_not_end_the_run() -> None:
    """As behind `| head`; in a process of its own, since what Python flushes at its end counts."""
    script = """
from driver.report.display import Display, complain
from contracts.errors import StageFailed
import sys
shown = Display()
sys.stdin.read()
for line in range(2):
    shown.note("x" * 10_000)
complain(StageFailed("train broke"))
sys.exit(20)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=files.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert run.stdin
        assert run.stdout
        assert run.stderr
        run.stdout.close()
        run.stdin.close()
        said = run.stderr.read().decode()
    assert (run.returncode, said.splitlines()[0]) == (20, "error train broke")


def test_lines_become_rarer(
    display: Display, text: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display_module, "_POLL_S", 60)  # only events speak
    display.started(STEP)
    display._started -= 300  # an interval of 30 s
    lines = len(text.getvalue().splitlines())
    for done in range(5):
        display.event(answered(done))
    assert len(text.getvalue().splitlines()) == lines
    display._said -= 31
    display.event(answered(5))
    assert "5/30 items" in text.getvalue().splitlines()[-1]
    display.failed(EVALUATE)


def test_a_terminal_that_is_gone_is_a_reader_that_is_gone() -> None:
    """Its other end closed, each write fails with EIO; the run goes on and says nothing more."""
    ours, theirs = pty.openpty()
    os.close(ours)
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        console = LastingConsole(file=terminal)
        console.print("one")
        console.print("two")
        assert console.quiet
