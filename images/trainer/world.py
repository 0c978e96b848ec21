"""Which of the processes that train together this one is, and what they do in common.

The processes are made by ranks.py, which tells each its number by torch's usual environment
(RANK, LOCAL_RANK, WORLD_SIZE). All are on one host.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

HOST = "127.0.0.1"
_PATIENCE = timedelta(minutes=30)
"""How long one process waits for another: while a large base is read from a slow disk, say. That
one has died is not found out by this, but by the parent of both."""


@dataclass(frozen=True)
class World:
    """The number of a process, and of how many."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> World:
        """Return the world that this process was started for: itself alone, without ranks.py."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @contextlib.contextmanager
    def joined(self, device: str, port: int) -> Iterator[None]:
        """Meet the others at the parent's store on `port`; leave them when all is well.

        After an error nothing is waited for: the others may never come to where this one is.
        """
        store = dist.TCPStore(HOST, port, is_master=False, timeout=_PATIENCE)
        mine = None
        if device == "cuda":
            mine = torch.device("cuda", self.rank)
            torch.cuda.set_device(mine)
        dist.init_process_group(
            "nccl" if mine else "gloo",
            store=store,
            rank=self.rank,
            world_size=self.size,
            timeout=_PATIENCE,
            device_id=mine,
        )
        yield
        dist.barrier()
        dist.destroy_process_group()

    def decided(self, decide: Callable[[], T]) -> T:
        """Let the first process decide, once, and return its answer in all of them."""
        if self.size == 1:
            return decide()
        answer = [decide() if self.rank == 0 else None]
        dist.broadcast_object_list(answer, src=0)
        return answer[0]  # type: ignore[return-value]

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let one process after the other do what needs the host's memory."""
        for _ in range(self.rank):
            dist.barrier()
        yield
        for _ in range(self.rank, self.size):
            dist.barrier()
