"""How every stage runs, in a container or not: check, work, check, publish.

A stage module is linear code with one function `work(context) -> Metrics`; everything about job
files, digests, publishing and exit codes is here, once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TextIO, TypeVar

from pydantic import ValidationError

from contracts import files
from contracts.errors import (
    ImageStale,
    InputMissing,
    OutOfMemory,
    OutputMissing,
    RetrainError,
    StageFailed,
)
from contracts.os_errors import from_full_disk, from_os_error, name_disk
from contracts.stage import Artifact, Event, Job, Metrics, OutputRef, Params, Result, Stage

P = TypeVar("P", bound=Params)
Emit = Callable[[Event], None]

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
IMAGE_ID = "RETRAIN_IMAGE_ID"
"""The environment variable in which a container is told its image: from inside nobody can know."""


@dataclass(frozen=True)
class StageContext(Generic[P]):
    """What a stage's work sees. `root` is the workspace, `folder` the stage's place in it."""

    stage: Stage
    job: Job
    params: P
    root: Path
    folder: Path
    emit: Emit
    digests: dict[Path, files.KnownDigest] = field(default_factory=dict)
    """What `digested` was told, by the path that was written."""

    @property
    def work(self) -> Path:
        """A folder that survives a kill: for checkpoints and partial results."""
        return self.folder / "work"

    def input(self, artifact: Artifact) -> Path:
        """Return where an input lies."""
        return self.root / self.job.inputs[artifact.name].path

    def output(self, artifact: Artifact) -> Path:
        """Return where to write an output; it is published when the stage is done."""
        return self.work / "out" / artifact.filename

    def progress(self, done: float, total: float | None, unit: str, **metrics: float | str) -> None:
        """Say how far the work is, in `unit`s; the driver derives the ETA."""
        self.emit(Event(stage=self.stage.name, done=done, total=total, unit=unit, metrics=metrics))

    def digested(self, path: Path, digest: str) -> None:
        """Hand over the SHA-256 of an output file that is whole, taken while it was written.

        Publishing then does not read the file a second time, which takes minutes for 28 GB. It
        counts only as long as size and time of change stay what they are at this call.
        """
        self.digests[path] = files.KnownDigest.of(path, digest)


def execute(
    stage: Stage,
    job: Job,
    root: Path,
    folder: Path,
    work: Callable[[StageContext[P]], Metrics],
    emit: Emit,
) -> Result:
    """Run a stage's work on a job and publish its outputs, result.json last.

    Safe against a kill or a power cut at any point: outputs are built under work/out, moved to
    out/ by one rename, and count only once result.json is there. Raises the stage's error as it
    comes.
    """
    started = time.monotonic()
    _check_inputs(job, root)
    params: P = stage.params.model_validate(job.params)  # type: ignore[assignment]
    context = StageContext(stage, job, params, root, folder, emit)
    with disk_named(folder):
        files.make_folder(context.work / "out")
        return _finished(context, work(context), started)


def _finished(context: StageContext[P], metrics: Metrics, started: float) -> Result:
    """Check and publish the outputs of a stage that is done; return its result."""
    stage, job, folder = context.stage, context.job, context.folder
    building, published = context.work / "out", folder / "out"
    for artifact in stage.outputs:
        if not context.output(artifact).exists():
            raise OutputMissing(f"stage {stage.name} ended without {artifact.filename}")
    files.remove_unfinished(context.work)  # of an execution that was killed
    _make_readable_and_durable(building)
    # Before anything is moved: a kill while much is read leaves the stage all it has built.
    outputs = {
        artifact.name: _reference(
            context.output(artifact), published / artifact.filename, context.root, context.digests
        )
        for artifact in stage.outputs
    }
    _publish(building, published)
    result = Result(
        stage=stage.name,
        fingerprint=job.fingerprint,
        outputs=outputs,
        metrics=metrics.model_dump(mode="json"),
        seconds=round(time.monotonic() - started, 3),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        image=os.environ.get(IMAGE_ID, "") if stage.image else "",
    )
    files.write_json(folder / RESULT_FILE, result.model_dump(mode="json"))
    return result


def _publish(building: Path, published: Path) -> None:
    """Move the outputs into place, where no result tells of them yet."""
    folder = published.parent
    # Of an earlier execution, until this one counts: gone for good before what it tells of goes.
    files.remove(folder / RESULT_FILE)
    shutil.rmtree(published, ignore_errors=True)
    building.rename(published)
    files.fsync_path(folder)
    files.fsync_path(building.parent)


@contextlib.contextmanager
def disk_named(folder: Path) -> Iterator[None]:
    """Let a stage at work in `folder` fail by `DiskFull` of a full disk, whatever tells of it, and
    by an OSError with a path of one that takes no writes.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError):
            name_disk(error, folder)
        if full := from_full_disk(error, folder):
            raise full from error
        raise


