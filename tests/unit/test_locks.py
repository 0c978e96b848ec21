"""Locks name their holder, and end with its process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import WorkspaceBusy
from driver import locks

_HOLDER = """
import pathlib, sys
from driver import locks
locks._SHARED_FOLDER = pathlib.Path(sys.argv[2])
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
    monkeypatch.setattr(locks, "_SHARED_FOLDER", folder)
    return folder


def test_a_workspace_is_held_until_its_holder_is_killed(tmp_path: Path, shared: Path) -> None:
    with holder("workspace", shared, tmp_path) as process:
        with pytest.raises(WorkspaceBusy) as caught, locks.workspace(tmp_path):
            pass
        assert f"pid {process.pid} since " in caught.value.why
    with locks.workspace(tmp_path):
        assert (tmp_path / "lock").read_text(encoding="utf-8").startswith("pid ")


def test_another_workspace_cannot_have_the_host(tmp_path: Path, shared: Path) -> None:
    with holder("host", shared, tmp_path / "one"):
        with pytest.raises(WorkspaceBusy) as caught, locks.host(tmp_path / "two"):
            pass
        assert f"workspace {tmp_path / 'one'}" in caught.value.why
    with locks.host(tmp_path / "two"):
        (lock,) = shared.iterdir()
        assert f"workspace {tmp_path / 'two'}" in lock.read_text(encoding="utf-8")
        assert lock.stat().st_mode & 0o777 == 0o666


def test_a_link_in_the_shared_folder_is_not_followed(tmp_path: Path, shared: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept", encoding="utf-8")
    (shared / "retrain-driver.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), locks.host(tmp_path):
        pass
    assert target.read_text(encoding="utf-8") == "kept"
