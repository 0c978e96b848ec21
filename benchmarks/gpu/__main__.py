"""The trainer on a GPU, at Qwen3-14B's real shape, beside the recipe that was in production.

    python -m benchmarks.gpu                              # one GPU; about ten minutes on an H100
    python -m benchmarks.gpu --device cpu                 # no GPU: the program is seen working

Base: random weights, with the few outlier dimensions that models of this size have. Rows: the
sample's, at their real lengths. Ours is the train stage itself, as its container runs it; theirs is
TRL with messages, padded rows and a loss on every token (plain_trl.py), on the same base, rows,
LoRA, precision and rows at once. In this order, so that what is cut off matters least:

    transformers   the train stage with transformers, PEFT and bitsandbytes
    trl            the recipe that was in production
    checks         whether packed rows keep apart with this device's attention (checks.py)
    unsloth        the train stage with Unsloth, where it is installed
    card           the first again, with no more memory free than a card of 24 GB has
    padded         the first again, without packing

Each is a process of its own with a time limit; what it had reached by then counts if it came to
three steps. --quick takes four of the 40 layers, or, without a GPU, the tiny model, and leaves out
the last two.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from contracts.errors import RetrainError, StageFailed, StageTimedOut

LIMITS_S = {
    "prepare": 150,
    "transformers": 180,
    "trl": 180,
    "checks": 120,
    "unsloth": 210,
    "card": 150,
    "padded": 150,
}
"""For an H100; --slower lengthens them."""
STEPS, QUICK_STEPS = 12, 3
ROWS, EPOCHS = 700, 3
"""Of the training whose time is projected."""
CARD_MIB = 24_000
"""What a card of 24 GB, such as an RTX 3090 (24,576 MiB), has free when nothing else is on it."""
_BASE_BYTES = {"14b": 30 << 30, "slice": 8 << 30, "tiny": 1 << 30}
"""What a base of each shape takes, and all that is written beside it."""
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a file system in memory, on every Linux
_DEVICE_SETTINGS: dict[str, dict[str, Any]] = {
    "cuda": {"device": "cuda"},
    "cpu": {"device": "cpu", "batch_size": 2, "micro_batch_size": 2},
}


def main() -> int:
    """Print one JSON line for each case; return an exit code of docs/reference/exit-codes.md."""
    given = _arguments()
    from benchmarks.gpu import machine  # finds what is missing before anything imports it

    if given.device is None:
        given.device = "cpu" if given.quick and not machine.has_gpu() else "cuda"
    if given.shape is None:
        given.shape = "tiny" if given.device == "cpu" else ("slice" if given.quick else "14b")
    try:
        machine.refuse_without(given.device)
        with _folder(given) as folder:
            return Benchmark(given, folder).run()
    except RetrainError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small shape, few steps")
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument("--shape", choices=sorted(_BASE_BYTES))
    parser.add_argument("--steps", type=int, help=f"of four rows; {STEPS}, quick {QUICK_STEPS}")
    parser.add_argument("--only", help="some of: " + ", ".join(list(LIMITS_S)[1:]))
    parser.add_argument("--budget", type=float, metavar="S", help="seconds for all of it")
    parser.add_argument("--slower", type=float, default=1.0, help="factor on every time limit")
    parser.add_argument(
        "--folder", type=Path, help="where base and rows are kept for another call; else in memory"
    )
    parser.add_argument("--out", type=Path, help="where figures and logs are kept")
    given = parser.parse_args()
    if unknown := set((given.only or "").split(",")) - {"", *LIMITS_S}:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    return given


@contextmanager
def _folder(given: argparse.Namespace) -> Iterator[Path]:
    """Give a folder for the base: the one asked for, else one in memory if there is room."""
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
        yield given.folder.resolve()
        return
    roomy = _SHARED_MEMORY.is_dir() and (
        shutil.disk_usage(_SHARED_MEMORY).free > _BASE_BYTES[given.shape]
    )
    with tempfile.TemporaryDirectory(dir=_SHARED_MEMORY if roomy else None) as name:
        yield Path(name)


class Benchmark:
    """One run over all cases."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        from benchmarks.gpu import machine
        from benchmarks.gpu.trainings import Place, Trained
        from benchmarks.gpu.watch import resident_mib

        self.cuda = given.device == "cuda"
        self.shape, self.device = given.shape, given.device
        self.steps = given.steps or (QUICK_STEPS if given.quick or not self.cuda else STEPS)
        self.only = set(given.only.split(",")) if given.only else set(LIMITS_S)
        if given.quick and not given.only:
            self.only -= {"card", "padded"}
        self.slower, self.quick = given.slower, given.quick
        self.ends = time.monotonic() + (given.budget or 1e9)
        self.out = given.out or folder / "out"
        self.out.mkdir(parents=True, exist_ok=True)
        self.card = machine.card() if self.cuda else None
        self.place = Place(
            folder=folder,
            logs=self.out,
            settings={
                **_DEVICE_SETTINGS[given.device],
                "backend": "transformers",
                "max_steps": self.steps,
                "eval_steps": self.steps,  # once, after the last step that is timed
                "reference_tokens": 0,  # for later stages, and not part of what is compared
                "min_loss_fall": 0,  # random weights learn little in so few steps
                "processes": 1,
            },
            environ={
                "CUDA_VISIBLE_DEVICES": self.card.uuid if self.card else "",
                "HF_HUB_OFFLINE": "1",
                "UNSLOTH_COMPILE_LOCATION": str(folder / "compiled"),
            },
            memory=machine.memory_of(self.card) if self.card else resident_mib,
        )
        self.trained: dict[str, Trained] = {}
        self.failed = 0

    def run(self) -> int:
        """Go through the cases; one that fails does not keep the others from running."""
        self._introduce()
        if not self._tried("prepare", self._prepare):
            return StageFailed.exit_code
        cases: dict[str, Callable[[float], None]] = {
            "transformers": self._transformers,
            "trl": self._trl,
            "checks": self._checks,
            "unsloth": self._unsloth,
            "card": self._card,
            "padded": self._padded,
        }
        for name, case in cases.items():
            if name in self.only:
                self._tried(name, case)
        return StageFailed.exit_code if self.failed else 0

    def _tried(self, name: str, case: Callable[[float], None]) -> bool:
        limit = min(LIMITS_S[name] * self.slower, self.ends - time.monotonic())
        if limit < 1:
            say(f"{name}: left out, the time is used up")
            return True
        started = time.monotonic()
        try:
            case(limit)
        except RetrainError as error:
            say(f"{name}: {error}")
            self.failed += 1
            return False
        finally:
            say(f"{name}: {time.monotonic() - started:.0f} s")
        return True

    # --- the cases -------------------------------------------------------------------------------
    def _prepare(self, limit_s: float) -> None:
        from benchmarks.gpu.trainings import tail

        rows = self.steps * self.place.params().batch_size
        command = ["benchmarks.gpu.prepare", str(self.place.folder)]
        command += ["--shape", self.shape, "--device", self.device, "--rows", str(rows)]
        seen = self.place.run("prepare", limit_s, command + (["--heads"] if self.cuda else []))
        if seen.code != 0:
            named = StageTimedOut if seen.code is None else StageFailed
            raise named("the base was not written", why=tail(self.out / "prepare.log"))

    def _transformers(self, limit_s: float) -> None:
        from benchmarks.gpu.trainings import ours

        self._keep("transformers", ours(self.place, "transformers", limit_s))
        self._against_estimate("transformers")

    def _trl(self, limit_s: float) -> None:
        from benchmarks.gpu.trainings import plain_trl

        mine = self.trained.get("transformers")
        rows = mine.rows_at_once if mine else self.place.params().batch_size
        self._keep("trl", plain_trl(self.place, limit_s, rows_at_once=rows))
        self._against("transformers", "trl")

    def _checks(self, limit_s: float) -> None:
        command = ["benchmarks.gpu.checks", str(self.place.folder), "--device", self.device]
        command += ["--quick"] if self.quick else []
        seen = self.place.run("checks", limit_s, command)
        for _, line in seen.events:
            self._tell(line)
        if seen.code != 0:
            from benchmarks.gpu.trainings import tail

            raise StageFailed("the checks did not end", why=tail(self.out / "checks.log"))

    def _unsloth(self, limit_s: float) -> None:
        from importlib.util import find_spec

        from benchmarks.gpu.trainings import ours

        if not self.cuda or find_spec("unsloth") is None:
            say("unsloth: not installed" if self.cuda else "unsloth: needs a GPU")
            return
        self._keep("unsloth", ours(self.place, "unsloth", limit_s, backend="unsloth"))
        self._against_estimate("unsloth")
        self._against("unsloth", "trl")

    def _card(self, limit_s: float) -> None:
        from benchmarks.gpu import machine
        from benchmarks.gpu.trainings import ours
        from benchmarks.gpu.watch import holding

        if self.card is None or self.card.total_mib - self.card.used_mib <= CARD_MIB:
            say("card: left out, there is no larger one")
            return
        command = [sys.executable, "-m", "benchmarks.gpu.ballast", str(CARD_MIB)]
        with holding(command, self.place.environ):
            taken = machine.memory_of(machine.card())
            found = ours(replace(self.place, memory=taken), "card", limit_s)
        self._keep("card", found)
        self._against_estimate("card")
        self._line("memory of the 24 GB card: taken, there", found.peak_mib, CARD_MIB, "MiB")
        self._against("card", "trl", memory=False)

    def _padded(self, limit_s: float) -> None:
        from benchmarks.gpu.trainings import ours

        self._keep("padded", ours(self.place, "padded", limit_s, packing="off"))
        mine, padded = self.trained.get("transformers"), self.trained["padded"]
        if mine is None:
            return
        self._line(
            "packed, against padded", mine.tokens_per_s, padded.tokens_per_s, "tokens/s", more=True
        )
        if mine.metrics and padded.metrics:
            for which in ("untrained_loss", "validation_loss"):
                name = f"{which.replace('_', ' ')}, packed and padded"
                self._line(name, mine.metrics[which], padded.metrics[which], "nats", digits=5)

    # --- what is said ----------------------------------------------------------------------------
    def _introduce(self) -> None:
        from benchmarks.gpu import machine

        where = f"{os.cpu_count()} CPUs, no GPU used"
        if self.card:
            where = f"{self.card.name}, {self.card.total_mib:,} MiB ({self.card.used_mib:,} taken "
            where += f"by others), driver {self.card.driver}"
        versions = ", ".join(f"{name} {found}" for name, found in machine.packages().items())
        say(f"{self.shape}, {self.steps} steps on {where}; {versions}")

    def _keep(self, name: str, found: Any) -> None:
        self.trained[name] = found
        say(
            f"{name}: {found.steps} steps, {found.rows_at_once} rows at once, "
            f"{found.tokens_per_s:,.0f} tokens/s, {found.peak_mib:,.0f} MiB, first step after "
            f"{found.start_s:.0f} s; {json.dumps(found.metrics)}"
        )

    def _against(self, name: str, other: str, *, memory: bool = True) -> None:
        if name not in self.trained or other not in self.trained:
            return
        mine, theirs = self.trained[name], self.trained[other]
        label = f"training with {name}, against plain TRL"
        self._line(label, mine.tokens_per_s, theirs.tokens_per_s, "tokens/s", more=True)
        if memory:
            self._line(f"{label}, peak memory", mine.peak_mib, theirs.peak_mib, "MiB")
        self._line(
            f"{label}, {ROWS} rows × {EPOCHS} epochs",
            self._projected_min(mine),
            self._projected_min(theirs),
            "min",
        )

    def _projected_min(self, found: Any) -> float:
        """Return the minutes of the whole training, without its evaluations after the first."""
        lengths = self.place.tokens("sample")
        tokens = ROWS * EPOCHS * sum(lengths) / len(lengths)
        return float(found.start_s + tokens / found.tokens_per_s) / 60

    def _against_estimate(self, name: str) -> None:
        from benchmarks.gpu.trainings import estimated_mib

        found = self.trained[name]
        estimate, terms = estimated_mib(self.place, found.rows_at_once)
        say(f"{name}, by estimate: {terms}")
        self._line(f"peak memory with {name}: measured, estimated", found.peak_mib, estimate, "MiB")

    def _line(self, name: str, mine: float, other: float, unit: str, **how: Any) -> None:
        from benchmarks.comparison import compared

        self._tell(compared(name, mine, other, unit, **how))

    def _tell(self, line: dict[str, Any]) -> None:
        where = self.shape if self.cuda else f"{self.shape}, on a CPU"
        text = json.dumps({**line, "name": f"{line['name']} [{where}]"})
        print(text, flush=True)
        with (self.out / "figures.jsonl").open("a", encoding="utf-8") as kept:
            kept.write(text + "\n")


def say(text: str) -> None:
    """Tell people."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
