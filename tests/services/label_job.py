"""A label job in a workspace of its own, and the process that the driver would start for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from contracts import files
from contracts.params import LabelParams
from contracts.stages import ITEMS, LABEL, REVIEWED
from driver.store import Store
from tests.jobs import inputs_in, job_of

FINGERPRINT = "f1"


def prepare(workspace: Path, items: Iterable[dict[str, Any]], params: LabelParams) -> Path:
    """Write the items and a job that labels them; return the job's path."""
    files.write_jsonl(workspace / ITEMS.filename, items)
    files.write_jsonl(workspace / REVIEWED.filename, [])
    job = job_of(
        LABEL,
        params,
        inputs_in(workspace, LABEL),
        run="r1",
        fingerprint=FINGERPRINT,
        code_digest=files.code_digest(*LABEL.code),
    )
    return Store(workspace).prepare(job)


def start(job: Path, teachers: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the stage as a process, the leader of its group; `teachers` are its servers."""
    return subprocess.Popen(
        [sys.executable, "-m", "images.labeler", str(job)],
        cwd=files.ROOT,
        env={**os.environ, "PYTHONPATH": str(files.ROOT), "RETRAIN_TEACHERS": teachers},
        stdout=subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )


def output(workspace: Path, name: str) -> Path:
    """Return a published output; raises KeyError unless the stage has finished."""
    result = Store(workspace).result(LABEL.name, FINGERPRINT)
    if result is None:
        raise KeyError(name)
    return workspace / result.outputs[name].path
