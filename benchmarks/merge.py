"""The merge on a CPU: the streaming one, PEFT's, and plainly copying the same bytes.

The model has the shape of Qwen3-1.7B with an untied head, 2.03 B random parameters in bf16 in four
files, and a LoRA of rank 16 on all seven projections. Each case is a process of its own, from its
start to its end, imports and the flush to the disk included; ours takes the digests of what it
writes as well, as the stage does. Times are the best of two rounds, memory is what was resident
at most, and the base lies in the page cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks import random_qwen3, ways
from benchmarks.comparison import show
from benchmarks.random_qwen3 import QWEN, SIZE_1_7B

QUICK = {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12}


def _compare(root: Path, *, quick: bool) -> None:
    """Print one line for each comparison; ratio above 1: ours is faster, or smaller."""
    size = {**QWEN, **(QUICK if quick else SIZE_1_7B), "vocab_size": 25_000 if quick else 151_936}
    parameters = random_qwen3.make(root, size)
    seconds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for _ in range(2):
        for way in ("copy", "ours", "peft"):
            taken, peak = measure(root, way)
            seconds.setdefault(way, []).append(taken)
            memory.setdefault(way, []).append(peak)
        _check_equal(root)
    name = f"merge of {parameters / 1e9:.2f} B parameters"
    for what, found, other, unit in (
        (f"{name}, against PEFT", seconds, "peft", "s"),
        (f"{name}, against a copy", seconds, "copy", "s"),
        (f"{name}, peak memory against PEFT", memory, "peft", "GB"),
    ):
        show(what, min(found["ours"]), min(found[other]), unit)


def measure(root: Path, way: str) -> tuple[float, float]:
    """Run one way in its own process; return seconds and gigabytes resident at most."""
    for old in ("store", "out"):
        shutil.rmtree(root / old, ignore_errors=True)
    os.sync()  # what others wrote is not to be waited for in this one's flush
    started = time.perf_counter()
    done = subprocess.run(
        ways.command("merge", way, root), capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    if way != "copy":
        kept = root / way
        shutil.rmtree(kept, ignore_errors=True)
        (root / ("out" if way == "peft" else "store/merge/bench/out/merged")).rename(kept)
    return taken, int(done.stdout.split()[-1]) * 1024 / 1e9


def _check_equal(root: Path) -> None:
    """Stop unless both ways wrote the same bits."""
    import torch
    from safetensors import safe_open

    places: dict[str, dict[str, Any]] = {}
    for way in ("ours", "peft"):
        opened = [safe_open(p, framework="pt") for p in (root / way).glob("*.safetensors")]
        places[way] = {name: tensors for tensors in opened for name in tensors.offset_keys()}  # type: ignore[no-untyped-call]
    mine, theirs = places["ours"], places["peft"]
    if set(mine) != set(theirs):
        raise SystemExit("the merged models have different tensors")
    for name, tensors in mine.items():
        if not torch.equal(tensors.get_tensor(name), theirs[name].get_tensor(name)):
            raise SystemExit(f"the merged models differ in {name}")


# --- the ways, each in a process of its own ------------------------------------------------------
def ours(root: Path) -> None:
    """Run the stage, from the job to the published result."""
    from contracts.stages import MERGE
    from images.merger import merge

    metrics = ways.run_stage(root, MERGE, merge.work, ("base", "lora_adapter"))
    if metrics["way"] != "streamed":
        raise SystemExit(f"not streamed: {metrics['why']}")
    _print_peak()


def peft(root: Path) -> None:
    """Load, merge and save by PEFT and transformers."""
    import torch

    from images.merger.with_peft import merge_with_peft
    from images.weights.lora import touched_modules
    from images.weights.shards import model_shards

    base, adapter, out = root / "base", root / "lora_adapter", root / "out"
    names = {entry.name for entries in model_shards(base).values() for entry in entries}
    touched = touched_modules(adapter, names)
    merge_with_peft(base, adapter, out, torch.bfloat16, touched, lambda _done, _total: None)
    _flush(out)
    _print_peak()


def copy(root: Path) -> None:
    """Copy the base."""
    shutil.copytree(root / "base", root / "out")
    _flush(root / "out")
    _print_peak()


def _flush(folder: Path) -> None:
    from contracts.files import fsync_path

    for path in folder.iterdir():
        fsync_path(path)


def _print_peak() -> None:
    # Not ru_maxrss: a new process begins with its parent's, and that made the model.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


WAYS = {"ours": ours, "peft": peft, "copy": copy}

if __name__ == "__main__":
    ways.main(
        __doc__,
        WAYS,
        _compare,
        quick="0.16 B parameters, under 50 s",
        takes="14 GB, 1 GB with --quick",
    )
