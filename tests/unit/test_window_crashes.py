"""The service window's state machine: whatever dies at whichever step, it all comes back."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import files
from contracts.errors import BackendUnavailable, WindowOpen
from driver import window_return
from driver.settings import BackendSettings, ComposeSettings
from driver.window import Window
from driver.window_record import RECORD_FILE
from tests.unit.window_world import MODEL, Crash, Outside, stop_other

BACKEND = BackendSettings(url="http://127.0.0.1:9", container="news")
COMPOSE = BACKEND.model_copy(
    update={"compose": ComposeSettings(folder=Path("/srv/news"), service="backend")}
)
_OPERATIONS = st.lists(
    st.sampled_from(
        ["open", "open beside", "free", "stop other", "close", "renew", "comes up", "other too"]
    ),
    max_size=7,
)


def operate(opened: Window, outside: Outside, operation: str) -> None:
    """Do what a run does with a window, or what the world does to it."""
    if operation == "open":
        opened.open()
    elif operation == "open beside":
        opened.open(stop=False)
    elif operation == "free" and opened.is_open and opened.record().backend:  # the GPU lease
        outside.models = ()
    elif operation == "stop other":
        stop_other(opened, outside)
    elif operation == "close":
        opened.close()
    elif operation == "renew":
        opened.close(renew=True)
    elif operation == "comes up" and opened.is_open and opened.record().backend:
        outside.come_up()
    elif operation == "other too" and opened.is_open and opened.record().others:
        outside.other_starts += outside.other != "running"
        outside.other = "running"


@contextlib.contextmanager
def _workspace(outside: Outside) -> Iterator[Path]:
    """Yield a folder; each file that is written there is a step before and one after."""
    really_write = files.write_json

    def write_json(path: Path, value: Any, mode: int) -> None:
        outside.step()
        really_write(path, value, mode)
        outside.step()

    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(files, "write_json", write_json),
        mock.patch.object(window_return, "_ASK_PAUSE_S", 0),
    ):
        yield Path(name)


@settings(max_examples=900, deadline=None)
@given(
    running=st.booleans(),
    llm=st.booleans(),
    forgets=st.booleans(),
    models=st.sampled_from([(), (MODEL,)]),
    other=st.sampled_from([None, "running", "exited"]),
    backend=st.sampled_from([BACKEND, COMPOSE, None]),
    mute=st.integers(0, 7),
    restarts=st.integers(0, 2),
    away=st.booleans(),
    operations=_OPERATIONS,
    crashes=st.lists(st.integers(0, 30), max_size=3),
)
def test_after_any_crash_recovery_restores_what_was_and_nothing_else(
    *,
    running: bool,
    llm: bool,
    forgets: bool,
    models: Any,
    other: str | None,
    backend: BackendSettings | None,
    mute: int,
    restarts: int,
    away: bool,
    operations: list[str],
    crashes: list[int],
) -> None:
    """The driver dies at any step, and so does what recovers, up to twice; then one gets through.

    A stop that was begun goes on without it, and ends when all is over if nobody waits for it. The
    backend may not say how its LLM is switched, and be restarted by its engine as it comes up. The
    other container's engine may be away until the last recovery: the backend is back before.

    A backend that was not running is none of ours, nor are models that nobody unloads for it, nor
    is another container that did not run when the GPU was wanted.
    """
    outside = Outside(running=running, llm=llm, forgets_switch=forgets, models=models, other=other)
    outside.mute, outside.restarts_while_asked = mute, restarts
    unknown = refused = False
    with _workspace(outside) as folder:
        opened = Window(folder, backend, "http://ollama", outside)
        for attempt, crash in enumerate([*crashes, None]):
            outside.crash_in = crash
            try:
                if attempt == 0:
                    for operation in operations:
                        operate(opened, outside, operation)
            except Crash:
                continue
            except BackendUnavailable:  # the run ends by it, in order
                refused = True
            finally:
                unknown = unknown or any("does not say" in each for each in opened.warnings)
            outside.other_away = away and crash is not None
            try:
                Window(folder, None, world=outside).close()
            except Crash:
                continue
            except WindowOpen:
                outside.settle()
                assert outside.other_away
                assert outside.running is running
        assert not (folder / RECORD_FILE).exists()
    outside.settle()
    assert not refused or mute >= 5
    assert outside.running is running
    assert outside.llm is llm or (unknown and forgets)
    assert outside.models == models
    assert outside.other == other
