"""Locks name their holder, and end with its process."""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import FileUnusable, WindowOpen, WorkspaceBusy
from driver import commands, locks, recover, users
from driver.window_record import RECORD_FILE
from tests.unit.other_user import another_user, close, public_folder

_HOLDER = """
import pathlib, sys
from driver import locks
locks._SHARED_FOLDERS = (pathlib.Path(sys.argv[2]),)
with getattr(locks, sys.argv[1])(pathlib.Path(sys.argv[3])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(kind: str, shared: Path, workspace: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, kind, str(shared), str(workspace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=files.ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run-lock"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (folder,))
    return folder


def test_a_workspace_is_held_until_its_holder_is_killed(tmp_path: Path, shared: Path) -> None:
    with holder("workspace", shared, tmp_path) as process:
        with pytest.raises(WorkspaceBusy) as caught, locks.workspace(tmp_path):
            pass
        assert f"pid {process.pid} since " in caught.value.why
    with locks.workspace(tmp_path):
        assert (tmp_path / "lock").read_text(encoding="utf-8").startswith("pid ")


def test_what_a_file_says_holds_nothing_after_a_reboot(tmp_path: Path) -> None:
    """Its holder's process id may be another's by then."""
    said = f"pid {os.getpid()} since 2026-01-01T00:00:00+00:00, workspace {tmp_path}"
    (tmp_path / "lock").write_text(said, encoding="utf-8")
    assert not locks.is_held(tmp_path)
    with locks.workspace(tmp_path):
        assert locks.is_held(tmp_path)
        assert (tmp_path / "lock").read_text(encoding="utf-8") != said
    assert not locks.is_held(tmp_path)


def test_a_lock_on_another_disk_is_not_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two file systems may well give two files one inode number."""
    listed = tmp_path / "locks"
    with locks.workspace(tmp_path):
        file = locks._as_listed(tmp_path / "lock")
    monkeypatch.setattr(locks, "_HELD", listed)
    for device, held in ((file.rpartition(":")[0], True), ("ff:ffff", False)):
        inode = (tmp_path / "lock").stat().st_ino
        listed.write_text(f"1: FLOCK  ADVISORY  WRITE 7 {device}:{inode} 0 EOF\n", "ascii")
        assert locks.is_held(tmp_path) == held


def test_recover_is_refused_while_a_driver_is_at_work(tmp_path: Path, shared: Path) -> None:
    """Also while another recover is: the second has nothing to do but to wait."""
    (tmp_path / RECORD_FILE).write_text("{}", encoding="utf-8")
    with (
        holder("workspace", shared, tmp_path) as process,
        pytest.raises(WorkspaceBusy) as caught,
    ):
        recover.recover(tmp_path, print)
    assert f"pid {process.pid} " in caught.value.why
    assert (tmp_path / RECORD_FILE).read_text(encoding="utf-8") == "{}"


