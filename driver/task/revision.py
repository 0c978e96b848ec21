"""What labels of a task rested on at a revision of this checkout."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from pydantic import ValidationError

from contracts import files
from contracts.errors import InputMissing
from contracts.label_definition import LabelDefinition

_READ = (
    "import sys; sys.path[:0] = sys.argv[1:3]; "
    "from contracts.label_definition import LabelDefinition; from tasks import load_task; "
    "print(LabelDefinition.of(load_task(sys.argv[3])).model_dump_json())"
)
_TIMEOUT_S = 60


def labelling_at(revision: str, task: str, root: Path = files.ROOT) -> LabelDefinition:
    """Return it by running the task's package of that revision, which git holds, in a process.

    Raises `InputMissing` for what is no revision, and where the task cannot be read there.
    """
    if revision.startswith("-"):
        raise _missing(revision, "it is no name of a revision")
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "archive", "--format=tar", revision, "tasks"],
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except FileNotFoundError as error:
        raise _missing(revision, "git is not installed") from error
    if done.returncode:
        raise _missing(revision, _last_line(done.stderr))
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        read = subprocess.run(
            [sys.executable, "-c", _READ, folder, str(root), task],
            capture_output=True,
            check=False,
            cwd=folder,
            timeout=_TIMEOUT_S,
        )
    try:
        return LabelDefinition.model_validate_json(read.stdout)
    except ValidationError as error:
        why = f"tasks/{task} cannot be read there: {_last_line(read.stderr)}"
        raise _missing(revision, why) from error


def _missing(revision: str, why: str) -> InputMissing:
    return InputMissing(
        f"{revision} is no run of this workspace, and no revision with this task",
        why=why,
        todo="`python -m driver status` names the last run, `git log` the revisions.",
    )


def _last_line(raw: bytes) -> str:
    return (raw.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1][:300]
