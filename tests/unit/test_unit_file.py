"""The systemd unit: systemd itself takes it, and it calls recover for the right workspace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import FileUnusable, InputMissing
from driver import unit_file
from tests.unit.other_user import another_user, public_folder


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


def test_a_record_that_the_owner_may_not_read_is_named_before_a_unit_is_written(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the boot it would fail every half minute, and nobody would look."""
    record = workspace / "window.json"
    files.write_json(record, {}, files.PRIVATE)
    if os.geteuid() == 0:
        os.chown(workspace, 4711, -1)
        owner = 4711
    else:  # no file can be given away: let the folder seem to be
        owner = os.geteuid()
        stat = Path.stat

        def seem(path: Path, **options: bool) -> os.stat_result:
            found = stat(path, **options)
            if path.name != record.name:
                return found
            return os.stat_result((*found[:4], 0, *found[5:]))

        monkeypatch.setattr(Path, "stat", seem)
    with pytest.raises(FileUnusable, match="is not the workspace owner's") as caught:
        unit_file.install(workspace, tmp_path / "units")
    assert "root's, and the unit calls recover as" in caught.value.why
    assert f"sudo chown {owner} {record}" in caught.value.todo
    assert not (tmp_path / "units").exists()


def test_who_may_not_write_it_is_told_how(workspace: Path) -> None:
    with public_folder() as folder:
        units = folder / "units"
        units.mkdir(mode=0o755)
        (folder / "workspace").mkdir()
        if os.geteuid() != 0:
            units.chmod(0o555)
        with another_user(), pytest.raises(FileUnusable, match="cannot be written") as caught:
            unit_file.install(folder / "workspace", units)
        assert "-m driver install-unit" in caught.value.todo
        units.chmod(0o755)


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


def test_what_another_try_would_not_mend_is_not_tried_for_ever(workspace: Path) -> None:
    """A damaged record: recover brings back what it can, and ends with this code."""
    lines = unit_file.render(workspace).splitlines()
    assert f"RestartPreventExitStatus={FileUnusable.exit_code}" in lines
