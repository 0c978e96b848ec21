"""How many rows are computed at once: chosen to fit the memory, halved when that was too much.

An optimizer step is over `batch_size` rows whatever happens, and over the same ones (order.py). So
a checkpoint stays good when less is computed at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from contracts import files, fit
from contracts.errors import OutOfMemory
from contracts.params import TrainParams
from contracts.vram import MIB, Shape, Training, UnknownShape

RECORD = "batching.json"
_OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
"""In the text of what is not torch's own `OutOfMemoryError`: CUDA's, cuBLAS's, a CPU's."""
_GROUP = Path("/sys/fs/cgroup")
"""A container's own control group, as it sees it."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batching:
    """The rows at once of one training, over all of its restarts."""

    folder: Path
    """Where it is written down."""
    params: TrainParams
    """The settings, with the micro-batch settled."""
    chosen: int
    """The micro-batch that was chosen first; less where the memory was not enough for it."""
    training: Training | None
    """What its memory is estimated from; None for a base of unknown shape."""
    processes: int = 1
    """How many of them share a step, each on a device of its own."""

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Name the error when the base alone is too much: fewer rows at once would not help."""
        try:
            yield
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            raise self._named("loading the base ran out of memory", error) from error

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """On an out-of-memory error go on with half the rows at once, in a fresh process.

        Raises `OutOfMemory`, saying what would help, where one row at once was too much. Raises it
        too in one of several processes, which cannot begin anew by itself; then the record has
        changed, and their parent starts all of them again.
        """
        try:
            yield
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if self.params.rows_at_once == 1:
                what = "training ran out of memory with one row at once"
                raise self._named(what, error) from error
            smaller = fit.halved(self.params.rows_at_once)
            _record(self.folder, self.chosen, smaller)
            if self.processes > 1:
                what = f"training ran out of memory; the next try is with micro-batch {smaller}"
                raise OutOfMemory(what, why=_first_line(error)) from error
            _log.warning("%s; going on with micro-batch %d", _first_line(error), smaller)
            restart()

    def _named(self, what: str, error: RuntimeError) -> OutOfMemory:
        # It was too much, whatever the estimate says: so nothing is said to be enough.
        ways = fit.savings(self.training, free_mib=0) if self.training else []
        named = [f"{way.setting} (saves about {way.mib:,} MiB)" for way in ways if way.mib > 0]
        return OutOfMemory(what, why=_first_line(error), todo=fit.advice(named))


def settle(
    folder: Path,
    params: TrainParams,
    base: Path,
    *,
    longest: int,
    processes: int = 1,
    divided: bool = False,
) -> Batching:
    """Return the batching recorded in `folder`; else choose one, and record it.

    `longest` is the length of the longest row in tokens. Of several processes, which may have
    `divided` the base, one has to ask, and tell the others; what fewer of them have recorded may be
    too much for each of more, and is lowered. Raises `OutOfMemory` where not one such row fits, by
    estimate; a micro-batch of the settings is tried without asking.
    """
    training = None
    try:
        training = Training.of(params, Shape.read(base), rows=1, length=longest)
        training = replace(training, shares=processes if divided else 1)
    except UnknownShape as error:
        _log.warning("memory cannot be estimated: %s", error)
    kept = recorded(folder)
    rows_a_step = params.batch_size // processes
    if kept is None:
        rows = params.micro_batch_size or _choose(training, params, processes)
        kept = rows, rows
        _record(folder, *kept)
    chosen, most = kept
    rows = next(each for each in fit.divisors(rows_a_step) if each <= most)
    settled = params.model_copy(update={"micro_batch_size": rows})
    return Batching(folder, settled, chosen, training, processes)


def recorded(folder: Path) -> tuple[int, int] | None:
    """Return the rows at once as chosen first, and as an earlier process has kept to."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return int(found["chosen"]), int(found["rows_at_once"])
    except FileNotFoundError:
        return None


def restart() -> None:
    """Put a fresh process of the same command in this one's place; does not return.

    What CUDA holds after an out-of-memory error is in pieces, and the traceback keeps tensors
    alive; a new process has neither. Its id, parent and output stay.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    for number in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        # A device that stayed open would go on holding the GPU's memory.
        if number > 2:
            with contextlib.suppress(OSError):  # the listing's own is closed by now
                os.set_inheritable(number, False)
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606  # the very command that runs already


def free_mib(device: str, processes: int = 1) -> int:
    """Return what this process can have: of the GPU, or of this machine's or container's memory.

    On a GPU that is what is free beside its context, on a CPU what it holds already counts too, and
    what is free is shared with the training's other `processes`.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) // MIB
    with Path("/proc/meminfo").open(encoding="ascii") as lines:
        found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    free = int(found["MemAvailable"].split()[0]) // 1024
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        free = min(free, _free_in_group_mib(_GROUP))
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return free // processes + pages * resource.getpagesize() // MIB


def _free_in_group_mib(group: Path) -> int:
    """Return what is left of a control group's limit (cgroup v2: Linux, admin-guide/cgroup-v2).

    Pages of files that were read, as the base is, count as used there; as in MemAvailable they do
    not here, since the kernel takes them back when memory is asked for.
    """
    limit, used = (
        int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current")
    )
    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    parts = {name: int(value) for name, value in map(str.split, lines)}
    files_read = sum(parts.get(name, 0) for name in ("active_file", "inactive_file"))
    return (limit - used + files_read) // MIB


def _choose(training: Training | None, params: TrainParams, processes: int) -> int:
    if training is None:
        return 1
    free = free_mib(params.device, processes)
    where = "" if params.device == "cuda" else fit.one_of(processes, "this machine's memory")
    rows_a_step = params.batch_size // processes
    rows = fit.choose(training, rows_a_step=rows_a_step, free_mib=free, where=where)
    memory = training.with_rows(rows).memory()
    _log.warning(
        "%d rows of up to %d tokens at once: about %d of %d MiB (%s)",
        *(rows, training.length, memory.total, free, memory.text()),
    )
    return rows


def _record(folder: Path, chosen: int, rows: int) -> None:
    files.write_json(folder / RECORD, {"chosen": chosen, "rows_at_once": rows})


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in str(error) for text in _OUT_OF_MEMORY
    )


def _first_line(error: RuntimeError) -> str:
    return str(error).split("\n", maxsplit=1)[0]