def main(
    argv: list[str],
    works: Mapping[Stage, Callable[[StageContext[P]], Metrics]] | None = None,
) -> int:
    """Run the job named on the command line; return the exit code of contracts/errors.py.

    The workspace is found from the job's own place in it (store/STAGE/FINGERPRINT/job.json), so
    the same call works under any mount point.
    """
    events = sys.stdout
    # Libraries print what they like; stdout carries events and nothing else.
    with contextlib.redirect_stdout(sys.stderr):
        return _run(argv, works or {}, lambda event: print_event(event, events))


def _run(
    argv: list[str], works: Mapping[Stage, Callable[[StageContext[P]], Metrics]], emit: Emit
) -> int:
    if len(argv) != 2:
        print(f"usage: python -m {Path(argv[0]).parent.name} JOB.json", file=sys.stderr)
        return 2
    stage_name = "?"
    try:
        path = Path(argv[1]).resolve()
        job = _read_job(path)
        stage_name = job.stage
        stage, work = _find(job, works)
        _check_code(stage, job)
        execute(stage, job, path.parents[3], path.parent, work, emit)
    except Exception as error:  # noqa: BLE001  # the last frame before the exit code
        return tell(stage_name, error, emit)
    return 0


def tell(stage: str, error: Exception, emit: Emit) -> int:
    """Say what a stage fails of, to the driver and to people; return the exit code for it."""
    if isinstance(error, RetrainError):
        named = error
    elif isinstance(error, MemoryError):
        named = OutOfMemory(f"stage {stage} ran out of memory", why=str(error))
    else:
        traceback.print_exception(error)
        if not isinstance(error, OSError):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return StageFailed.exit_code
        named = from_os_error(error)
    _report(stage, named, emit)
    return named.exit_code


def print_event(event: Event, stream: TextIO) -> None:
    """Write an event as its line."""
    print(event.model_dump_json(exclude_none=True), file=stream, flush=True)


def _report(stage: str, error: RetrainError, emit: Emit) -> None:
    """Tell the driver on stdout (as an event) and people on stderr."""
    told = {"what": error.what, "why": error.why, "todo": error.todo}
    if type(error).passing and not error.passing:
        told["passing"] = "no"
    emit(Event(stage=stage, error=told))
    print(error, file=sys.stderr)


def _read_job(path: Path) -> Job:
    try:
        return Job.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, ValidationError) as error:
        raise InputMissing(f"cannot read the job {path}", why=str(error)) from error


def _find(
    job: Job, works: Mapping[Stage, Callable[[StageContext[P]], Metrics]]
) -> tuple[Stage, Callable[[StageContext[P]], Metrics]]:
    for stage, work in works.items():
        if stage.name == job.stage:
            return stage, work
    known = ", ".join(stage.name for stage in works)
    raise ImageStale(f"this image has no stage {job.stage}", why=f"it has {known}")


def _check_code(stage: Stage, job: Job) -> None:
    """Refuse to run other code than the fingerprint was made from."""
    if files.code_digest(*stage.code) != job.code_digest:
        raise ImageStale(
            f"the code of stage {stage.name} here is not the driver's",
            why="the image is of another state of the checkout, or a file was edited meanwhile",
        )


def _check_inputs(job: Job, root: Path) -> None:
    """Check presence and size; contents were digested when they were published.

    Hashing 28 GB again before each stage would cost minutes; sizes catch what a full disk or an
    interrupted copy leaves behind.
    """
    for name, reference in job.inputs.items():
        path = root / reference.path
        if not path.exists():
            raise InputMissing(f"input {name} is missing", why=f"{path} does not exist")
        if (size := files.size_of(path)) != reference.bytes:
            raise InputMissing(
                f"input {name} is damaged", why=f"{size} bytes instead of {reference.bytes}"
            )


def _make_readable_and_durable(folder: Path) -> None:
    """Let other users read what was written (safetensors come with mode 0600), and flush it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        files.fsync_path(path)
    files.fsync_path(folder)


def _reference(
    built: Path, published: Path, root: Path, known: Mapping[Path, files.KnownDigest]
) -> OutputRef:
    return OutputRef(
        path=published.relative_to(root).as_posix(),
        digest=files.digest_path(built, known),
        bytes=files.size_of(built),
    )
