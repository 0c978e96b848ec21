"""A lock that what a driver that died has started still holds."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import WorkspaceBusy
from driver import locks
from tests.unit.lock_holders import held_by

_PARENT = """
import pathlib, subprocess, sys
from driver import locks
with locks.workspace(pathlib.Path(sys.argv[1])):
    subprocess.Popen(["sh", "-c", 'read x < "$0/gate"; : > "$0/done"', sys.argv[1]],
                     pass_fds=locks.descriptors())
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def orphaned(tmp_path: Path) -> Iterator[Path]:
    """Return a workspace whose driver was killed, while a child of it is still at work.

    The child ends when something is written to `gate`.
    """
    os.mkfifo(tmp_path / "gate")
    with held_by(_PARENT, tmp_path) as process:
        process.kill()
        # Dead, and not waited for by its parent: to the kernel it is a process still.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield tmp_path
    if not (tmp_path / "done").exists():
        (tmp_path / "gate").write_text("\n", encoding="utf-8")


def test_it_is_waited_for(orphaned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_: float) -> None:
        """Let the child end, as soon as somebody waits for it."""
        monkeypatch.undo()
        (orphaned / "gate").write_text("\n", encoding="utf-8")

    monkeypatch.setattr(time, "sleep", sleep)
    with locks.workspace(orphaned):
        assert (orphaned / "done").exists()


def test_one_that_does_not_end_is_named(orphaned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "CHILD_S", 0.0)
    with pytest.raises(WorkspaceBusy) as caught, locks.workspace(orphaned):
        pass
    assert "what a driver that died has started (pid " in caught.value.why
    assert f"fuser -v {orphaned / 'lock'}" in caught.value.todo


def test_who_has_locked_it_without_signing_is_no_child_of_the_dead(
    orphaned: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "lock").write_bytes((orphaned / "lock").read_bytes())
    with (other / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(WorkspaceBusy) as caught, locks.workspace(other):
            pass
    assert f"is held by pid {os.getpid()} (" in caught.value.why
    assert "driver that died" not in caught.value.why
