"""A container's output arrives whole and once, however often the connection breaks.

The container is a DOUBLE; tests/faults/test_engine_restart.py has a real engine.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import DockerUnavailable, StageKilled
from contracts.stage import Event
from contracts.stages import TRAIN
from driver.runners import follow as following
from driver.runners.outcome import Listener


class Container:
    """Says all that it has to say from the beginning, on each connection; cuts some of them."""

    def __init__(self, stdout: bytes, stderr: bytes, cuts: dict[str, list[int]]) -> None:
        self.attrs = {"State": {"ExitCode": 3}}
        self._said = {"stdout": stdout, "stderr": stderr}
        self._cuts = cuts
        self._pending = {"stdout", "stderr"}
        self.gone = False
        self.away = 0

    @property
    def status(self) -> str:
        return "running" if any(self._cuts.values()) else "exited"

    def reload(self) -> None:
        if self.gone:
            raise docker.errors.NotFound("no such container")
        if self.away:
            self.away -= 1
            raise requests.ConnectionError("refused")

    def logs(self, *, stream: bool, follow: bool = False, **wanted: bool) -> Iterator[bytes]:
        assert stream
        (name,) = (name for name, is_wanted in wanted.items() if is_wanted)
        said = self._said[name]
        cut = self._cuts[name].pop(0) if follow and self._cuts[name] else None
        end = len(said) if cut is None else min(cut, len(said))
        for start in range(0, end, 7):
            yield said[start : min(start + 7, end)]
        if cut is not None:
            raise requests.ConnectionError("cut")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_PAUSE_S", 0.0)
    monkeypatch.setattr(following, "_PATIENCE_S", 0.05)


def heard(container: Any) -> tuple[int, list[Event], str, str]:
    """Return the exit code, the events, and what was logged of stdout and of stderr."""
    events: list[Event] = []
    printed, errors = io.StringIO(), io.StringIO()
    exit_code = following.follow(container, Listener(TRAIN, events.append, printed), errors)
    return exit_code, events, printed.getvalue(), errors.getvalue()


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30)
CUTS = st.lists(st.integers(0, 400), max_size=4)


@given(lines=st.lists(TEXT, max_size=8), words=TEXT, steps=st.integers(0, 5), out=CUTS, err=CUTS)
def test_every_byte_once_over_any_cuts(
    lines: list[str], words: str, steps: int, out: list[int], err: list[int]
) -> None:
    said = [Event(stage="train", done=n, total=5, unit="steps") for n in range(steps)]
    printed = [f"x{line}" for line in lines]
    stdout = "\n".join([*(event.model_dump_json() for event in said), *printed])
    container = Container(stdout.encode(), words.encode(), {"stdout": out, "stderr": err})
    exit_code, events, text, errors = heard(container)
    assert exit_code == 3
    assert events == said
    assert text.splitlines() == [line.rstrip("\n") for line in printed]
    assert errors == words


class Full(io.StringIO):
    """A log on a disk that has become full."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_disk_is_no_broken_connection(stream: str) -> None:
    said = {"stdout": b"", "stderr": b"", stream: b"text for people\n"}
    container = Container(said["stdout"], said["stderr"], {"stdout": [], "stderr": []})
    printed, errors = (Full() if name == stream else io.StringIO() for name in said)
    with pytest.raises(OSError, match="No space left"):
        following.follow(container, Listener(TRAIN, lambda _: None, printed), errors)


def test_a_container_that_is_gone_was_killed() -> None:
    container = Container(b"", b"", {"stdout": [0], "stderr": []})
    container.gone = True
    with pytest.raises(StageKilled, match="is gone"):
        heard(container)


def test_an_engine_that_comes_back_is_waited_for() -> None:
    container = Container(b"tell\n", b"", {"stdout": [2], "stderr": []})
    container.away = 3
    assert heard(container)[2] == "tell\n"


def test_an_engine_that_stays_away_is_named() -> None:
    container = Container(b"", b"", {"stdout": [0], "stderr": []})
    container.away = 1 << 60
    with pytest.raises(DockerUnavailable, match="went away"):
        heard(container)


def test_a_container_that_is_met_again_is_not_told_twice(tmp_path: Path) -> None:
    log, begins = tmp_path / "train.log", dict[str, int]()
    for container, said in (("a", "failed\n"), ("b", "half\n"), ("b", "half\nwhole\n")):
        with following.open_anew(log, container, begins) as output:
            output.write(said)
    assert log.read_text(encoding="utf-8") == "failed\nhalf\nwhole\n"
