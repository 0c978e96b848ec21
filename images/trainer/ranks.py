"""Several processes that train as one: how many, what each is told, and what comes of them.

The stage's own process holds no model then. It starts one process (a rank) for each GPU, passes on
what rank 0 reports, and raises the error of the first that fails, once the others are ended.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

import torch
import torch.distributed as dist

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import OutOfMemory
from contracts.params import TrainMetrics, TrainParams
from images.trainer import rank, train
from images.trainer.batching import recorded
from images.trainer.supervisor import supervise
from images.trainer.world import HOST

_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""What tells a rank its place. Clusters set these too, for whatever is started in their jobs, and a
training that is alone would wait for others who never come."""
_log = logging.getLogger(__name__)


def work(context: StageContext[TrainParams]) -> TrainMetrics:
    """Train the adapter, in as many processes as the settings and the GPUs say."""
    gpus = torch.cuda.device_count() if context.params.device == "cuda" else 0
    size = context.params.processes_on(gpus)
    for name in _PLACE:
        os.environ.pop(name, None)
    return train.work(context) if size == 1 else _spread(context, size)


def _spread(context: StageContext[TrainParams], size: int) -> TrainMetrics:
    context.work.mkdir(parents=True, exist_ok=True)
    job = context.job.model_copy(update={"params": context.params.model_dump(mode="json")})
    files.write_json(context.work / rank.JOB_FILE, job.model_dump(mode="json"))
    answer = context.work / rank.METRICS_FILE
    answer.unlink(missing_ok=True)  # of an earlier try
    before = recorded(context.work)
    while True:
        try:
            _run(context, size)
            return TrainMetrics.model_validate_json(answer.read_bytes())
        except OutOfMemory as error:
            now = recorded(context.work)
            if now is None or not _is_smaller(now, before):
                raise
            _log.warning("%s; all ranks start again", error.what)
            before = now


def _run(context: StageContext[TrainParams], size: int) -> None:
    # The meeting place lives here, so that its port is known at once and nobody else can take it;
    # the socket is bound here too, since torch would let the whole network in.
    listening = socket.create_server((HOST, 0))
    port = listening.getsockname()[1]
    store = dist.TCPStore(
        HOST,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    place = str(context.work / rank.JOB_FILE)
    command = [sys.executable, "-m", rank.__name__, place, str(store.port)]
    supervise(command, [_environment(number, size) for number in range(size)], context.emit)


def _is_smaller(now: tuple[int, int], before: tuple[int, int] | None) -> bool:
    """Return whether a try has lowered the rows at once; see batching.py for the record."""
    chosen, rows = now
    return rows < (chosen if before is None else before[1])


def _environment(number: int, size: int) -> dict[str, str]:
    """Return what a rank is told: its place, and to speak to the others over the loopback."""
    threads = max(1, len(os.sched_getaffinity(0)) // size)
    return {
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": "lo",  # a container without network has no other,
        "NCCL_SOCKET_IFNAME": "lo",  # and no address for its own name
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
    }
