"""The program that measures on a GPU, run on the tiny model, and what it says without a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from benchmarks.gpu import __main__ as benchmark
from benchmarks.gpu import trainings
from benchmarks.gpu.prepare import SHAPES
from benchmarks.gpu.watch import Watched
from contracts.errors import GpuUnavailable
from contracts.files import ROOT, write_json
from contracts.vram import QWEN3_14B, Shape
from tests.unit.nvml_double import RecordedNvml


@pytest.mark.slow
def test_it_runs_on_the_tiny_model(tmp_path: Path) -> None:
    """Ours, TRL and the checks, each in its process; figures are marked as a CPU's."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick"]
    done = subprocess.run(
        [*command, "--slower", "5", "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert all(name.endswith("[tiny, on a CPU]") for name in lines)
    assert (tmp_path / "out" / "figures.jsonl").read_text(encoding="utf-8") == done.stdout

    def line(start: str) -> dict[str, Any]:
        return next(line for name, line in lines.items() if name.startswith(start))

    for start in ("training with transformers, against plain TRL", "peak memory"):
        assert line(start)["ours"] > 0
        assert line(start)["other"] > 0
    loss = line("loss, packed and padded (fp32")
    assert loss["ours"] == pytest.approx(loss["other"], rel=1e-5)
    gradient = line("gradient, from that of single rows (fp32")
    assert gradient["ours"] < 1e-4
    apart = line("other rows, when one becomes another (fp32), against one text")
    assert apart["ours"] < 1e-4  # 0 with kernels that always sum in the same order
    assert apart["other"] > 0.01
    assert line("other rows, when one becomes another (8bit")["ours"] < 0.1


def test_without_a_gpu_it_says_what_is_missing(
    nvml: Callable[[Any], RecordedNvml],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    double = nvml("rtx3090")

    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(double, "nvmlInit", fail, raising=False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert benchmark.main() == GpuUnavailable.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert "no working NVIDIA driver" in said.err
    assert "docs/how-to/gpu-figures.md" in said.err
    assert (ROOT / "docs" / "how-to" / "gpu-figures.md").is_file()


def test_the_real_shape_is_the_one_that_memory_is_estimated_for() -> None:
    assert Shape.of(SHAPES["14b"]) == QWEN3_14B


def test_steps_are_counted_once_and_from_the_last_begin() -> None:
    told = [(1, 1), (1, 1.1), (2, 2), (1, 11), (2, 12), (2, 12.5), (3, 13)]
    events: list[tuple[float, dict[str, Any]]] = [
        (at, {"unit": "steps", "done": step, "total": 3}) for step, at in told
    ]
    events.insert(0, (0.5, {"error": {}}))
    assert Watched(None, 0.0, events, 0.0).steps() == [11, 12, 13]


def test_what_was_reached_in_the_time_counts(tmp_path: Path) -> None:
    """Two rows of 10 and 30 tokens a step, a second a step: 40 tokens/s."""
    (tmp_path / "trl.log").touch()
    write_json(tmp_path / "prepared.json", {"train": [10, 30] * 4})
    settings = {"device": "cpu", "batch_size": 2, "micro_batch_size": 2, "max_steps": 4}
    place = trainings.Place(tmp_path, tmp_path, settings, {}, lambda _pid: 0)
    steps = [(float(at), {"unit": "steps", "done": at - 4}) for at in (5, 6, 7)]
    seen = Watched(None, 1.0, steps, 500.0)
    found = trainings._trained(place, "trl", seen, place.tokens("train"), 2, {})
    assert found.tokens_per_s == 40
    assert found.start_s == 3
    assert (found.steps, found.peak_mib) == (3, 500)


def test_the_pack_has_the_trainers_unsloth() -> None:
    pin = re.compile(r"^unsloth==\S+$", re.MULTILINE)
    both = (ROOT / "benchmarks/gpu/host.txt", ROOT / "images/trainer/requirements.txt")
    packed, trained = (pin.findall(path.read_text(encoding="utf-8")) for path in both)
    assert packed == trained != []
