"""Results that survive anything: the store of finished stages, and the runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts import files, stages
from contracts.entrypoint import JOB_FILE, RESULT_FILE
from contracts.errors import InputMissing, RunUnreadable, without_userinfo
from contracts.os_errors import name_disk
from contracts.stage import Event, Job, Metrics, Result
from driver.docker_tls import Tls

M = TypeVar("M", bound=Metrics)
REFUSAL_FILE = "refused.txt"
_NAMED = "%Y%m%d-%H%M%S"
"""A run's name, by the time in UTC."""
RUN_NAME = re.compile(r"2\d{7}-\d{6}(-\d+)?")
"""The same, and the number that older drivers have put behind it."""
STATE_FILE = "run.json"
IMAGE_FILE = "image.txt"
"""Beside a job of an older driver: the id of the image that its container was made of last."""
SETTINGS_FILE = "settings.json"
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

        Damaged means: result or job unreadable or of another fingerprint, or an output is missing
        or has another size; one that is small, or was written to later, is read, and must hold
        what it did. It is said on stderr, and the stage runs again.
        """
        path = self.place(stage, fingerprint) / RESULT_FILE
        try:
            result = Result.model_validate_json(files.read_bytes(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # pydantic's errors and Unicode's are of these
            print(f"ignoring the damaged {path}: {error}", file=sys.stderr)
            return None
        if fault := self._fault(stage, fingerprint, result) or self._job_fault(stage, fingerprint):
            print(f"ignoring the damaged result of {stage}: {fault}", file=sys.stderr)
            return None
        return result

    def _fault(self, stage: str, fingerprint: str, result: Result) -> str:
        if (result.stage, result.fingerprint) != (stage, fingerprint):
            return f"it belongs to {result.stage} {result.fingerprint}"
        if fault := _misfit(result):
            return fault
        finished = (self.place(stage, fingerprint) / RESULT_FILE).stat().st_mtime_ns
        for output in result.outputs.values():
            path = self.root / output.path
            if not path.exists():
                return f"{path} is missing"
            if files.size_of(path) != output.bytes:
                return f"{path} has {files.size_of(path)} bytes instead of {output.bytes}"
            suspect = output.bytes <= _SMALL or _written_at(path) > finished
            if suspect and files.digest_path(path) != output.digest:
                return f"{path} holds something else than it did"
        return ""

    def _job_fault(self, stage: str, fingerprint: str) -> str:
        try:
            self.job(stage, fingerprint)
        except (OSError, ValueError) as error:
            return f"{self.place(stage, fingerprint) / JOB_FILE} cannot be read: {error}"
        return ""

    def job(self, stage: str, fingerprint: str) -> Job:
        """Return the job of an execution; raises OSError or ValueError for a damaged one."""
        text = files.read_bytes(self.place(stage, fingerprint) / JOB_FILE)
        job = Job.model_validate_json(text)
        if (job.stage, job.fingerprint) != (stage, fingerprint):
            raise ValueError(f"it is of {job.stage} {job.fingerprint}")
        return job

    def refuse(self, stage: str, fingerprint: str, why: str) -> None:
        """Note that this execution of a stage is impossible, however often it is tried."""
        files.write_text(self.place(stage, fingerprint) / REFUSAL_FILE, why + "\n")

    def refusal(self, stage: str, fingerprint: str) -> str:
        """Return what `refuse` was told, "" for nothing; nothing is known without a fingerprint."""
        path = self.place(stage, fingerprint) / REFUSAL_FILE
        return path.read_text(encoding="utf-8") if fingerprint and path.is_file() else ""

    def latest(self, stage: str) -> tuple[Job, Result] | None:
        """Return the stage's last finished execution, whatever its fingerprint: to name what
        has changed since."""
        return next(self.executions(stage), None)

    def image(self, stage: str, fingerprint: str, result: Result | None) -> str:
        """Return the id of the image that a result was made in, "" for a process.

        An older driver has noted that of the last start, which counts unless it came later.
        """
        if result is None or result.image:
            return result.image if result else ""
        place = self.place(stage, fingerprint)
        noted = place / IMAGE_FILE
        try:
            later = noted.stat().st_mtime_ns > (place / RESULT_FILE).stat().st_mtime_ns
            return "" if later else files.read_bytes(noted).decode("ascii").strip()
        except (OSError, ValueError):
            return ""

    def executions(self, stage: str) -> Iterator[tuple[Job, Result]]:
        """Yield the finished executions of a stage, the last one first."""
        results = sorted(
            (self.folder / stage).glob(f"*/{RESULT_FILE}"),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        for path in results:
            try:
                job = self.job(stage, path.parent.name)
                result = Result.model_validate_json(files.read_bytes(path))
            except (OSError, ValueError):
                continue
            if not _misfit(result):
                yield job, result

    def damaged(self, stage: str) -> list[Path]:
        """Return the places of a stage's results that cannot be read, or whose job cannot."""
        whole = {job.fingerprint for job, _ in self.executions(stage)}
        there = (self.folder / stage).glob(f"*/{RESULT_FILE}")
        return sorted(path.parent for path in there if path.parent.name not in whole)

    def measured(self, stage: str, kind: type[M]) -> Iterator[tuple[Job, M]]:
        """Yield job and metrics of the executions of a stage, the last one first."""
        for job, result in self.executions(stage):
            yield job, kind.model_validate(result.metrics)


