"""The power fails at random moments: what was told as done is there, what is there is whole.

On a real file system (cut_disk.py); tests/unit/test_power_loss.py cuts a model of one at every
single change. POWER_CUTS is the number of cuts of each test (4; `make faults`: a tenth of its
FAULTS), FAULT_SEED repeats a campaign.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts import files
from contracts.entrypoint import RESULT_FILE
from contracts.label_cache import LabelCache
from contracts.stage import Result
from contracts.stages import GGUF
from contracts.test_set import TestSet, path_of
from driver.store import Run, Store
from driver.window import Window
from tests.faults.cut_disk import CutDisk, cut_disk
from tests.faults.power_writer import FINGERPRINTS, WRITES, answer, weights
from tests.faults.tally import Tally

pytestmark = pytest.mark.slow

CUTS = int(os.environ.get("POWER_CUTS", max(4, int(os.environ.get("FAULTS", "20")) // 10)))
SEED = int(os.environ.get("FAULT_SEED", time.time_ns() % 1_000_000))
SAMPLE = files.ROOT / "examples/liga-sample"
STAGES = ("snapshot", "fetch", "label", "split", "train", "merge", "gguf")
"""Whose outputs are the same bytes each time."""


@pytest.fixture
def chance() -> random.Random:
    return random.Random(SEED)  # noqa: S311  # repeatable, no secret


# --- everything that is published ----------------------------------------------------------------
def promised(disk: CutDisk, first: int, count: int) -> dict[str, int]:
    """Let the writer write, kill it after so many promises, and return the last of each kind."""
    command = [sys.executable, "-m", "tests.faults.power_writer", str(disk.folder), str(first)]
    told: dict[str, int] = {}
    with subprocess.Popen(command, cwd=files.ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for number, line in enumerate(writer.stdout, 1):
            kind, told_number = line.split()
            told[kind] = int(told_number)
            if number == count:  # the next is under way: what it tells until it dies counts too
                writer.kill()
    return told


def require_promised(workspace: Path, told: dict[str, int]) -> None:
    """Fail unless everything told is there, and everything that is there is whole."""
    with LabelCache(workspace / "cache/labels.sqlite") as cache:
        keys = {f"key {number}": answer(number) for number in range(told["label"] + 1)}
        assert cache.attempts(list(keys)) == keys
    tested = TestSet.read(path_of(workspace, "t", "default")).tested
    assert tested >= {f"tested {number}" for number in range(told["test_set"] + 1)}
    states = [
        Run(workspace, path.name).read_state() for path in sorted((workspace / "runs").iterdir())
    ]
    numbers = {state["stages"]["train"]["number"] for state in states if state}  # type: ignore[index]
    assert numbers >= set(range(told["run"] + 1))
    _require_window(workspace, told)
    for number in range(max(0, told["result"] - 1), told["result"] + 1):
        result = Store(workspace).result("gguf", f"f{number % FINGERPRINTS}")
        assert result is not None
        assert (workspace / result.outputs[GGUF.name].path).read_bytes() == weights(number)
    for path in (workspace / "store/gguf").glob(f"*/{RESULT_FILE}"):
        require_whole(workspace, path)


def _require_window(workspace: Path, told: dict[str, int]) -> None:
    """Fail unless the record is there for an odd number, and gone for an even one."""
    window = Window(workspace, None)
    found = window.record().opened_at if window.is_open else None
    number = told["window"]
    possible = {number if number % 2 else None}
    if told["run"] > number:  # the next one is under way
        possible.add(None if number % 2 else number + 1)
    assert found in possible


def require_whole(workspace: Path, path: Path) -> Result:
    """Return what a result.json tells; fail unless every artifact of it is whole."""
    result = Result.model_validate_json(path.read_text(encoding="utf-8"))
    for output in result.outputs.values():
        assert files.digest_path(workspace / output.path) == output.digest, output.path
    return result


def test_what_was_told_is_there_after_a_power_cut(
    tmp_path: Path, chance: random.Random, tally: Tally
) -> None:
    first = 0
    with cut_disk(tmp_path, mib=96) as disk:
        for _ in range(CUTS):
            told = promised(disk, first, count=chance.randint(len(WRITES), 60))
            disk.cut()
            require_promised(disk.folder, told)
            first = min(told.values()) + 1
            tally.survived("a power cut while files were published")
