"""The disk fills up: nothing is half written, nothing is stopped that could not be remembered, and
the service comes back all the same.

On a small tmpfs of the test's own; test_service_faults.py fills the disk of a whole run.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from contracts import files
from contracts.answer_cache import AnswerCache
from contracts.entrypoint import StageContext, disk_named, execute
from contracts.errors import DiskFull, FileUnusable, RetrainError, WorkspaceBusy
from contracts.os_errors import from_os_error
from contracts.params import EvaluateMetrics, EvaluateParams
from contracts.stages import EVALUATE, MERGE, VERDICT
from driver import locks
from driver.settings import BackendSettings
from driver.store import Run, Store
from driver.window import Window
from driver.window_record import RECORD_FILE
from images.merger import merge
from tests.faults.tally import Tally
from tests.jobs import job_of
from tests.unit.lora_models import make_adapter, make_base
from tests.unit.model_stages import folder_of
from tests.unit.model_stages import run as run_stage
from tests.unit.window_world import Outside

BACKEND = BackendSettings(url="http://127.0.0.1:9", container="news")


class SmallDisk:
    """A file system of 1 MiB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        _call("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))

    def fill(self, free: int = 0) -> None:
        """Leave no more than `free` bytes of it, and at 0 none in the files that are there."""
        ballast = (self.folder / "ballast").open("ab", buffering=0)
        with ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        assert shutil.disk_usage(self.folder).free == 0
        if free:
            ballast_file = self.folder / "ballast"
            os.truncate(ballast_file, ballast_file.stat().st_size - free)

    def close(self) -> None:
        """Let nothing be written any more, as a kernel does after an error of the device."""
        _call("mount", "-o", "remount,ro", str(self.folder))

    def empty(self) -> None:
        """Give the space back."""
        (self.folder / "ballast").unlink()


def _call(*command: str) -> None:
    subprocess.run(command, check=True)


@pytest.fixture
def disk(tmp_path: Path, tally: Tally) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "small")
    try:
        yield made
        tally.survived("full disks")
    finally:
        _call("umount", "--lazy", str(made.folder))  # torch.save keeps a failed file open


def test_nothing_is_stopped_that_cannot_be_remembered(disk: SmallDisk) -> None:
    outside = Outside()
    disk.fill()
    window = Window(disk.folder, BACKEND, "http://ollama", outside)
    with pytest.raises(OSError, match="No space left"):
        window.open()
    assert outside.calls == []
    assert [path.name for path in disk.folder.iterdir()] == ["ballast"]
    disk.empty()
    window.open()
    window.close()
    assert outside.running


def test_the_service_comes_back_on_a_full_disk(disk: SmallDisk) -> None:
    """As `recover` does it: under the lock, whose file cannot be written either."""
    outside = Outside()
    with locks.workspace(disk.folder):
        Window(disk.folder, BACKEND, "http://ollama", outside).open()
    (disk.folder / "lock").write_text("", encoding="utf-8")
    disk.fill()
    with locks.workspace(disk.folder):
        with pytest.raises(WorkspaceBusy), locks.workspace(disk.folder):
            pass
        Window(disk.folder, None, world=outside).close()
    assert outside.running
    assert not (disk.folder / RECORD_FILE).exists()


def test_the_state_of_a_run_is_the_last_that_fitted(disk: SmallDisk) -> None:
    run = Run.create(disk.folder)
    run.write_state({"run": run.id, "stages": {"train": {"state": "running"}}})
    disk.fill()
    with pytest.raises(OSError, match="No space left") as caught:
        run.write_state({"run": run.id, "stages": {"train": {"state": "done"}}})
    assert caught.value.errno == errno.ENOSPC
    assert run.read_state().stages["train"].state == "running"
    assert sorted(path.name for path in run.folder.iterdir()) == ["logs", "run.json"]


def torch_saves(path: Path) -> None:
    torch.save({"moments": torch.zeros(1 << 20)}, path)


def safetensors_saves(path: Path) -> None:
    save_file({"weight": torch.zeros(1 << 20)}, path)


def tokenizers_saves(path: Path) -> None:
    words = {f"word{number}": number for number in range(1 << 17)}
    Tokenizer(WordLevel(words, unk_token="word0")).save(str(path))


