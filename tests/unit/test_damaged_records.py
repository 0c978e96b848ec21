"""Records damaged in odd ways: a folder in their place, or JSON that no driver writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import FileUnusable
from driver import promotion, records, recover, served, taken_back, versions
from driver.host_stages.record import Record
from tests.unit.verification_world import (
    ALIAS,
    NEW_DIGEST,
    OLD,
    OLD_DIGEST,
    World,
    known_engine,
    world,
)

__all__ = ["known_engine", "world"]


@pytest.mark.parametrize(
    "file", [records.PROMOTION, records.VERIFICATION, records.REJECTED, records.SERVED]
)
def test_a_folder_in_the_place_of_a_record_is_kept_aside(world: World, file: str) -> None:
    """Docker makes one where a file to mount is missing. What was verified is live afterwards."""
    engine = promotion.environment(world.engine)
    served.accept(world.root, engine, ALIAS, OLD_DIGEST, served.VERIFIED)
    world.came_after(NEW_DIGEST, OLD_DIGEST)
    files.remove(world.root / file)
    (world.root / file).mkdir()
    (world.root / file / "note").write_text("by hand")
    for _ in range(2):
        with pytest.raises(FileUnusable, match=rf"{file}\.damaged-1\n"):
            recover.recover(world.root, world.said.append)
    assert (world.root / f"{file}.damaged-1" / "note").read_text() == "by hand"
    assert not (world.root / file).is_dir()
    if file in {records.REJECTED, records.SERVED}:  # without these nothing says that NEW is bad
        versions.roll_back(world.root, world.engine, "liga-relevance", OLD)
    assert world.live() == OLD_DIGEST


def test_another_folder_in_the_same_place_is_kept_too(tmp_path: Path) -> None:
    """And what a kill has left of a copy is made whole, not taken for one."""
    path = tmp_path / records.SERVED
    (tmp_path / f"{records.SERVED}.damaged-2.copying").mkdir()
    for number, note in enumerate(["first", "second", "second"], 1):
        path.mkdir()
        (path / "note").write_text(note)
        (path / "missing").symlink_to("nowhere")
        os.mkfifo(path / "pipe")  # holds nothing, and cannot be copied
        aside = records.keep(path)
        assert aside.name == f"{records.SERVED}.damaged-{min(number, 2)}"
        assert (aside / "note").read_text() == note
        records.remove(path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "content", ["[" * 100_000 + '"bad"', r'["\ud800", "bad"]', '[{"a": 1}, "bad"]']
)
def test_what_can_still_be_read_stays_taken_back(tmp_path: Path, content: str) -> None:
    (tmp_path / records.REJECTED).write_text(content)
    with pytest.raises(FileUnusable, match="is damaged"):
        taken_back.rejected(tmp_path)
    taken_back.rescue(tmp_path, lambda _: None)
    assert "bad" in taken_back.rejected(tmp_path)
    taken_back.reject(tmp_path, "another")
    assert {"bad", "another"} <= {*taken_back.rejected(tmp_path)}


@pytest.mark.parametrize("folder", [False, True])
def test_a_note_on_a_reprocess_that_names_no_run_is_damaged(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "reprocess/20260101-120000/about.json"
    if folder:
        path.mkdir(parents=True)
    else:
        about = {"runs": [], "model": "m", "backend": "http://backend", "items": 1}
        files.write_json(path, about)
    (record,) = Record.every(tmp_path)
    with pytest.raises(FileUnusable, match=r"about\.json is damaged"):
        record.about()
