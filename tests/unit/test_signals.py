"""The first signal ends a run in order, the second at once; neither needs a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import Interrupted

_RESTORING = """
import pathlib, sys, time
from driver.signals import SIGNALS
SIGNALS.install()
told, go_on = map(pathlib.Path, sys.argv[1:])
try:
    with SIGNALS.shield():
        told.write_text("restoring")
        while not go_on.exists():
            time.sleep(0.01)
        told.write_text("restored")
except KeyboardInterrupt:
    told.write_text(told.read_text() + ", then ended in order")
"""
"""A driver that is bringing the service back, until it is let go on."""


@contextmanager
def restoring(
    folder: Path,
    stderr: int | None = None,
    hang_up: signal.Handlers = signal.SIG_DFL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start it in a session of its own, as a shell or as nohup does; yield once it restores."""
    told = folder / "told"
    command = [sys.executable, "-c", _RESTORING, str(told), str(folder / "go on")]
    with subprocess.Popen(
        command,
        cwd=files.ROOT,
        stderr=stderr or subprocess.PIPE,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGHUP, hang_up),  # noqa: PLW1509
    ) as process:
        try:
            while not told.exists() or not told.read_text(encoding="utf-8"):
                assert process.poll() is None
            yield process
        finally:
            process.kill()


def handled(process: subprocess.Popen[bytes]) -> None:
    """Wait until a signal is no longer pending: its handler has been called, or is about to be."""
    status = Path(f"/proc/{process.pid}/status")
    while any(
        int(line.split()[1], 16)
        for line in status.read_text(encoding="ascii").splitlines()
        if line.startswith(("SigPnd", "ShdPnd"))
    ):
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_waits_until_the_service_is_back(tmp_path: Path, number: signal.Signals) -> None:
    with restoring(tmp_path) as process:
        process.send_signal(number)
        assert process.stderr is not None
        assert b"ending in order" in process.stderr.readline() + process.stderr.readline()
        (tmp_path / "go on").touch()
        assert process.wait(60) == 0
    assert (tmp_path / "told").read_text(encoding="utf-8") == "restored, then ended in order"


def test_the_second_ends_it_at_once(tmp_path: Path) -> None:
    with restoring(tmp_path) as process:
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert b"ending in order" in process.stderr.readline() + process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == Interrupted.exit_code
        assert b"driver recover" in process.stderr.read()
    assert (tmp_path / "told").read_text(encoding="utf-8") == "restoring"


def test_a_lost_terminal_keeps_nothing_from_its_end(tmp_path: Path) -> None:
    """Whoever hangs up takes the terminal along: what the handler says can go nowhere (EIO)."""
    ours, theirs = pty.openpty()
    with restoring(tmp_path, stderr=theirs) as process:
        os.close(theirs)
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        handled(process)
        (tmp_path / "go on").touch()
        assert process.wait(60) == 0
    assert (tmp_path / "told").read_text(encoding="utf-8") == "restored, then ended in order"


def test_a_terminal_that_hangs_up_twice_is_in_no_hurry(tmp_path: Path) -> None:
    """The shell sends a SIGHUP to its jobs, and the kernel another one when the shell has gone."""
    with restoring(tmp_path) as process:
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            handled(process)
        (tmp_path / "go on").touch()
        assert process.wait(60) == 0
    assert (tmp_path / "told").read_text(encoding="utf-8") == "restored, then ended in order"


def test_nohup_is_respected(tmp_path: Path) -> None:
    with restoring(tmp_path, hang_up=signal.SIG_IGN) as process:
        process.send_signal(signal.SIGHUP)
        handled(process)
        (tmp_path / "go on").touch()
        assert process.wait(60) == 0
    assert (tmp_path / "told").read_text(encoding="utf-8") == "restored"