def age_h(result: Result) -> float:
    """Return how long ago a result was finished, in hours."""
    return (datetime.now(UTC) - datetime.fromisoformat(result.finished_at)).total_seconds() / 3600


def _written_at(path: Path) -> int:
    """Return when a file, or the youngest file of a folder, was written last, in ns."""
    if not path.is_dir():
        return path.stat().st_mtime_ns
    return max((p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()), default=0)


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


class StageState(BaseModel):
    """What a run has noted of one stage."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer driver may have noted more

    action: str = ""
    state: str = ""
    """`planned`, `running`, `reused`, `done` or `failed`."""
    reason: str = ""
    fingerprint: str = ""
    seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    summary: str = ""
    metrics: dict[str, Any] = {}
    """Of its result, as they were for this run: a later run of the same fingerprint writes its own
    into the store. Empty where an older driver did not note them."""
    error: str = ""
    started_at: float | None = None
    """When its last attempt began, in seconds since the epoch."""
    ended_at: float | None = None


class Failure(BaseModel):
    """What ended a run that did not come to its end."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    """The name of the error's class."""
    exit_code: int
    what: str
    why: str = ""
    todo: str = ""


class Served(BaseModel):
    """What the served name named when a run ended that had begun a deployment."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    alias: str
    digest: str
    """Of the model; "" where it named none."""
    version: str
    """Another name of the same model, "" for none."""


class RunState(BaseModel):
    """What a run has noted: run.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: str
    workspace: str = ""
    """Its path then; "" where an older driver did not note it."""
    pid: int = 0
    docker_host: str | None = None
    """The engine of its stage containers; "" where stages are processes, None where not noted."""
    docker_tls: Tls | None = None
    """How that is spoken to, where it is at tcp://."""
    started_at: float | None = None
    """In seconds since the epoch; None where an older driver did not note it."""
    ended_at: float | None = None
    away: tuple[tuple[float, float], ...] = ()
    """When the backend was away for this run: from and until."""
    failure: Failure | None = None
    accepted_drift: tuple[str, ...] = ()
    """Differences from the backend that would break production, with which the user went on."""
    served: Served | None = None
    """None where no deployment had begun, or the engine could not be asked."""
    stages: dict[str, StageState] = {}


def _runs(workspace: Path) -> list[Path]:
    """Return the folders of a workspace's runs, the newest last, and nothing that lies beside."""
    folders = (workspace / "runs").glob("2*")
    return sorted(path for path in folders if _begun(path.name) and path.is_dir())