def test_recover_needs_the_workspace_alone(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "driver", "recover", "-w", "workspace"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing to recover" in done.stdout


def test_another_workspace_cannot_have_the_host(tmp_path: Path, shared: Path) -> None:
    with holder("host", shared, tmp_path / "one"):
        with pytest.raises(WorkspaceBusy) as caught, locks.host(tmp_path / "two"):
            pass
        assert f"workspace {tmp_path / 'one'}" in caught.value.why
    with locks.host(tmp_path / "two"):
        (lock,) = shared.iterdir()
        assert f"workspace {tmp_path / 'two'}" in lock.read_text(encoding="utf-8")
        assert lock.stat().st_mode & 0o777 == 0o666


def leave_open(shared: Path, workspace: Path) -> None:
    """Let a driver with the host in its hands die while the service is stopped."""
    workspace.mkdir()
    with holder("host", shared, workspace):
        record = f'{{"opened_at": {time.time()}}}'
        (workspace / RECORD_FILE).write_text(record, encoding="utf-8")


def test_a_window_that_a_dead_run_left_open_elsewhere_is_closed_first(
    tmp_path: Path, shared: Path
) -> None:
    """What that run has stopped would count as not running here, and stay away."""
    one, two = tmp_path / "one", tmp_path / "two"
    leave_open(shared, one)
    for _ in range(2):  # the refusal is no reason to forget it
        with pytest.raises(WindowOpen, match="has died") as caught, locks.host(two):
            pass
        assert f"recover -w {one}" in caught.value.todo
    two.mkdir()
    (two / RECORD_FILE).write_text('{"opened_at": 1}', encoding="utf-8")
    recover.recover(two, print)  # nor is a recovery here, which is let through
    with pytest.raises(WindowOpen, match="has died"), locks.host(two):
        pass
    with locks.host(one):  # that workspace's own next run
        pass
    recover.recover(one, print)
    with locks.host(two):
        pass


def test_recover_brings_nothing_back_into_the_training_of_another_workspace(
    tmp_path: Path, shared: Path
) -> None:
    one = tmp_path / "one"
    leave_open(shared, one)
    (shared / "retrain-driver.lock").unlink()  # a reboot
    with holder("host", shared, tmp_path / "two") as process:
        with pytest.raises(WorkspaceBusy) as caught:
            recover.recover(one, print)
        assert f"pid {process.pid} " in caught.value.why
        assert f"workspace {tmp_path / 'two'}" in caught.value.why
    assert (one / RECORD_FILE).exists()
    recover.recover(one, print)
    assert not (one / RECORD_FILE).exists()


_CPU = {
    "fetch": {"path": "base"},
    "snapshot": {"items": ["items.jsonl"]},
    "train": {"device": "cpu"},
}


def test_no_command_brings_anything_back_into_it_either(tmp_path: Path, shared: Path) -> None:
    """Not even one that has no use for the GPU itself."""
    one = tmp_path / "one"
    leave_open(shared, one)
    (shared / "retrain-driver.lock").unlink()  # a reboot
    settings = tmp_path / "retrain.yaml"
    files.write_json(settings, {**_CPU, "runner": "process"})
    asked = argparse.Namespace(config=settings, set=[], workspace=one)
    with (
        holder("host", shared, tmp_path / "two"),
        pytest.raises(WorkspaceBusy),
        commands._at_work(asked),
    ):
        pass
    assert (one / RECORD_FILE).exists()


def test_recover_needs_no_lock_file_that_cannot_be_made(tmp_path: Path, shared: Path) -> None:
    leave_open(shared, tmp_path / "one")
    (shared / "retrain-driver.lock").unlink()
    (shared / "retrain-driver.lock").mkdir()
    recover.recover(tmp_path / "one", print)
    assert not (tmp_path / "one" / RECORD_FILE).exists()


def test_a_link_in_the_shared_folder_is_not_followed(tmp_path: Path, shared: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept", encoding="utf-8")
    (shared / "retrain-driver.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), locks.host(tmp_path):
        pass
    assert target.read_text(encoding="utf-8") == "kept"


# --- several users of one host -------------------------------------------------------------------
@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


def closed_lock(public: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> Path:
    """Let there be a lock file of that mode, as `another_user` sees it."""
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (public,))
    lock = public / "retrain-driver.lock"
    lock.touch()
    close(lock, mode)
    return lock


def test_every_user_may_lock_what_any_has_made(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask of the first."""
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (public,))
    umask = os.umask(0o077)
    try:
        with locks.host(public / "one"):
            pass
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(umask)
    assert (public / "retrain-driver.lock").stat().st_mode & 0o777 == 0o666
    with another_user(), locks.host(public / "two"):
        pass
    assert "workspace" in (public / "retrain-driver.lock").read_text(encoding="utf-8")


def test_where_the_first_folder_is_roots_alone_everybody_takes_the_second(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root too: else the two would not see each other."""
    (tmp_path / "run-lock").mkdir(mode=0o755)
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (tmp_path / "run-lock", public))
    with holder("host", public, public / "one"):
        with pytest.raises(WorkspaceBusy), locks.host(public / "two"):
            pass
        with another_user(), pytest.raises(WorkspaceBusy), locks.host(public / "two"):
            pass
    assert list((tmp_path / "run-lock").iterdir()) == []


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_no_run_begins_without_the_lock(
    public: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    lock = closed_lock(public, monkeypatch, mode)
    with another_user(), pytest.raises(FileUnusable) as caught, locks.host(public):
        pass
    assert str(lock) in caught.value.what
    assert "Permission denied" in caught.value.why
    assert f"chmod a+rw {lock}" in caught.value.todo


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_recovery_sees_who_holds_a_lock_that_it_cannot_open(
    public: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """And needs nobody to mend it first: the service is down."""
    lock = closed_lock(public, monkeypatch, mode)
    with another_user(), locks.host(public, recovers=True):
        pass
    descriptor = os.open(lock, os.O_RDONLY) if os.geteuid() == 0 or mode == 0o644 else None
    if descriptor is not None:  # as held by root
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            with another_user(), pytest.raises(WorkspaceBusy) as caught:  # noqa: SIM117
                with locks.host(public, recovers=True):
                    pass
            assert str(lock) in caught.value.why
        finally:
            os.close(descriptor)


def test_its_owner_opens_a_lock_file_of_an_older_driver_to_all(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (public,))
    lock = public / "retrain-driver.lock"
    lock.touch(0o600)
    with locks.host(public):
        pass
    assert lock.stat().st_mode & 0o777 == 0o666


def test_a_workspace_of_another_user_is_named(public: Path) -> None:
    (public / "workspace").mkdir(mode=0o755)
    if os.geteuid() != 0:
        (public / "workspace").chmod(0o555)
    with another_user(), pytest.raises(FileUnusable) as caught:  # noqa: SIM117
        with locks.workspace(public / "workspace"):
            pass
    assert f"{public / 'workspace'} is " in caught.value.why
    assert "--workspace DIR" in caught.value.todo


CLOSED = 0o700 if os.geteuid() == 0 else 0o000
"""The mode of a folder into which `another_user` cannot look."""


def test_a_dead_run_where_this_user_cannot_look_is_not_forgotten(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its own user has called recover: the service may be stopped."""
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (public,))
    one, lock = public / "one", public / "retrain-driver.lock"
    leave_open(public, one)
    one.chmod(CLOSED)
    signed = lock.read_text(encoding="utf-8")
    owner = users.me()
    for _ in range(2):
        with another_user(), pytest.raises(WindowOpen, match=f"run of {owner} ") as caught:  # noqa: SIM117
            with locks.host(public / "two"):
                pass
    assert f"Ask {owner} " in caught.value.todo
    assert f"`python -m driver recover -w {one}`" in caught.value.todo
    with another_user(), locks.host(public / "two", recovers=True):
        pass
    assert lock.read_text(encoding="utf-8") == signed
    one.chmod(0o700)
    recover.recover(one, print)
    with another_user(), locks.host(public / "two"):
        pass


def test_one_that_died_with_its_window_closed_is_forgotten_by_recover(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (public,))
    leave_open(public, public / "one")
    (public / "one" / RECORD_FILE).unlink()
    (public / "one").chmod(CLOSED)
    with another_user(), pytest.raises(WindowOpen), locks.host(public / "two"):
        pass
    (public / "one").chmod(0o700)
    recover.recover(public / "one", print)
    with another_user(), locks.host(public / "two"):
        pass


def test_one_that_ended_by_itself_keeps_nobody_out(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (public,))
    (public / "one").mkdir(mode=0o700)
    with locks.host(public / "one"):
        pass
    with another_user(), locks.host(public / "two"):
        pass


# --- what a driver that died has started ---------------------------------------------------------
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
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=files.ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
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
    monkeypatch.setattr(locks, "_ORPHAN_S", 0.0)
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
