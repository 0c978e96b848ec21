"""The power fails at random moments: what was told as done is there, what is there is whole.

On a real file system (cut_disk.py); tests/unit/test_power_loss.py cuts a model of one at every
single change. POWER_CUTS is the number of cuts of each test (4; `make faults`: a tenth of its
FAULTS), FAULT_SEED repeats a campaign.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts import files
from contracts.entrypoint import RESULT_FILE
from contracts.label_cache import LabelCache
from contracts.stage import Result
from contracts.stages import GGUF, LORA_ADAPTER
from contracts.test_set import TestSet, path_of
from driver.store import Run, Store
from driver.window import Window
from tests.faults.cut_disk import CutDisk, cut_disk
from tests.faults.power_writer import FINGERPRINTS, WRITES, answer, weights
from tests.faults.tally import Tally
from tests.small_demo import SmallDemo

pytestmark = pytest.mark.slow

CUTS = int(os.environ.get("POWER_CUTS", max(4, int(os.environ.get("FAULTS", "20")) // 10)))
SEED = int(os.environ.get("FAULT_SEED", time.time_ns() % 1_000_000))
LONGEST_S = 15.0
"""Of a driver's life before a cut: longer than a stage takes to start."""


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
    states = (Run(workspace, path.name).read_state() for path in (workspace / "runs").iterdir())
    numbers = {state.stages["train"].seconds for state in states if state.stages}
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
            tally.survived("power cuts while files were published")


# --- a whole run ---------------------------------------------------------------------------------
class Drivers:
    """Drivers of the small demo, one after the other, on a disk; all else lies elsewhere."""

    def __init__(self, place: Path, base: Path, workspace: Path) -> None:
        settings = (
            "min_free_gb=0",
            "train.max_steps=50",
            "train.eval_steps=10",
            "evaluate.limit=1",
            "evaluate.min_valid=0",
            "evaluate.min_rules=0",
            "verify.constrained=true",
        )
        self._demo = SmallDemo.make(place, base, workspace, *settings)
        self.workspace = workspace
        self.output = place / "driver.log"

    @contextmanager
    def driver(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a driver; afterwards nothing of it runs, its stages included."""
        command = self._demo.command(*words)
        with (
            self.output.open("wb") as log,
            subprocess.Popen(
                command, cwd=files.ROOT, stdout=log, stderr=log, start_new_session=True
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()
        deadline = time.monotonic() + 60
        while _names(self.workspace):  # it dies with the driver, a little later
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def to_the_end(self, *words: str) -> None:
        """Call a driver, and demand that it ends well."""
        with self.driver(*words) as process:
            assert process.wait(900) == 0, self.said()

    def said(self) -> str:
        """Return what the last driver said."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def told(self) -> set[str]:
        """Return the stages that it has told as done."""
        return set(re.findall(r"^\+ (\w+) ", self.said(), re.MULTILINE))

    def published(self) -> dict[str, Result]:
        """Return the result of each stage that has one; fail for one that is not whole."""
        places = (self.workspace / "store").glob(f"*/*/{RESULT_FILE}")
        return {path.parent.parent.name: require_whole(self.workspace, path) for path in places}


def _names(folder: Path) -> bool:
    """Return whether a process has the folder in its command line, as every stage has."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue  # gone
        if os.fsencode(folder) in words and f"/{os.getpid()}/" not in str(path):
            return True
    return False


def test_a_run_goes_on_after_power_cuts(
    tmp_path: Path, tiny_base: Path, chance: random.Random, tally: Tally
) -> None:
    tally.note(f"FAULT_SEED={SEED} for the power cuts")
    with cut_disk(tmp_path, mib=512) as disk:
        drivers = Drivers(tmp_path, tiny_base, disk.folder / "workspace")
        done: set[str] = set()
        for _ in range(CUTS):
            with drivers.driver("run") as process, contextlib.suppress(subprocess.TimeoutExpired):
                assert process.wait(chance.uniform(0.5, LONGEST_S)) == 0, drivers.said()
            done |= drivers.told()
            disk.cut()
            assert done <= drivers.published().keys(), "what was told as done is there"
            tally.survived("power cuts in the middle of a run")
        drivers.to_the_end("run")
        before = drivers.published()
        drivers.to_the_end("run")
        assert "Nothing has changed" in drivers.said()
        drivers.to_the_end("stage", "train")
        after = drivers.published()
        adapter = LORA_ADAPTER.name
        assert after["train"].outputs[adapter].digest == before["train"].outputs[adapter].digest
