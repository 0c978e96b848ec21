"""A workspace that was moved knows where it was, by its last run and by an open window."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from driver.moved import former_paths
from driver.notes import Notes
from driver.settings import BackendSettings
from driver.store import Run
from driver.window import Window
from tests.unit.window_world import Outside


@pytest.fixture(params=["run", "window", "both"])
def noted(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a workspace in which a driver has died."""
    workspace = tmp_path / "was"
    workspace.mkdir()
    if request.param != "window":
        Notes(Run.create(workspace), "").stage("train", state="running")
    if request.param != "run":
        backend = BackendSettings(url="http://127.0.0.1:9", container="news")
        Window(workspace, backend, world=Outside()).open()
    return workspace


def test_a_moved_one_knows_where_it_was(noted: Path, tmp_path: Path) -> None:
    assert former_paths(noted) == []
    noted.rename(tmp_path / "now")
    assert former_paths(tmp_path / "now") == [str(noted)]
    noted.symlink_to(tmp_path / "now")  # for those who know the old name
    assert former_paths(tmp_path / "now") == [str(noted)]
    assert former_paths(noted) == [str(noted)]


def test_a_copy_has_no_claim_on_the_stages_of_the_other(noted: Path, tmp_path: Path) -> None:
    shutil.copytree(noted, tmp_path / "copy")
    assert former_paths(tmp_path / "copy") == []


def test_a_window_that_is_written_again_keeps_the_path(tmp_path: Path) -> None:
    (tmp_path / "was").mkdir()
    backend, outside = BackendSettings(url="http://127.0.0.1:9", container="news"), Outside()
    Window(tmp_path / "was", backend, world=outside).open()
    (tmp_path / "was").rename(tmp_path / "now")
    outside.running = True
    Window(tmp_path / "now", backend, world=outside).open()
    assert former_paths(tmp_path / "now") == [str(tmp_path / "was")]


@pytest.mark.parametrize("said", ["{", "[]", "{}", '{"workspace": null}'])
def test_what_is_damaged_or_old_names_none(tmp_path: Path, said: str) -> None:
    (Run.create(tmp_path).folder / "run.json").write_text(said, encoding="utf-8")
    (tmp_path / "window.json").write_text(said, encoding="utf-8")
    assert former_paths(tmp_path) == []
