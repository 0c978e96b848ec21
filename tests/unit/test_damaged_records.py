"""Records damaged in odd ways: a folder in their place, or JSON that no driver writes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import FileUnusable
from driver import __main__ as cli
from driver import promotion, records, recover, served, taken_back, versions
from driver.host_stages.record import Record
from driver.store import Store
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


@pytest.mark.parametrize(
    "file", [records.PROMOTION, records.VERIFICATION, records.REJECTED, records.SERVED]
)
def test_a_pipe_in_the_place_of_a_record_is_waited_for_by_nobody(world: World, file: str) -> None:
    """It was, for ever, with the host's lock held. Kept aside is what it holds, nothing."""
    files.remove(world.root / file)
    os.mkfifo(world.root / file)
    for _ in range(2):
        with pytest.raises(FileUnusable, match=rf"{file}\.damaged-1\n"):
            recover.recover(world.root, world.said.append)
    assert (world.root / f"{file}.damaged-1").read_bytes() == b""
    assert not (world.root / file).is_fifo()


@pytest.mark.parametrize("name", ["about.json", "before.jsonl", "outcomes.jsonl"])
def test_a_pipe_in_the_place_of_a_note_on_a_reprocess_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    record = Record(tmp_path / "reprocess/20260101-120000")
    state = {"id": "1", "title": "T", "is_manually_reviewed": False}
    record.begin("20260101-120000", "m", "http://backend", {"1": state}, 1)
    (record.folder / "outcomes.jsonl").touch()
    (record.folder / name).unlink()
    os.mkfifo(record.folder / name)
    with pytest.raises((FileUnusable, files.NoFile)):
        record.before() if name != "outcomes.jsonl" else record.lines()
    if name != "before.jsonl":  # which is not looked at
        assert cli.main(["reprocess", "--status", "-w", str(tmp_path)]) == 32
        assert str(record.folder / name) in capsys.readouterr().err


def test_a_pipe_in_the_place_of_a_result_or_an_artifact_is_no_result(tmp_path: Path) -> None:
    """An item file that somebody has named may be one, as a shell's `<(…)` is."""
    os.mkfifo(tmp_path / "pipe")
    for reader in (files.digest_path, files.read_bytes, lambda path: list(files.read_jsonl(path))):
        with pytest.raises(files.NoFile, match="no file: move it away"):
            reader(tmp_path / "pipe")
    place = tmp_path / "store/train/f"
    place.mkdir(parents=True)
    os.mkfifo(place / "result.json")
    assert Store(tmp_path).result("train", "f") is None
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=['{"id": "1"}\n'])
    writer.start()
    assert [row for _, row in files.read_placed_jsonl(tmp_path / "pipe")] == [{"id": "1"}]
    writer.join()


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
