"""`driver recover` asks the engine of the run for its stages, and says where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver import recover
from driver.store import Run


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an address at which no engine answers; DOCKER_HOST is another one."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/now.sock")
    return f"unix://{tmp_path}/then.sock"


def said(workspace: Path) -> str:
    lines: list[str] = []
    recover.recover(workspace, lines.append)
    assert lines[-1].startswith("Nothing to recover")
    return "\n".join(lines[:-1])


def noted(workspace: Path, **facts: str) -> None:
    run = Run.create(workspace)
    run.write_state({"run": run.id, "stages": {}, **facts})


def test_the_engine_of_the_run_is_asked(
    tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    noted(tmp_path, docker_host=nobody)
    text = said(tmp_path)
    assert f"no Docker engine answers at {nobody}" in text
    assert "set DOCKER_HOST as it was in the run" in text


def test_the_engine_of_now_is_asked_too(tmp_path: Path, nobody: str) -> None:
    noted(tmp_path, docker_host=nobody)
    text = said(tmp_path)
    assert text.count("no Docker engine answers") == 2
    assert "now.sock" in text


def test_notes_that_cannot_be_read_hide_nothing(tmp_path: Path, nobody: str) -> None:
    noted(tmp_path)
    (Run.create(tmp_path).folder / "run.json").write_bytes(b"{")
    assert "may be at work still" in said(tmp_path)


@pytest.mark.usefixtures("nobody")
def test_without_containers_no_engine_is_missed(tmp_path: Path) -> None:
    noted(tmp_path, docker_host="")
    assert said(tmp_path) == ""