def _begun(run_id: str) -> datetime | None:
    """Return the time by which a run is named; None for what is no run's name."""
    if not RUN_NAME.fullmatch(run_id):
        return None
    try:
        return datetime.strptime(run_id[:15], _NAMED).replace(tzinfo=UTC)
    except ValueError:
        return None


class Run:
    """One run's folder, `workspace/runs/RUN`: settings, fingerprints, events, logs, report."""

    def __init__(self, workspace: Path, run_id: str) -> None:
        self.id = run_id
        self.folder = workspace / "runs" / run_id
        self._events: IO[str] | None = None

    @classmethod
    def create(cls, workspace: Path) -> Run:
        """Make a new run, named by the time in UTC so that names sort and fit a model tag.

        Later than every other, also where the clock was set back: the newest is known by its name.
        """
        runs = workspace / "runs"
        files.make_folder(runs)
        begun = filter(None, (_begun(path.name) for path in _runs(workspace)))
        when = max([datetime.now(UTC), *(each + timedelta(seconds=1) for each in begun)])
        run = cls(workspace, when.strftime(_NAMED))
        for folder in (run.folder, run.folder / "logs"):
            files.make_folder(folder)
        return run

    @classmethod
    def last(cls, workspace: Path, having: str = "") -> Run | None:
        """Return the newest run of a workspace, or of those that have a file `having`.

        A driver that was killed right after `create` has left a run without any.
        """
        found = [p for p in _runs(workspace) if not having or (p / having).exists()]
        return cls(workspace, found[-1].name) if found else None

    @classmethod
    def named(cls, workspace: Path, run_id: str = "") -> Run:
        """Return a run by its name, the newest without one; raises `InputMissing`."""
        run = cls(workspace, run_id) if run_id else cls.last(workspace)
        if run is None or not run.folder.is_dir() or Path(run.id).name != run.id:
            known = [path.name for path in _runs(workspace)]
            raise InputMissing(
                f"{workspace} has no run {run_id}".rstrip(),
                why=f"it has {', '.join(known[-5:]) or 'none yet'}",
                todo="`python -m driver run` makes one; --workspace DIR names another workspace.",
            )
        return run

    def log(self, stage: str) -> Path:
        """Return where a stage's human output goes."""
        return self.folder / "logs" / f"{stage}.log"

    def record(self, event: Event) -> None:
        """Append an event to events.jsonl, with its time."""
        if self._events is None:
            self._events = (self.folder / "events.jsonl").open("a", encoding="utf-8")
        stamped = {"at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        stamped |= event.model_dump(exclude_none=True)
        try:
            self._events.write(json.dumps(stamped, ensure_ascii=False) + "\n")
            self._events.flush()
        except OSError as error:
            name_disk(error, self.folder / "events.jsonl")
            raise

    def write_state(self, state: dict[str, object]) -> None:
        """Publish what `status` shows: per stage its action, fingerprint, state and result."""
        engine = str(state.get("docker_host") or "")
        # Whoever recovers needs a password in it, and nobody else may see that.
        mode = 0o644 if without_userinfo(engine) == engine else files.PRIVATE
        files.write_json(self.folder / STATE_FILE, state, mode)

    def read_state(self) -> RunState:
        """Return what was published last; an empty state where a kill came before it.

        Raises `RunUnreadable` for one that is damaged, or that cannot be read at all.
        """
        path = self.folder / STATE_FILE
        try:
            return RunState.model_validate_json(files.read_bytes(path))
        except FileNotFoundError:
            return RunState(run=self.id)
        except OSError as error:
            raise RunUnreadable(f"{path} cannot be read", why=str(error)) from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise RunUnreadable(
                f"{path} is damaged", why=f"{place + ': ' if place else ''}{first['msg']}"
            ) from error
