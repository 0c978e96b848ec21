"""The streaming merge: one shard after the other, tensor by tensor, in blocks.

What is computed stands in images/weights/arithmetic.py. A shard is written under a temporary name,
flushed, renamed, and noted with its digest; a merge that was killed goes on behind the last shard
noted.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, Self

import torch

from contracts import files
from contracts.errors import BaseModelMissing
from contracts.safetensors_header import Entry
from images.weights.arithmetic import BLOCK, check_finite, merge_block, unscaled
from images.weights.lora import Update
from images.weights.notes import Notes, state
from images.weights.shards import FLOATS, layout

_IN_FLIGHT = 4  # blocks that may wait to be digested and written
_QUIET_S = 0.5


@dataclass(frozen=True)
class Shard:
    """A finished file of the merged model."""

    digest: str
    bytes: int
    changed: list[str]
    """Tensors that differ from the base's in the same type."""


class Progress:
    """What is finished: `merge.json` in the stage's work folder, which survives a kill.

    `inputs` says what the shards were made from; another value, and all of them are made anew.
    """

    def __init__(self, path: Path, inputs: Mapping[str, Any]) -> None:
        self._notes = Notes(path, inputs)

    def finished(self, source: Path, target: Path) -> Shard | None:
        """Return the shard if it is whole and made from this very file of the base."""
        note = self._notes.get(target.name)
        if note is None or note["source"] != state(source) or not target.is_file():
            return None
        if note["target"] != state(target):
            return None
        return Shard(note["digest"], target.stat().st_size, note["changed"])

    def note(self, source: Path, target: Path, shard: Shard) -> None:
        """Note a finished shard, durably."""
        note = {
            "source": state(source),
            "target": state(target),
            "digest": shard.digest,
            "changed": shard.changed,
        }
        self._notes.put(target.name, note)


def write_shard(
    source: Path,
    entries: Iterable[Entry],
    target: Path,
    dtype: torch.dtype,
    updates: Mapping[str, Update],
    advance: Callable[[int], None],
) -> Shard:
    """Merge one file of the base into `target`, published by rename; return its digest.

    `advance` hears of bytes written. Of a tensor no more is held than a block, and the product
    B @ A where it has a LoRA. Raises `SentinelTripped` for NaN or infinity in what is merged.
    """
    by_name = {entry.name: entry for entry in entries}
    header, places = layout((e.name, dtype, e.shape) for e in by_name.values())
    partial = target.with_name(f".{target.name}.partial")
    changed = []
    with ExitStack() as stack:
        stream = stack.enter_context(partial.open("wb"))
        read = stack.enter_context(source.open("rb", buffering=0))
        os.posix_fadvise(read.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        sink = stack.enter_context(_Sink(stream, BLOCK * dtype.itemsize, advance))
        sink.send(bytearray(header), len(header))
        for place in places:
            name = place.name
            if _write_tensor(read.fileno(), by_name[name], dtype, updates.get(name), sink):
                changed.append(name)
        digest = sink.finish()
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(target)
    files.fsync_path(target.parent)
    return Shard(digest, target.stat().st_size, changed)


@contextmanager
def spared_threads() -> Iterator[None]:
    """Leave two cores to the threads that digest and write.

    PyTorch's own threads wait for each other in every operation; where they had to share the cores
    with others, a merge took three times as long. How many there are changes no bit: each value of
    B @ A is one sum over the rank, which no thread gets a part of.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, len(os.sched_getaffinity(0)) - 2)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write_tensor(
    source: int, entry: Entry, dtype: torch.dtype, update: Update | None, sink: _Sink
) -> bool:
    """Send one merged tensor, block by block; return whether it differs from the base's."""
    stored = FLOATS[entry.dtype]
    value = unscaled(update)
    changed = False
    before = bytearray(BLOCK * stored.itemsize)
    for start in range(0, entry.elements, BLOCK):
        count = min(BLOCK, entry.elements - start)
        offset, out = entry.begin + start * stored.itemsize, sink.take()
        new = torch.frombuffer(out, dtype=dtype, count=count)
        if value is None and stored == dtype:
            _read_exactly(source, memoryview(out)[: count * stored.itemsize], offset)
        else:
            _read_exactly(source, memoryview(before)[: count * stored.itemsize], offset)
            old = torch.frombuffer(before, dtype=stored, count=count)
            if value is None:
                new.copy_(old)
            else:
                differs = merge_block(old, value[start : start + count], update, new)
                changed = changed or differs
        check_finite(entry.name, new)
        sink.send(out, count * dtype.itemsize)
    return changed


def _read_exactly(source: int, into: memoryview, offset: int) -> None:
    done = 0
    while done < len(into):
        got = os.preadv(source, [into[done:]], offset + done)
        if got == 0:
            raise BaseModelMissing("a file of the base model ended while it was read")
        done += got


class _Sink:
    """Digests and writes blocks in two threads, while the next one is computed.

    `take` gives a buffer, `send` hands it over, and an error of a thread comes up at a later
    `take` or at `finish`. At most `_IN_FLIGHT` buffers exist.
    """

    def __init__(self, stream: BufferedWriter, size: int, advance: Callable[[int], None]) -> None:
        self._stream, self._size, self._advance = stream, size, advance
        self._digest = hashlib.sha256()
        self._hashing, self._writing = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._flying: deque[tuple[bytearray, int, tuple[Future[Any], Future[Any]]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._hashing, self._writing):
            pool.shutdown(cancel_futures=True)

    def take(self) -> bytearray:
        """Return a buffer of a block's size, when necessary one that has been written."""
        if len(self._flying) < _IN_FLIGHT:
            return bytearray(self._size)
        buffer = self._land()
        return buffer if len(buffer) == self._size else bytearray(self._size)

    def send(self, buffer: bytearray, count: int) -> None:
        """Digest and write the first `count` bytes; the buffer is the sink's from here on."""
        part = memoryview(buffer)[:count]
        futures = (
            self._hashing.submit(self._digest.update, part),
            self._writing.submit(self._stream.write, part),
        )
        self._flying.append((buffer, count, futures))

    def finish(self) -> str:
        """Wait for all that was sent; return the SHA-256 of it."""
        while self._flying:
            self._land()
        return self._digest.hexdigest()

    def _land(self) -> bytearray:
        buffer, count, futures = self._flying.popleft()
        for future in futures:
            future.result()
        self._advance(count)
        return buffer


class Meter:
    """Counts bytes, and tells of them at most twice a second, or when asked to."""

    def __init__(self, total: int, listener: Callable[[int, int], None]) -> None:
        self._done, self._total, self._listener = 0, total, listener
        self.tell()

    def advance(self, count: int) -> None:
        """Add `count` bytes, and tell of them if it is time."""
        self._done += count
        if time.monotonic() - self._told > _QUIET_S:
            self.tell()

    def tell(self) -> None:
        """Tell how many bytes are done, of how many."""
        self._told = time.monotonic()
        self._listener(min(self._done, self._total), self._total)
