"""Follows a stage container's output: every line once, as it comes, also over a lost connection.

The engine keeps what a container has said. A connection can break while the container runs on (a
restart of the engine with live-restore, a flaky ssh), so what was heard is counted in bytes, and
that much is skipped of what the next connection repeats.
"""

from __future__ import annotations

import codecs
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import docker.errors
import requests
import urllib3.exceptions

from contracts.errors import DockerUnavailable, RetrainError, StageKilled
from driver.runners.outcome import Listener

T = TypeVar("T")

BROKEN = (
    docker.errors.DockerException,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,  # the SDK's own, for a stream that is cut within a frame's header
)
"""What a connection to the engine fails with."""
_PATIENCE_S = 120.0
"""How long an engine may be away: a restart takes seconds, an update a minute."""
_PAUSE_S = 0.1


class _Skipping:
    """One stream of the container; passes on what has not been heard yet."""

    def __init__(self, name: str, take: Callable[[bytes], None]) -> None:
        self.wanted = {"stdout": False, "stderr": False, name: True}
        """The arguments of the SDK that ask for this stream."""
        self._take = take
        self._heard = 0
        self._skip = 0

    def begin_again(self) -> None:
        """Expect everything from the beginning."""
        self._skip = self._heard

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        if fresh := data[skipped:]:
            self._heard += len(fresh)
            self._take(fresh)


class _Lines:
    """Cuts stdout into lines for the listener."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._pending = b""

    def take(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._listener.line(line.decode("utf-8", errors="replace"))

    def end(self) -> None:
        self._listener.line(self._pending.decode("utf-8", errors="replace"))


class _Text:
    """Writes stderr to the log; a letter may come in two pieces."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def take(self, data: bytes) -> None:
        self._output.write(self._decoder.decode(data))
        self._output.flush()


def follow(container: Any, listener: Listener, log: IO[str]) -> int:
    """Pass the container's stdout to the listener and its stderr to the log; return its exit code.

    From the container's beginning, so that nothing is lost before the attach. Raises
    `DockerUnavailable` for an engine that stays away, `StageKilled` for a container that is gone,
    OSError for a log that cannot be written.
    """
    lines = _Lines(listener)
    stdout = _Skipping("stdout", lines.take)
    stderr = _Skipping("stderr", _Text(log).take)
    # A connection each: one that carries both is an attach, and that does not repeat what a
    # container has said before the engine was restarted.
    beside = _Beside(container, stderr)
    beside.start()
    _follow_one(container, stdout)
    beside.join()
    lines.end()
    if beside.failed:
        raise beside.failed
    return int(container.attrs["State"]["ExitCode"])


def open_anew(log: Path, container: str, begins: dict[str, int]) -> IO[str]:
    """Open the log for more, without what a container has said into it already.

    It is followed from its first line, also when it is met again because its engine was away.
    `begins` keeps, by container, how long the log was before it.
    """
    size = log.stat().st_size if log.exists() else 0
    begin = begins.setdefault(container, size)
    if begin < size:
        os.truncate(log, begin)
    return log.open("a", encoding="utf-8")


class _Cut(Exception):
    """A connection broke; not what happened while its pieces were taken, which is no reason to
    connect again: a full disk would be taken for one for hours."""


class _Beside(threading.Thread):
    """Follows in a thread; what the engine fails with fails for the other stream too, and is told
    there."""

    def __init__(self, container: Any, stream: _Skipping) -> None:
        super().__init__(daemon=True)
        self._followed = (container, stream)
        self.failed: Exception | None = None
        """What failed on our side."""

    def run(self) -> None:
        try:
            with suppress(RetrainError):
                _follow_one(*self._followed)
        except Exception as error:  # noqa: BLE001  # raised again where it is joined
            self.failed = error


def _follow_one(container: Any, stream: _Skipping) -> None:
    """Follow until the container has ended and all that it said was read without a break."""
    heard_at = time.monotonic()
    while True:
        ended = not is_running(container)
        stream.begin_again()
        try:
            for piece in _pieces(container, stream, follow=not ended):
                stream.feed(piece)
                heard_at = time.monotonic()
        except _Cut as error:
            if ended and time.monotonic() - heard_at > _PATIENCE_S:
                raise DockerUnavailable(
                    "the Docker engine does not give a stage's output", why=str(error.__cause__)
                ) from error
        else:
            if ended:
                return
        time.sleep(_PAUSE_S)


def _pieces(container: Any, stream: _Skipping, *, follow: bool) -> Iterator[bytes]:
    try:
        yield from container.logs(stream=True, follow=follow, **stream.wanted)
    except BROKEN as error:
        raise _Cut from error


def is_running(container: Any) -> bool:
    """Return whether the container runs, or is paused, once the engine answers."""

    def look() -> None:
        try:
            container.reload()
        except docker.errors.NotFound as error:
            raise _gone() from error

    patiently(look, _PATIENCE_S, _PAUSE_S)
    if container.status in {"removing", "dead"}:
        raise _gone()
    return container.status in {"running", "paused", "restarting"}


def patiently(ask: Callable[[], T], patience_s: float, pause_s: float) -> T:
    """Return what the engine answers once it does; `DockerUnavailable` for one that stays away."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return ask()
        except BROKEN as error:
            if time.monotonic() > deadline:
                raise DockerUnavailable(
                    "the Docker engine went away", why=str(error) or type(error).__name__
                ) from error
            time.sleep(pause_s)


def _gone() -> StageKilled:
    return StageKilled("the stage's container is gone", why="somebody removed it while it ran")
