"""Ways to the same model, each in a process of its own, and a stage run as one of them."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.stage import InputRef, Metrics, Stage

Way = Callable[[Path], None]
"""Works in a folder, and prints what it took."""


def main(
    doc: str | None,
    ways: Mapping[str, Way],
    compare: Callable[..., None],
    *,
    quick: str,
    takes: str,
) -> None:
    """Call `compare(folder, quick=…)`, or, in a process that `command` has started, one way.

    `quick` and `takes` are for people: how small --quick is, and what is written.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--folder", help=f"where to write; {takes}")
    parser.add_argument("--way", choices=sorted(ways), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        ways[given.way](Path(given.folder))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        compare(Path(folder), quick=given.quick)


def command(benchmark: str, way: str, root: Path) -> list[str]:
    """Return the command line of one way of a benchmark."""
    return [sys.executable, "-m", f"benchmarks.{benchmark}", "--way", way, "--folder", str(root)]


def run_stage(
    root: Path, stage: Stage, work: Callable[..., Metrics], inputs: Sequence[str]
) -> dict[str, Any]:
    """Run a stage on inputs that lie in `root` under these paths; return its metrics."""
    # Imported here, since the start of a process counts to its way.
    from contracts.entrypoint import execute
    from contracts.files import size_of
    from contracts.stages import REFERENCE
    from tests.jobs import job_of
    from tests.unit.references import write_empty

    references = {
        Path(path).name: InputRef(
            path=path,
            digest="",  # the driver has it from the stage before
            bytes=sum(file.stat().st_size for file in (root / path).iterdir()),
        )
        for path in inputs
    }
    record = write_empty(root / "reference.json")  # nothing to compare with: work alone counts
    references[REFERENCE.name] = InputRef(path=record.name, digest="", bytes=size_of(record))
    job = job_of(stage, inputs=references, run="", fingerprint="", task="bench")
    folder = root / "store" / stage.name / "bench"
    return execute(stage, job, root, folder, work, lambda _event: None).metrics
