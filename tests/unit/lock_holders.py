"""Processes that hold a lock of the driver, and die of a kill."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from contracts import files
from driver.window_record import RECORD_FILE

_HOLDER = """
import os, pathlib, sys
from driver import locks
os.environ[locks.FOLDER_VARIABLE] = sys.argv[2]
with getattr(locks, sys.argv[1])(pathlib.Path(sys.argv[3])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by(program: str, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program up to where it says `held`; kill it afterwards."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=files.ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def holder(
    kind: str, shared: Path, workspace: Path
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Let another process hold a `workspace` or the `host`, whose lock is in `shared`."""
    return held_by(_HOLDER, kind, shared, workspace)


def leave_open(shared: Path, workspace: Path) -> None:
    """Let a driver with the host in its hands die while the service is stopped."""
    workspace.mkdir()
    with holder("host", shared, workspace):
        record = f'{{"opened_at": {time.time()}}}'
        (workspace / RECORD_FILE).write_text(record, encoding="utf-8")
