"""How a stage ended: told apart, tried again where that can help, and ended where it hangs."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from contracts.entrypoint import tell
from contracts.errors import (
    DiskFull,
    EngineUnavailable,
    OutOfMemory,
    RetrainError,
    RowTooLong,
    StageFailed,
    StageKilled,
    StageTimedOut,
)
from contracts.stage import Event
from contracts.stages import EVALUATE, TRAIN
from driver.retry import retried
from driver.runners import watchdog as watching
from driver.runners.outcome import Limits, Listener, failure
from driver.runners.process import ProcessRunner
from driver.runners.watchdog import Watchdog

LONG = Limits(silence_s=60)


@pytest.mark.parametrize(
    ("exit_code", "memory_limit", "kind", "says"),
    [
        (137, None, StageKilled, "from outside, by SIGKILL"),
        (-9, None, StageKilled, "from outside, by SIGKILL"),
        (143, None, StageKilled, "from outside, by SIGTERM"),
        (137, 3 << 30, OutOfMemory, "its container's limit of 3.0 GiB"),
        (17, None, DiskFull, "last words"),
        (20, None, StageFailed, "last words"),
        (1, None, StageFailed, "last words"),
    ],
)
def test_an_exit_code_is_told_apart(
    exit_code: int, memory_limit: int | None, kind: type[RetrainError], says: str, tmp_path: Path
) -> None:
    log = tmp_path / "train.log"
    log.write_text("much\nlast words\n", encoding="utf-8")
    error = failure(TRAIN, exit_code, None, log, memory_limit=memory_limit)
    assert type(error) is kind
    assert says in error.why
    assert str(log) in error.todo


def test_a_figure_that_is_no_number_is_told_as_an_event(tmp_path: Path) -> None:
    heard: list[Event] = []
    said = Event(stage="train", done=1, metrics={"loss": float("nan"), "grad_norm": float("inf")})
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        Listener(TRAIN, heard.append, log).line(said.model_dump_json(exclude_none=True))
    assert repr(heard) == repr([said])


def test_what_the_stage_told_is_said(tmp_path: Path) -> None:
    told = {"what": "row 7 is too long", "why": "it has 3000 tokens", "todo": "cut it"}
    error = failure(TRAIN, RowTooLong.exit_code, told, tmp_path / "train.log")
    assert type(error) is RowTooLong
    assert (error.what, error.why) == ("stage train: row 7 is too long", "it has 3000 tokens")


class Attempts:
    """Fails with these errors, one after the other, then succeeds."""

    def __init__(self, *errors: RetrainError) -> None:
        self.errors = list(errors)
        self.made = 0

    def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_a_failure_that_may_pass_is_tried_again_with_longer_pauses() -> None:
    attempts = Attempts(StageKilled("one"), StageTimedOut("two"))
    told: list[tuple[str, float]] = []
    done = retried(attempts, 2, 0.001, lambda error, pause: told.append((error.what, pause)))
    assert done == "done"
    assert told == [("one", 0.001), ("two", 0.002)]


def test_the_last_failure_is_raised() -> None:
    attempts = Attempts(StageKilled("one"), StageKilled("two"), StageKilled("three"))
    with pytest.raises(StageKilled, match="two"):
        retried(attempts, 1, 0, lambda *_: None)
    assert attempts.made == 2


def test_an_error_that_would_repeat_is_not_tried_again_although_its_class_may_pass(
    tmp_path: Path,
) -> None:
    """As of a stage in its container: what would repeat is told with its words."""
    said: list[Event] = []
    too_old = EngineUnavailable("Ollama 0.9 is too old", passing=False)
    exit_code = tell("evaluate", too_old, said.append)
    error = failure(EVALUATE, exit_code, said[0].error, tmp_path / "log")
    assert isinstance(error, EngineUnavailable)
    attempts = Attempts(error)
    with pytest.raises(EngineUnavailable):
        retried(attempts, 5, 0, lambda *_: None)
    assert attempts.made == 1


def test_an_error_that_may_pass_stays_one_on_its_way_out_of_a_container(tmp_path: Path) -> None:
    said: list[Event] = []
    exit_code = tell("evaluate", EngineUnavailable("Ollama cannot be reached"), said.append)
    assert said[0].error is not None
    assert "passing" not in said[0].error
    assert failure(EVALUATE, exit_code, said[0].error, tmp_path / "log").passing


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_POLL_S", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(silence_s=0.05), "it said nothing for 0.05 s; asleep"),
        (Limits(silence_s=60, whole_s=0.05), "it took longer than 0.05 s; asleep"),
    ],
)
def test_a_stage_that_hangs_is_ended(limits: Limits, says: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    ended = threading.Event()

    def end() -> str:
        ended.set()
        return "; asleep"

    with (
        pytest.raises(StageTimedOut) as caught,
        Watchdog(TRAIN, limits, log, end).watching(),
    ):
        assert ended.wait(10)
    assert caught.value.why == says
    assert caught.value.passing == (limits.whole_s is None)  # too slow once is too slow again


@pytest.mark.usefixtures("quick")
def test_the_time_under_a_driver_that_has_died_counts(tmp_path: Path) -> None:
    """Without it, an hour would be left."""
    ended = threading.Event()

    def end() -> str:
        ended.set()
        return ""

    limits = Limits(silence_s=60, whole_s=7200)
    watchdog = Watchdog(TRAIN, limits, tmp_path / "log", end, age_s=7200)
    with pytest.raises(StageTimedOut, match="train was stopped"), watchdog.watching():
        assert ended.wait(10)


@pytest.mark.usefixtures("quick")
def test_events_and_log_are_signs_of_life(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    watchdog = Watchdog(TRAIN, Limits(silence_s=5), log, lambda: "")
    seen: list[Event] = []
    with watchdog.watching():
        watchdog.listening(seen.append)(Event(stage="train", done=1))
        log.write_text("at work\n", encoding="utf-8")
    assert [event.done for event in seen] == [1]


@pytest.mark.usefixtures("quick")
def test_a_process_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit would look like a kill from outside; what is told is the time-out."""
    script = tmp_path / "hang"
    script.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    log = tmp_path / "log"
    with pytest.raises(StageTimedOut, match="train was stopped"):
        ProcessRunner().run(TRAIN, tmp_path / "job.json", log, lambda _: None, {}, Limits(0.2))


def test_a_process_that_ends_badly_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "die"
    script.write_text("#!/bin/sh\necho why >&2\nkill -KILL $$\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(StageKilled, match="exit -9"):
        ProcessRunner().run(
            TRAIN, tmp_path / "job.json", tmp_path / "log", lambda _: None, {}, LONG
        )
