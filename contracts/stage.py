"""The types that the driver and the stages share: Stage, Artifact, Job, Result, Event."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value: cannot be changed, refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Params(Frozen):
    """What a user can set about a stage. Subclasses document each field below it."""

    model_config = ConfigDict(allow_inf_nan=False)

    not_identity: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how a result is made (time-outs, concurrency), not what it is."""

    def identity(self) -> dict[str, Any]:
        """Return what of the params a fingerprint covers."""
        return self.model_dump(mode="json", exclude=set(self.not_identity))


class Metrics(Frozen):
    """What a stage reports about its result; shown in the final table."""

    model_config = ConfigDict(defer_build=True)  # most are not used by `driver plan`

    def summary(self) -> str:
        """Return one short line for people."""
        return ", ".join(f"{name} {value}" for name, value in self.model_dump().items())


class GpuMode(StrEnum):
    """What a stage wants of the GPU."""

    NONE = "none"
    """Nothing: the service may run beside it."""
    SERVING = "serving"
    """The serving engine answers with a model of the stage's; the backend has to be away."""
    EXCLUSIVE = "exclusive"
    """The whole GPU: the engine's models are unloaded first."""


@dataclass(frozen=True)
class Artifact:
    """A file or folder that one stage gives and others take."""

    name: str
    filename: str


@dataclass(frozen=True)
class Stage:
    """The declaration of a stage, from which jobs, checks, plans and tests are derived."""

    name: str
    params: type[Params]
    metrics: type[Metrics]
    image: str | None = None
    """The service in compose.retrain.yml; None: the stage runs in the driver itself."""
    gpu: GpuMode = GpuMode.NONE
    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()
    task: Literal["none", "labels", "all"] = "none"
    """Which part of the task definition the result depends on."""
    code: tuple[str, ...] = field(default=())
    """Files and folders of the checkout whose digest stands for the stage's code."""
    effect: bool = False
    """Acts on the outside world: done means that the outside says so, not a file."""
    remembers: bool = False
    """Goes on from what it has left beside the store: a result counts as long as that is still as
    the result left it. The work must give the same again from what it has left."""


class InputRef(Frozen):
    """Where an input lies, relative to the workspace, and what it must be."""

    path: str
    digest: str
    bytes: int


class OutputRef(Frozen):
    """A published output: path relative to the workspace, SHA-256, size."""

    path: str
    digest: str
    bytes: int


class Job(Frozen):
    """Everything that a stage is told: job.json. No URLs, no secrets, no absolute paths."""

    stage: str
    run: str
    fingerprint: str
    code_digest: str
    environment: str
    task: str
    task_digest: str
    params: dict[str, Any]
    inputs: dict[str, InputRef]


class Result(Frozen):
    """What a stage leaves when it is done: result.json, published last."""

    stage: str
    fingerprint: str
    outputs: dict[str, OutputRef]
    metrics: dict[str, Any]
    seconds: float
    finished_at: str
    image: str = ""
    """The id of the image that it was made in; "" for a process, and of an older driver."""


class Event(BaseModel):
    """One JSON line on a stage's stdout."""

    # An older driver may read a newer image. A figure that is no number is told as it is: as null
    # it would make the line no event.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    stage: str
    done: float = 0
    total: float | None = None
    unit: str = ""
    metrics: dict[str, float | int | str] = {}
    error: dict[str, str] | None = None
    """what, why and todo; `passing: no` for one that would repeat, unlike others of its class."""
