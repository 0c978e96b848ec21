"""From base and adapter to a q8_0 GGUF: one pass beside merge and conversion.

The model has the shape of Qwen3-1.7B with an untied head, 2.03 B random parameters in bf16, Qwen's
own vocabulary, and a LoRA of rank 16 on all seven projections. Each stage is a process of its own
from start to end, imports, flush and digests included, and begins with the models' files out of the
page cache, as where 28 GB do not stay there. CPU time, and what was read from the disk and written
to it, are the kernel's counts for the process and its children. Disk is the most that the stages'
folders held at once; memory is the most that the processes held at once, files that are mapped left
out. Both results are the same bytes, or the benchmark fails.
"""

from __future__ import annotations

import filecmp
import json
import os
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import random_qwen3, ways
from benchmarks.comparison import show
from benchmarks.random_qwen3 import QWEN, SIZE_1_7B
from contracts.files import ROOT

QUICK = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4}
VOCABULARY = 151_936
_POLL_S = 0.05
_GB = 1e9


@dataclass(frozen=True)
class Taken:
    """What one way took; bytes but for the time."""

    wall_s: float
    cpu_s: float
    read: int
    written: int
    disk: int
    memory: int

    def then(self, other: Taken) -> Taken:
        """Return what both took, one after the other in the same folders."""
        return Taken(
            self.wall_s + other.wall_s,
            self.cpu_s + other.cpu_s,
            self.read + other.read,
            self.written + other.written,
            max(self.disk, other.disk),
            max(self.memory, other.memory),
        )


def _compare(root: Path, *, quick: bool) -> None:
    """Print one line for each comparison; ratio above 1: one pass takes less."""
    parameters = _make(root, {**QWEN, **(QUICK if quick else SIZE_1_7B), "vocab_size": VOCABULARY})
    rounds = [(_one_pass(root), _two_steps(root)) for _ in range(1 if quick else 2)]
    one, two = (min(found, key=lambda taken: taken.wall_s) for found in zip(*rounds, strict=True))
    name = f"one pass of {parameters / 1e9:.2f} B parameters to q8_0, against two steps"
    for what, mine, other, unit in (
        ("wall", one.wall_s, two.wall_s, "s"),
        ("CPU", one.cpu_s, two.cpu_s, "s"),
        ("read", one.read / _GB, two.read / _GB, "GB"),
        ("written", one.written / _GB, two.written / _GB, "GB"),
        ("peak disk", one.disk / _GB, two.disk / _GB, "GB"),
        ("peak memory", one.memory / _GB, two.memory / _GB, "GB"),
    ):
        show(f"{name}: {what}", mine, other, unit)


def _make(root: Path, size: dict[str, int]) -> int:
    from examples import tiny_qwen3

    parameters = random_qwen3.make(root, size)
    tiny = ROOT / ".cache" / "tiny-qwen3"  # where `make demo` keeps it; for its tokenizer
    tiny_qwen3.make(tiny)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(tiny / name, root / "base" / name)
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    config |= json.loads((root / "base" / "config.json").read_text(encoding="utf-8"))
    config.pop("layer_types", None)  # one a layer
    (root / "base" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return parameters


def _one_pass(root: Path) -> Taken:
    shutil.rmtree(root / "store", ignore_errors=True)
    taken = measure(root, "one_pass")
    (root / "store/gguf/bench/out/model.gguf").replace(root / "one_pass.gguf")
    return taken


def _two_steps(root: Path) -> Taken:
    shutil.rmtree(root / "store", ignore_errors=True)
    taken = measure(root, "merge").then(measure(root, "convert"))
    if not filecmp.cmp(root / "store/gguf/bench/out/model.gguf", root / "one_pass.gguf", False):
        raise SystemExit("one pass gave other bytes than two steps")
    return taken


def measure(root: Path, way: str) -> Taken:
    """Run one stage in its own process, and watch it."""
    _forget(root)
    command = ways.command("one_pass", way, root)
    disk = memory = 0
    started = time.perf_counter()
    with (root / "told").open("w+", encoding="utf-8") as told:
        process = subprocess.Popen(command, stdout=told, stderr=told, start_new_session=True)
        while process.poll() is None:
            disk, memory = max(disk, _disk(root / "store")), max(memory, _memory(process.pid))
            time.sleep(_POLL_S)
        taken = time.perf_counter() - started
        told.seek(0)
        lines = told.read().splitlines()
    if process.returncode:
        raise SystemExit("\n".join(lines[-20:]))
    cpu, read, written = lines[-1].split()
    disk = max(disk, _disk(root / "store"))
    return Taken(taken, float(cpu), int(read), int(written), disk, memory)


def _forget(root: Path) -> None:
    """Put the models' files out of the page cache."""
    os.sync()
    for path in root.rglob("*.safetensors"):
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _disk(folder: Path) -> int:
    """Return the bytes that a folder's files take, those that vanish meanwhile left out."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(parent) / name).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _memory(group: int) -> int:
    """Return the bytes that the processes of a group hold of their own (RssAnon in proc(5))."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) != group:
                continue
            status = (folder / "status").read_text(encoding="ascii")
        except (OSError, ValueError):
            continue
        of_its_own = [line for line in status.splitlines() if line.startswith("RssAnon:")]
        total += sum(int(line.split()[1]) * 1024 for line in of_its_own)
    return total


# --- the stages, each in a process of its own ----------------------------------------------------
def one_pass(root: Path) -> None:
    """Convert base and adapter together."""
    from contracts.stages import convert_stage
    from images.gguf import convert

    stage = convert_stage(one_pass=True, imatrix=False)
    ways.run_stage(root, stage, convert.work, ("base", "lora_adapter"))
    _print_counts()


def merge(root: Path) -> None:
    """Write the merged model."""
    from contracts.stages import MERGE
    from images.merger import merge as merger

    ways.run_stage(root, MERGE, merger.work, ("base", "lora_adapter"))
    _print_counts()


def convert(root: Path) -> None:
    """Convert the merged model."""
    from contracts.stages import CONVERT
    from images.gguf import convert as converter

    ways.run_stage(root, CONVERT, converter.work, ("store/merge/bench/out/merged",))
    _print_counts()


def _print_counts() -> None:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in used)
    # Of the children, too, once they have been waited for.
    told = Path("/proc/self/io").read_text(encoding="ascii")
    counts = dict(line.split(": ") for line in told.splitlines())
    print(cpu, counts["read_bytes"], counts["write_bytes"])


WAYS = {"one_pass": one_pass, "merge": merge, "convert": convert}

if __name__ == "__main__":
    ways.main(
        __doc__,
        WAYS,
        _compare,
        quick="0.04 B parameters, under 50 s",
        takes="15 GB, 1 GB with --quick",
    )
