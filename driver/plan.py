"""What has to run, and why. Pure: reads nothing, changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from contracts import files
from contracts.stage import InputRef, Job, OutputRef, Result, Stage

Finished = Callable[[str, str], Result | None]
"""(stage, fingerprint) → its result if it is there and whole."""
Previous = Callable[[str], tuple[Job, Result] | None]
"""stage → its last finished execution."""
StillTrue = Callable[[Stage, Result], str]
"""(effect or remembering stage, result) → why what it has left behind no longer agrees with the
result; "" if it does."""


class Action(StrEnum):
    """What a run will do about a stage."""

    REUSE = "reuse"
    RUN = "run"


@dataclass(frozen=True)
class Request:
    """What the settings ask of one stage."""

    stage: Stage
    params: dict[str, Any]
    """All params, for the job."""
    identity: dict[str, Any]
    """The params that a fingerprint covers."""
    code_digest: str
    task: str
    task_digest: str
    environment: str = ""
    """What a stage's image is built on, in words; "" for a process."""

    def job(self, run: str, fingerprint: str, inputs: dict[str, InputRef]) -> Job:
        """Return what the stage is told in this run, for a result under this fingerprint."""
        return Job(
            stage=self.stage.name,
            run=run,
            fingerprint=fingerprint,
            code_digest=self.code_digest,
            environment=self.environment,
            task=self.task,
            task_digest=self.task_digest,
            params=self.params,
            inputs=inputs,
        )


@dataclass(frozen=True)
class Step:
    """The plan for one stage."""

    request: Request
    action: Action
    reason: str
    fingerprint: str = ""
    """Empty while an input is still to be made."""
    inputs: dict[str, InputRef] | None = None
    result: Result | None = None

    @property
    def stage(self) -> Stage:
        """The stage that this step is about."""
        return self.request.stage


def fingerprint(request: Request, inputs: dict[str, InputRef]) -> str:
    """Return the identity of a stage's result: 16 hex digits of a SHA-256 (64 bits are ample for
    the few thousand results of a workspace)."""
    identity = {
        "stage": request.stage.name,
        "params": request.identity,
        "code": request.code_digest,
        "environment": request.environment,
        "task": request.task_digest,
        "inputs": {name: reference.digest for name, reference in inputs.items()},
    }
    return files.digest_text(files.canonical_json(identity))[:16]


def make_plan(
    requests: Iterable[Request], finished: Finished, previous: Previous, still_true: StillTrue
) -> list[Step]:
    """Return one step for each request, in order.

    A stage whose inputs will be made anew is planned to run; whether it really must is decided
    when they are there, since a stage may give the same bytes as before.
    """
    made: dict[str, OutputRef] = {}
    pending: dict[str, str] = {}
    steps = []
    for request in requests:
        step = plan_stage(request, made, pending, finished, previous, still_true)
        steps.append(step)
        for artifact in request.stage.outputs:
            if step.result:
                made[artifact.name] = step.result.outputs[artifact.name]
            else:
                pending[artifact.name] = request.stage.name
    return steps


def plan_stage(
    request: Request,
    made: dict[str, OutputRef],
    pending: dict[str, str],
    finished: Finished,
    previous: Previous,
    still_true: StillTrue,
) -> Step:
    """Return the step for one stage, given what its inputs are (`made`) or wait for (`pending`)."""
    waits = sorted({pending[a.name] for a in request.stage.inputs if a.name in pending})
    if waits:
        return Step(request, Action.RUN, f"{' and '.join(waits)} will run")
    inputs = {
        a.name: InputRef.model_validate(made[a.name].model_dump()) for a in request.stage.inputs
    }
    mark = fingerprint(request, inputs)
    result = finished(request.stage.name, mark)
    if result is None:
        reason = _difference(request, inputs, previous(request.stage.name))
        return Step(request, Action.RUN, reason, mark, inputs)
    asked = request.stage.effect or request.stage.remembers
    if asked and (changed := still_true(request.stage, result)):
        return Step(request, Action.RUN, changed, mark, inputs)
    return Step(request, Action.REUSE, "nothing has changed", mark, inputs, result)


def _difference(
    request: Request, inputs: dict[str, InputRef], last: tuple[Job, Result] | None
) -> str:
    """Name what differs from the last finished execution."""
    if last is None:
        return "it has never finished"
    job, _ = last
    changes = [
        f"{name}: {job.params.get(name)} → {value}"
        for name, value in request.identity.items()
        if job.params.get(name) != value and name != "source_digest"
    ]
    if request.identity.get("source_digest") != job.params.get("source_digest"):
        changes.append("the source has changed")
    changes += [
        f"{name} has changed"
        for name, reference in inputs.items()
        if name not in job.inputs or job.inputs[name].digest != reference.digest
    ]
    if job.task_digest != request.task_digest:
        changes.append("the task definition has changed")
    if job.code_digest != request.code_digest:
        changes.append("the code has changed")
    if job.environment != request.environment:
        names = {"restore": "backend.compose has", "verify": "deploy.name or backend.url has"}
        named = names.get(request.stage.name, "deploy.name has")
        built = request.stage.image is not None
        what = "the image's base or build arguments have" if built else named
        changes.append(f"{what} changed")
    return "; ".join(changes) or "its result is missing or damaged"
