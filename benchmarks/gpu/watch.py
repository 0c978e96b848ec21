"""A process watched from outside: what it reports, when, and the most memory that it took."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from benchmarks.resident import peak_kib
from contracts.orphans import die_with

_POLL_S = 0.1
_GRACE_S = 10.0
"""How long a process that is told to end may take."""


@dataclass(frozen=True)
class Watched:
    """What was seen of a process."""

    code: int | None
    """Its exit code; None where its time was up."""
    started: float
    """By `time.monotonic`, as in `events`."""
    events: list[tuple[float, dict[str, Any]]]
    """Each JSON object of its stdout, and when it came."""
    peak_mib: float
    """The most that `memory` said."""

    def steps(self) -> list[float]:
        """Return when each training step ended; of a training that began anew, the last begin."""
        ends: dict[int, float] = {}
        for at, event in self.events:
            if event.get("unit") != "steps":
                continue
            step = int(event["done"])
            if step < max(ends, default=0):
                ends = {}
            ends.setdefault(step, at)  # a step is told again with its figures
        return [ends[step] for step in sorted(ends)]


def watch(
    command: Sequence[str],
    *,
    limit_s: float,
    environ: Mapping[str, str],
    log: Path,
    memory: Callable[[int], float],
) -> Watched:
    """Run a command for `limit_s` at most; its stderr goes to `log`.

    `memory` takes the process's id and returns MiB. A process whose time is up is ended, and what
    it had reported by then counts.
    """
    started = time.monotonic()
    events: list[tuple[float, dict[str, Any]]] = []
    peak = 0.0
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environ},
            preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509  # two system calls
        )
    assert process.stdout is not None  # noqa: S101
    reader = threading.Thread(target=_read, args=(process.stdout, events), daemon=True)
    reader.start()
    try:
        while process.poll() is None and time.monotonic() < started + limit_s:
            peak = max(peak, memory(process.pid))
            time.sleep(_POLL_S)
        code = process.poll()
    finally:
        _end(process)
        reader.join(_GRACE_S)
    return Watched(code, started, events, peak)


@contextmanager
def holding(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[None]:
    """Let a command run that says a line once it is ready, and ends with its stdin."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
        preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509  # two system calls
    ) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        try:
            if not process.stdout.readline():
                raise RuntimeError(f"{' '.join(command)} ended at its start")
            yield
        finally:
            process.stdin.close()


def resident_mib(pid: int) -> float:
    """Return the most memory that a process has had resident so far; 0 for one that has ended."""
    return peak_kib(pid) / 1024


def _read(stream: IO[str], events: list[tuple[float, dict[str, Any]]]) -> None:
    for line in stream:
        at = time.monotonic()
        try:
            found = json.loads(line)
        except ValueError:
            continue  # a library's own print
        if isinstance(found, dict):
            events.append((at, found))


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
