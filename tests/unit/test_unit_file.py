"""The systemd unit: systemd itself takes it, and it calls recover for the right workspace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import InputMissing
from driver import unit_file


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / 'a "b" 100% $HOME'
    folder.mkdir()
    return folder


def test_the_command_survives_every_character(workspace: Path) -> None:
    line = next(each for each in unit_file.render(workspace).splitlines() if "ExecStart" in each)
    command = line.removeprefix("ExecStart=").replace("%%", "%").replace("$$", "\\$")
    shown = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert shown == [sys.executable, "-m", "driver", "recover", "--workspace", str(workspace)]


def test_it_runs_for_whom_the_workspace_is_and_with_the_same_engine(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://deploy@50%.example")
    monkeypatch.delenv("DOCKER_CERT_PATH", raising=False)
    os.chown(workspace, 4711 if os.geteuid() == 0 else -1, -1)
    lines = unit_file.render(workspace).splitlines()
    assert f"User={workspace.stat().st_uid}" in lines
    assert 'Environment="DOCKER_HOST=ssh://deploy@50%%.example"' in lines
    assert not [line for line in lines if "CERT" in line]


def test_installing_twice_is_the_same_and_says_what_is_left(
    workspace: Path, tmp_path: Path
) -> None:
    first, by_hand = unit_file.install(workspace, tmp_path / "units")
    text = first.read_text(encoding="utf-8")
    assert by_hand == f"systemctl daemon-reload && systemctl enable {first.name}"
    assert unit_file.install(workspace, tmp_path / "units") == (first, by_hand)
    assert first.read_text(encoding="utf-8") == text
    assert f"WorkingDirectory={files.ROOT}" in text


def test_a_workspace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"there is no workspace .*/typo"):
        unit_file.render(tmp_path / "typo")
    with pytest.raises(InputMissing, match=r"there is no workspace .*/typo"):
        unit_file.install(tmp_path / "typo", tmp_path / "units")
    assert list(tmp_path.iterdir()) == []


def test_another_workspace_has_another_unit(tmp_path: Path) -> None:
    assert unit_file.unit_name(tmp_path / "a") != unit_file.unit_name(tmp_path / "b")


def test_systemd_takes_it(workspace: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        refuse = pytest.fail if os.environ.get("REQUIRE_DOCKER") == "1" else pytest.skip
        refuse("no systemd-analyze on this machine")
    path, _ = unit_file.install(workspace, tmp_path / "units")
    done = subprocess.run(
        [str(analyze), "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, str(path.name) in done.stderr) == (0, False), done.stderr
