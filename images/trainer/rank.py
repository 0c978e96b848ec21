"""`python -m images.trainer.rank JOB PORT`: one of several processes that train as one.

Started by ranks.py only, which checks inputs and publishes outputs: a rank just trains.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from contracts import files
from contracts.entrypoint import Emit, StageContext, disk_named, print_event, tell
from contracts.params import TrainParams
from contracts.stage import Event, Job
from contracts.stages import TRAIN
from images.trainer import train
from images.trainer.world import World

JOB_FILE, METRICS_FILE = "rank_job.json", "rank_metrics.json"
"""In the stage's work folder: what the ranks are told, and what the first one answers."""


def main(argv: list[str]) -> int:
    """Train; return the exit code of contracts/errors.py."""
    events = sys.stdout

    def emit(event: Event) -> None:
        print_event(event, events)

    with contextlib.redirect_stdout(sys.stderr):
        try:
            _train(Path(argv[1]), int(argv[2]), World.here(), emit)
        except Exception as error:  # noqa: BLE001  # the last frame before the exit code
            return tell(TRAIN.name, error, emit)
    return 0


def _train(place: Path, port: int, world: World, emit: Emit) -> None:
    job = Job.model_validate_json(place.read_bytes())
    params = TrainParams.model_validate(job.params)
    folder = place.parents[1]  # STORE/train/FINGERPRINT/work/rank_job.json
    context = StageContext(
        TRAIN, job, params, folder.parents[2], folder, emit if world.rank == 0 else _silent
    )
    with disk_named(folder), world.joined(params.device, port):
        metrics = train.work(context)
    if world.rank == 0:
        files.write_json(place.with_name(METRICS_FILE), metrics.model_dump(mode="json"))


def _silent(event: Event) -> None:
    """Report nothing: all ranks do the same steps, and one tells of them."""


if __name__ == "__main__":
    code = main(sys.argv)
    sys.stderr.flush()
    # Not the interpreter's own end: it may wait for connections to a rank that is gone.
    os._exit(code)
