"""Locks among several users of one host."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import FileUnusable, WindowOpen, WorkspaceBusy
from driver import locks, recover, users
from driver.window_record import RECORD_FILE
from tests.unit.lock_holders import holder, leave_open
from tests.unit.other_user import another_user, close, public_folder


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of the host's lock, in which every user may make files."""
    with public_folder() as folder:
        monkeypatch.setenv(locks.FOLDER_VARIABLE, str(folder))
        yield folder


def closed_lock(public: Path, mode: int) -> Path:
    """Let there be a lock file of that mode, as `another_user` sees it."""
    lock = public / "retrain-driver.lock"
    lock.touch()
    close(lock, mode)
    return lock


def test_every_user_may_lock_what_any_has_made(public: Path) -> None:
    """Whatever the umask of the first."""
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
    monkeypatch.delenv(locks.FOLDER_VARIABLE)
    monkeypatch.setattr(locks, "_SHARED_FOLDERS", (tmp_path / "run-lock", public))
    with holder("host", public, public / "one"):
        with pytest.raises(WorkspaceBusy), locks.host(public / "two"):
            pass
        with another_user(), pytest.raises(WorkspaceBusy), locks.host(public / "two"):
            pass
    assert list((tmp_path / "run-lock").iterdir()) == []


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_no_run_begins_without_the_lock(public: Path, mode: int) -> None:
    lock = closed_lock(public, mode)
    with another_user(), pytest.raises(FileUnusable) as caught, locks.host(public):
        pass
    assert str(lock) in caught.value.what
    assert "Permission denied" in caught.value.why
    assert f"chmod a+rw {lock}" in caught.value.todo


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_recovery_sees_who_holds_a_lock_that_it_cannot_open(public: Path, mode: int) -> None:
    """And needs nobody to mend it first: the service is down."""
    lock = closed_lock(public, mode)
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


def test_its_owner_opens_a_lock_file_of_an_older_driver_to_all(public: Path) -> None:
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


def test_a_recovery_goes_without_a_lock_that_cannot_be_made(public: Path) -> None:
    """In a workspace that has gone read-only, or has no inodes left; but not past one unseen."""
    folder = public / "workspace"
    folder.mkdir()
    folder.chmod(0o755 if os.geteuid() == 0 else 0o555)
    with another_user(), locks.workspace(folder, recovers=True):
        assert not (folder / "lock").exists()
    folder.chmod(CLOSED)
    with another_user(), pytest.raises(FileUnusable), locks.workspace(folder, recovers=True):
        pass
    folder.chmod(0o755)


CLOSED = 0o700 if os.geteuid() == 0 else 0o000
"""The mode of a folder into which `another_user` cannot look."""


def test_a_dead_run_where_this_user_cannot_look_is_not_forgotten(public: Path) -> None:
    """Until its own user has called recover: the service may be stopped."""
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


def test_one_that_died_with_its_window_closed_is_forgotten_by_recover(public: Path) -> None:
    leave_open(public, public / "one")
    (public / "one" / RECORD_FILE).unlink()
    (public / "one").chmod(CLOSED)
    with another_user(), pytest.raises(WindowOpen), locks.host(public / "two"):
        pass
    (public / "one").chmod(0o700)
    recover.recover(public / "one", print)
    with another_user(), locks.host(public / "two"):
        pass


def test_one_that_ended_by_itself_keeps_nobody_out(public: Path) -> None:
    (public / "one").mkdir(mode=0o700)
    with locks.host(public / "one"):
        pass
    with another_user(), locks.host(public / "two"):
        pass
