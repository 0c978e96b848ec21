"""Writes all that survives a power cut, again and again, and tells on stdout what is done.

    python -m tests.faults.power_writer WORKSPACE FIRST

Each line is `KIND NUMBER`: printed when the call has returned, and so is the promise.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from contracts import files
from contracts.entrypoint import StageContext, execute
from contracts.label_cache import LabelCache
from contracts.params import GgufMetrics, GgufParams
from contracts.stages import CONVERT, GGUF, GGUF_VARIANTS
from contracts.test_set import TestSet, path_of
from driver.settings import BackendSettings
from driver.store import Run, Store
from driver.window import Window
from driver.window_record import RECORD_FILE, Record
from tests.jobs import job_of

ATTEMPT = {
    "seed": 1,
    "text": "x" * 2000,
    "finished": True,
    "reason": "stop",
    "prompt_tokens": 1,
    "answer_tokens": 1,
    "seconds": 0.5,
}
FINGERPRINTS = 3
"""Results are written under these in turn, so that each is made anew again and again."""


def answer(number: int) -> list[dict[str, object]]:
    """Return what the label cache keeps under a number."""
    return [{**ATTEMPT, "seed": number}]


def weights(number: int) -> bytes:
    """Return the artifact of a number: of one size, and large enough for many blocks."""
    return f"{number:08}".encode() * 40_000


def _write_label(workspace: Path, number: int) -> None:
    with LabelCache(workspace / "cache/labels.sqlite") as cache:
        cache.put(f"key {number}", answer(number))


def _write_test_set(workspace: Path, number: int) -> None:
    path = path_of(workspace, "t", "default")
    more = TestSet.read(path).with_more(
        {f"tested {number}": f"text-{number}"}, {f"seen {number}": f"other-{number}"}
    )
    more.write(path)


def _write_run(workspace: Path, number: int) -> None:
    run = Run.create(workspace)
    run.write_state({"run": run.id, "stages": {"train": {"seconds": number}}})


def _write_window(workspace: Path, number: int) -> None:
    """Write and forget the record in turn, as `open` and `close` do."""
    window = Window(workspace, None)
    if number % 2:
        backend = BackendSettings(container=f"backend-{number}")
        window._write(Record(backend=backend, stop=True, opened_at=number))
    else:
        (workspace / RECORD_FILE).unlink(missing_ok=True)
        files.fsync_path(workspace)


def _write_result(workspace: Path, number: int) -> None:
    job = job_of(
        CONVERT,
        GgufParams(),
        run=str(number),
        fingerprint=f"f{number % FINGERPRINTS}",
        code_digest="c",
        task="t",
    )
    folder = Store(workspace).prepare(job).parent
    execute(CONVERT, job, workspace, folder, _work, lambda _: None)


def _work(context: StageContext[GgufParams]) -> GgufMetrics:
    for path in (context.output(GGUF), context.output(GGUF_VARIANTS) / "other.gguf"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(weights(int(context.job.run)))
    return GgufMetrics(bytes=320_000, tensors=1, architecture="qwen3")


WRITES = {
    "label": _write_label,
    "test_set": _write_test_set,
    "run": _write_run,
    "window": _write_window,
    "result": _write_result,
}


def main(workspace: Path, first: int) -> Iterator[str]:
    """Yield each promise when it is due."""
    for number in itertools.count(first):
        for kind, write in WRITES.items():
            write(workspace, number)
            yield f"{kind} {number}"


if __name__ == "__main__":
    for promise in main(Path(sys.argv[1]), int(sys.argv[2])):
        print(promise, flush=True)  # noqa: T201  # the interface