@pytest.mark.parametrize("save", [torch_saves, safetensors_saves, tokenizers_saves])
@pytest.mark.parametrize("free", [0, 300_000])
def test_a_full_disk_has_its_name_whatever_library_writes(
    disk: SmallDisk, save: Callable[[Path], None], free: int
) -> None:
    """None of these raises an OSError; some remove what they have begun."""
    disk.fill(free)
    with (
        pytest.raises(DiskFull, match="the disk is full"),
        disk_named(disk.folder),
    ):
        save(disk.folder / "checkpoint")


def test_an_error_on_a_disk_with_room_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="another"), disk_named(tmp_path):
        raise RuntimeError("another")


@pytest.mark.parametrize("state", ["full", "read-only"])
@pytest.mark.parametrize("write", ["a file", "rows", "answers", "the result"])
def test_a_stage_says_path_cause_and_way_out_whatever_it_writes(
    disk: SmallDisk, state: str, write: str
) -> None:
    """As a container, or the driver, tells it: evaluate keeps answers, reprocess appends rows."""
    root = disk.folder / "workspace"
    folder = Store(root).prepare(job_of(EVALUATE, fingerprint="f")).parent
    files.make_folder(folder / "work" / "out")
    with AnswerCache(root / "cache" / "answers.sqlite"):
        pass
    (folder / "work" / "outcomes.jsonl").touch()
    for artifact in EVALUATE.outputs:
        (folder / "work" / "out" / artifact.filename).write_text("{}", encoding="utf-8")

    def work(context: StageContext[EvaluateParams]) -> EvaluateMetrics:
        if state == "full":
            disk.fill()
        else:
            disk.close()
        if write == "a file":
            files.write_json(context.output(VERDICT), {"promote": True})
        elif write == "answers":
            with AnswerCache(root / "cache" / "answers.sqlite") as cache:
                cache.put("key", {"text": "long" * 10_000})
        elif write == "rows":
            with (folder / "work" / "outcomes.jsonl").open("a", encoding="utf-8") as outcomes:
                outcomes.write("row" * 10_000)
        return EvaluateMetrics(rows=1, valid=1, promote=True, scores={})

    with pytest.raises((OSError, RetrainError)) as caught:
        execute(EVALUATE, job_of(EVALUATE, fingerprint="f"), root, folder, work, lambda _: None)
    error = from_os_error(caught.value) if isinstance(caught.value, OSError) else caught.value
    assert isinstance(error, DiskFull if state == "full" else FileUnusable)
    assert str(root) in error.what + error.why
    cause = "full" if state == "full" else "read-?only"
    assert re.search(f"{cause}|No space left", error.what + error.why, re.IGNORECASE)
    assert "workspace=PATH" in error.todo


def test_a_merge_by_peft_says_it_and_goes_on_once_there_is_space(
    disk: SmallDisk, tmp_path: Path
) -> None:
    base = make_base(tmp_path / "base", num_hidden_layers=2)
    adapter = make_adapter(tmp_path / "adapter", base, use_dora=True)
    root = disk.folder / "workspace"
    (root / "in").mkdir(parents=True)
    inputs = {"base": root / "in" / "base", "lora_adapter": root / "in" / "lora_adapter"}
    inputs["base"].symlink_to(base)
    inputs["lora_adapter"].symlink_to(adapter)
    disk.fill(60_000)
    with pytest.raises(DiskFull):
        run_stage(root, MERGE, merge.work, inputs, {"check_drift": False})
    assert not (folder_of(root, MERGE) / "out").exists()
    disk.empty()
    done = run_stage(root, MERGE, merge.work, inputs, {"check_drift": False})
    assert done.metrics["way"] == "peft"


def test_a_run_says_it_and_goes_on_once_there_is_space(disk: SmallDisk, tmp_path: Path) -> None:
    sample = files.ROOT / "examples/liga-sample"
    items = tmp_path / "items.jsonl"
    files.write_jsonl(items, list(files.read_jsonl(sample / "items.jsonl"))[:3])
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        json.dumps(
            {
                "workspace": str(disk.folder / "workspace"),
                "runner": "process",
                "min_free_gb": 0,
                "snapshot": {"items": [str(items)]},
                "fetch": {"path": str(tmp_path)},
            }
        ),
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "driver", "stage", "snapshot", "-c", str(settings)]
    (disk.folder / "workspace").mkdir()
    disk.fill()
    full = subprocess.run(command, cwd=files.ROOT, capture_output=True, text=True, check=False)
    assert full.returncode == DiskFull.exit_code, full.stdout + full.stderr
    assert "the disk is full" in full.stderr
    disk.empty()
    done = subprocess.run(command, cwd=files.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
