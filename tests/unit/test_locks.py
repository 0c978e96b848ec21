"""Locks name their holder, and end with its process."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import WindowOpen, WorkspaceBusy
from driver import invocation, locks, recover
from driver.window_record import RECORD_FILE
from tests.unit.lock_holders import holder, leave_open


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run-lock"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv(locks.FOLDER_VARIABLE, str(folder))
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
        invocation.at_work(asked),
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
