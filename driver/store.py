"""Results that survive anything: the store of finished stages, and the runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from contracts import files, stages
from contracts.entrypoint import JOB_FILE, RESULT_FILE
from contracts.errors import WorkspaceBusy
from contracts.stage import Event, Job, Result

_SMALL = 4_000_000
"""Bytes of an output up to which it is read whenever its result is looked at."""


class Store:
    """Finished stages by fingerprint, below `workspace/store`."""

    def __init__(self, workspace: Path) -> None:
        self.root = workspace
        self.folder = workspace / "store"

    def place(self, stage: str, fingerprint: str) -> Path:
        """Return the folder of one execution of a stage."""
        return self.folder / stage / fingerprint

    def prepare(self, job: Job) -> Path:
        """Write a job to its place and return its path; partial work there is kept for resume."""
        path = self.place(job.stage, job.fingerprint) / JOB_FILE
        files.write_json(path, job.model_dump(mode="json"))
        return path

    def result(self, stage: str, fingerprint: str) -> Result | None:
        """Return a finished stage's result, None where there is none or it is damaged.

        Damaged means: unreadable, of another fingerprint, or an output is missing or has another
        size; a small one is read, and must hold what it did. It is said on stderr, and the stage
        runs again.
        """
        path = self.place(stage, fingerprint) / RESULT_FILE
        try:
            result = Result.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # pydantic's errors and Unicode's are of these
            print(f"ignoring the damaged {path}: {error}", file=sys.stderr)
            return None
        if fault := self._fault(result, fingerprint):
            print(f"ignoring the damaged result of {stage}: {fault}", file=sys.stderr)
            return None
        return result

    def _fault(self, result: Result, fingerprint: str) -> str:
        if result.fingerprint != fingerprint:
            return f"it belongs to {result.fingerprint}"
        if fault := _misfit(result):
            return fault
        for output in result.outputs.values():
            path = self.root / output.path
            if not path.exists():
                return f"{path} is missing"
            if files.size_of(path) != output.bytes:
                return f"{path} has {files.size_of(path)} bytes instead of {output.bytes}"
            if output.bytes <= _SMALL and files.digest_path(path) != output.digest:
                return f"{path} holds something else than it did"
        return ""

    def latest(self, stage: str) -> tuple[Job, Result] | None:
        """Return the stage's last finished execution, whatever its fingerprint: to name what
        has changed since."""
        return next(self.executions(stage), None)

    def executions(self, stage: str) -> Iterator[tuple[Job, Result]]:
        """Yield the finished executions of a stage, the last one first."""
        results = sorted(
            (self.folder / stage).glob(f"*/{RESULT_FILE}"),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        for path in results:
            try:
                job = Job.model_validate_json((path.parent / JOB_FILE).read_text(encoding="utf-8"))
                result = Result.model_validate_json(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if not _misfit(result):
                yield job, result


def _misfit(result: Result) -> str:
    """Return why a result is none of its stage's, "" if it is."""
    stage = stages.BY_NAME.get(result.stage)
    if stage is None:
        return f"there is no stage {result.stage}"
    if missing := {artifact.name for artifact in stage.outputs} - result.outputs.keys():
        return f"it names no {', '.join(sorted(missing))}"
    try:
        stage.metrics.model_validate(result.metrics)
    except ValidationError as error:
        return f"its metrics are not the stage's ({error.error_count()} errors)"
    return ""


class Run:
    """One run's folder, `workspace/runs/RUN`: settings, fingerprints, events, logs, report."""

    def __init__(self, workspace: Path, run_id: str) -> None:
        self.id = run_id
        self.folder = workspace / "runs" / run_id
        self._events: IO[str] | None = None

    @classmethod
    def create(cls, workspace: Path) -> Run:
        """Make a new run, named by the time in UTC so that names sort and fit a model tag."""
        stem = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        for suffix in ("", *(f"-{n}" for n in range(2, 100))):
            run = cls(workspace, stem + suffix)
            try:
                run.folder.mkdir(parents=True)
            except FileExistsError:
                continue
            (run.folder / "logs").mkdir()
            return run
        raise WorkspaceBusy(f"cannot name a run in {workspace}", why="100 runs in one second")

    @classmethod
    def last(cls, workspace: Path) -> Run | None:
        """Return the newest run of a workspace."""
        folders = sorted(p for p in (workspace / "runs").glob("*") if p.is_dir())
        return cls(workspace, folders[-1].name) if folders else None

    def log(self, stage: str) -> Path:
        """Return where a stage's human output goes."""
        return self.folder / "logs" / f"{stage}.log"

    def record(self, event: Event) -> None:
        """Append an event to events.jsonl, with its time."""
        if self._events is None:
            self._events = (self.folder / "events.jsonl").open("a", encoding="utf-8")
        stamped = {"at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        stamped |= event.model_dump(exclude_none=True)
        self._events.write(json.dumps(stamped, ensure_ascii=False) + "\n")
        self._events.flush()

    def write_state(self, state: dict[str, object]) -> None:
        """Publish what `status` shows: per stage its action, fingerprint, state and result."""
        files.write_json(self.folder / "run.json", state)

    def read_state(self) -> dict[str, object]:
        """Return what was published last, {} when nothing was."""
        try:
            state: dict[str, object] = json.loads((self.folder / "run.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        told = state.get("stages") if isinstance(state, dict) else None
        whole = isinstance(told, dict) and all(isinstance(each, dict) for each in told.values())
        return state if whole else {}
