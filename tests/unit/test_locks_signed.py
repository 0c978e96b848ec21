"""What a lock tells of who holds it: a number that counts in one place, and for a time."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import WorkspaceBusy
from driver import locks
from driver.window_record import RECORD_FILE


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run-lock"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv(locks.FOLDER_VARIABLE, str(folder))
    return folder


def test_who_has_let_go_is_no_holder_although_a_child_of_it_is(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "CHILD_S", 0.0)
    child = """
import pathlib, subprocess, sys
from driver import locks
with locks.host(pathlib.Path(sys.argv[1])):
    subprocess.Popen(["cat"], pass_fds=locks.descriptors(), stdout=subprocess.DEVNULL)
"""
    with subprocess.Popen(
        [sys.executable, "-c", child, str(tmp_path)], stdin=subprocess.PIPE, cwd=files.ROOT
    ) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert (shared / "retrain-driver.lock").read_text("utf-8").startswith("ended: pid ")
        with pytest.raises(WorkspaceBusy) as caught, locks.host(tmp_path / "two"):
            pass
    assert "what a driver that died has started (ended: pid " in caught.value.why


@pytest.mark.parametrize("place", ["", " in of-another-boot/1"])
def test_one_that_cannot_be_seen_from_here_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It is on another host, or in another container: /proc/locks does not list it."""
    monkeypatch.setattr(locks, "CHILD_S", 0.0)
    number = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(number, 0)  # so that nobody has that number here
    lock = tmp_path / "lock"
    lock.write_text(f"pid {number} since 2026-11-27T20:00:00{place}, workspace /w", "utf-8")
    unseen = tmp_path / "locks"
    unseen.write_text("")
    monkeypatch.setattr(locks, "_HELD", unseen)
    assert not locks.is_held(tmp_path)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert locks.is_held(tmp_path)
        with pytest.raises(WorkspaceBusy) as caught, locks.workspace(tmp_path):
            pass
    assert f"is held by pid {number} since " in caught.value.why


def test_who_only_looks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").write_text("", encoding="utf-8")
    looks = (tmp_path / "lock").open()
    fcntl.flock(looks, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: looks.close())
    with locks.workspace(tmp_path):
        assert looks.closed


def test_a_shorter_signature_leaves_nothing_of_a_longer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a kill right after it was written, before the rest is cut off."""
    (tmp_path / "lock").write_text("x" * 500, encoding="utf-8")
    with monkeypatch.context() as patch, locks.workspace(tmp_path):
        text = (tmp_path / "lock").read_text(encoding="utf-8")
        assert text.endswith(f", workspace {tmp_path}")
        (tmp_path / "lock").write_text("x" * 500, encoding="utf-8")
        patch.setattr(os, "ftruncate", lambda *_: None)
        descriptor = os.open(tmp_path / "lock", os.O_RDWR)
        locks._sign(descriptor, tmp_path)
        os.close(descriptor)
    assert (tmp_path / "lock").read_text(encoding="utf-8").strip().endswith(f"{tmp_path}")


def test_a_child_gets_as_long_as_the_backend_may_take_to_stop(tmp_path: Path) -> None:
    signed = f"pid 1 since 2026-11-27T20:00:00, workspace {tmp_path}"
    assert locks._patience_s(signed) == locks.CHILD_S
    (tmp_path / RECORD_FILE).write_text('{"backend": {"stop_timeout_s": 900}}', encoding="utf-8")
    assert locks._patience_s(signed) == locks.CHILD_S + 900


def test_a_workspace_that_cannot_be_written_to_is_recovered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was set read-only after an error: what is stopped comes back first."""
    (tmp_path / "lock").write_text("", encoding="utf-8")
    opened = os.open

    def read_only(path: Path, flags: int, *mode: int) -> int:
        if Path(path) == tmp_path / "lock" and flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(OSError, match="Read-only"), locks.workspace(tmp_path):
        pass
    with (
        locks.workspace(tmp_path, recovers=True),
        (tmp_path / "lock").open() as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
