"""What the training will take, said before anything is stopped: memory and time.

Lengths are estimated from characters (contracts/pace.py), as the driver has no tokenizer: of the
split if there is one, else of the items with an answer of usual length. The trainer counts tokens
and decides anew, with what is really free.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import files, fit, pace, stages
from contracts.errors import GpuUnavailable
from contracts.params import TrainParams
from contracts.stage import OutputRef, Stage
from contracts.vram import QWEN3_14B, Breakdown, Shape, Training, UnknownShape
from driver import lease, preflight
from driver.plan import Action, Step
from driver.runners import compose

if TYPE_CHECKING:
    from driver.session import Session

_FREE_SHARE = 0.98
"""Of a GPU's memory that is free when nobody uses it; the driver keeps the rest. An estimate."""
_ANSWER_CHARACTERS = 1000
"""Of an answer that is still to be labelled: some 2,500 for a relevant item, 400 for another one,
and a quarter is relevant. An estimate."""


@dataclass(frozen=True)
class Device:
    """What the training will run on, as far as it can be seen from here."""

    name: str
    """As NVML names it; "" for a CPU."""
    total_mib: int
    """Of a CPU's memory the part of one process."""
    usable_mib: int
    """What the training can have of it."""
    place: str
    """In words, for a message."""
    count: int = 1
    """How many GPUs the training sees, of which this is the smallest."""


@dataclass(frozen=True)
class Lengths:
    """How long the training's rows are, in tokens."""

    rows: int
    mean: float
    longest: int


@dataclass(frozen=True)
class Forecast:
    """What is to be expected of the training."""

    training: Training
    memory: Breakdown
    device: Device | None
    seconds: float | None
    """None where rows or rate are unknown."""
    measured: bool
    """Whether the rate was measured in this workspace."""
    assumed: str
    """What was taken for granted; "" for nothing."""

    def text(self) -> str:
        """Return one line for people."""
        of = f" of {self.device.total_mib:,}" if self.device else ""
        rows = f"{self.training.rows} row{'s' if self.training.rows > 1 else ''}"
        parts = [
            f"train: about {round(self.memory.total, -2):,}{of} MiB",
            f" ({rows} of up to {self.training.length:,} tokens at once)",
        ]
        if self.seconds is not None:
            source = "as measured before" if self.measured else "by estimate"
            parts.append(f", about {pace.in_words(self.seconds)} {source}")
        if self.assumed:
            parts.append(f"; {self.assumed}")
        return "".join(parts)


def forecast(session: Session) -> Forecast | None:
    """Return what is to be expected; None for a base of a shape that cannot be estimated.

    Raises `OutOfMemory` where not one row fits the device that is there; a micro-batch of the
    settings is believed. `GpuUnavailable` or `SettingsInvalid` for processes that cannot be.
    """
    params: TrainParams = session.settings.train
    try:
        shape, assumed = _shape(session)
    except UnknownShape:
        return None
    lengths = _lengths(session)
    longest = min(lengths.longest, params.max_length) if lengths else params.max_length
    training = Training.of(params, shape, rows=params.micro_batch_size or 1, length=longest)
    device = _device(session)
    processes = _processes(params, device)
    training = _divided(training, params, device, processes)
    if params.micro_batch_size is None and device:
        rows = fit.choose(
            training,
            rows_a_step=params.batch_size // processes,
            free_mib=device.usable_mib,
            where=device.place,
        )
        training = training.with_rows(rows)
    rate = _rate(session, shape, device, lengths, processes)
    return Forecast(
        training=training,
        memory=training.memory(),
        device=device,
        seconds=_seconds(session, params, shape, lengths, rate),
        measured=rate is not None and rate.source == "measured",
        assumed=assumed,
    )


def announce(session: Session) -> None:
    """Show the forecast; raise as above, and warn where it is tried all the same."""
    found = forecast(session)
    if found is None:
        return
    session.display.note(found.text())
    if found.device and found.memory.total > found.device.usable_mib:
        session.display.warn(
            f"by estimate {found.device.place} is too small for train.micro_batch_size="
            f"{session.settings.train.micro_batch_size}; after an out-of-memory error the trainer "
            "goes on with half the rows at once"
        )


def trains(plan: Sequence[Step]) -> bool:
    """Return whether a plan runs the training."""
    return any(step.stage is stages.TRAIN and step.action is Action.RUN for step in plan)


# --- what is known ------------------------------------------------------------------------------
def _shape(session: Session) -> tuple[Shape, str]:
    """Return the base's shape, and what was assumed about it; raises `UnknownShape`."""
    params = session.settings.fetch
    if params.path:
        return Shape.read(Path(params.path)), ""
    if params.model.endswith("Qwen3-14B"):
        return QWEN3_14B, ""
    last = session.store.latest(stages.FETCH.name)
    if last and (last[0].params.get("model"), last[0].params.get("revision")) == (
        params.model,
        params.revision,
    ):
        return Shape.read(session.workspace / last[1].outputs[stages.BASE.name].path), ""
    return QWEN3_14B, f"{params.model} is taken for Qwen3-14B until it is fetched"


def _device(session: Session) -> Device | None:
    """Return the smallest device of the training; None where it cannot be seen from here."""
    if session.settings.train.device == "cpu":
        return _cpu(session)
    if not preflight.gpu_is_here(session):
        return None
    from driver.adapters import gpu

    try:
        chosen = lease.devices(session, gpu.survey())
    except GpuUnavailable:
        return None  # a question of its own, with its own answer
    smallest = min(chosen, key=lambda each: each.total_mib)
    usable = session.settings.gpu.needed_mib or int(smallest.total_mib * _FREE_SHARE)
    place = f"GPU {smallest.index} ({smallest.name})"
    return Device(smallest.name, smallest.total_mib, usable, place, len(chosen))


def _cpu(session: Session) -> Device | None:
    """Return what a process on a CPU has: all of them share the machine's or container's memory."""
    known: list[tuple[int, str]] = []
    if preflight.gpu_is_here(session):  # and so is the memory
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known.append((int(lines[0].split()[1]) // 1024, "this machine's memory"))
    if session.settings.runner == "docker":
        trainer = compose.read(session.compose_file, os.environ)["trainer"]
        if limit := trainer.memory_mib:
            known.append((limit, "the training container's memory (TRAINER_MEMORY)"))
    if not known:
        return None
    total, place = min(known)
    processes = session.settings.train.processes or 1
    part = total // processes
    return Device("", part, part, fit.one_of(processes, place))


def _processes(params: TrainParams, device: Device | None) -> int:
    """Return how many processes will train; raise as `TrainParams.processes_on` does."""
    return params.processes_on(device.count) if device else params.processes or 1


def _divided(
    training: Training, params: TrainParams, device: Device | None, processes: int
) -> Training:
    """Return the training with the share of the base that each process will hold."""
    divided = params.sharding == "fsdp"
    if params.sharding == "auto" and training.cuda and device:
        divided = fit.has_to_be_divided(training, device.total_mib)
    return replace(training, shares=processes if divided else 1)


def _lengths(session: Session) -> Lengths | None:
    """Return the lengths of the training rows, estimated; None before there are items."""
    if rows := _newest(session, stages.SPLIT, stages.TRAIN_SPLIT.name):
        texts = [
            sum(len(message["content"]) for message in row["messages"])
            for row in files.read_jsonl(rows)
        ]
        share = 1.0
    elif items := _newest(session, stages.SNAPSHOT, stages.ITEMS.name):
        task, split = session.task, session.settings.split
        texts = [
            _ANSWER_CHARACTERS
            + sum(
                len(message["content"]) for message in task.messages(task.item.model_validate(item))
            )
            for item in files.read_jsonl(items)
        ]
        share = 1 - split.validation - split.test
    else:
        return None
    tokens = [text / pace.CHARACTERS_PER_TOKEN for text in texts]
    params: TrainParams = session.settings.train
    if params.too_long == "drop":
        tokens = [each for each in tokens if each <= params.max_length] or tokens
    if not tokens:
        return None
    rows_trained = max(1, round(share * len(tokens)))
    return Lengths(rows_trained, sum(tokens) / len(tokens), int(max(tokens)))


def _newest(session: Session, stage: Stage, artifact: str) -> Path | None:
    """Return where the newest result of a stage has an artifact, if it is there."""
    last = session.store.latest(stage.name)
    found: OutputRef | None = last[1].outputs.get(artifact) if last else None
    path = session.workspace / found.path if found else None
    return path if path and path.is_file() else None


def _rate(
    session: Session,
    shape: Shape,
    device: Device | None,
    lengths: Lengths | None,
    processes: int,
) -> pace.Pace | None:
    """Return the rate of the last training if it was like this one, else an estimate.

    Of several processes each is taken to be as fast as one alone.
    """
    params: TrainParams = session.settings.train
    trained, fetched = (session.store.latest(each.name) for each in (stages.TRAIN, stages.FETCH))
    if trained and fetched:
        job, result = trained
        like = all(
            job.params.get(name) == getattr(params, name)
            for name in ("backend", "device", "load_in", "gradient_checkpointing", "processes")
        )
        base = job.inputs[stages.BASE.name].digest
        rate = float(result.metrics.get("tokens_per_s", 0))
        if like and rate > 0 and base == fetched[1].outputs[stages.BASE.name].digest:
            return pace.Pace(rate, "measured")
    if device is None or lengths is None:
        return None
    one = pace.estimated(shape, params, card=device.name, length=lengths.mean)
    return replace(one, tokens_per_s=one.tokens_per_s * processes) if one else None


def _seconds(
    session: Session,
    params: TrainParams,
    shape: Shape,
    lengths: Lengths | None,
    rate: pace.Pace | None,
) -> float | None:
    if lengths is None or rate is None:
        return None
    tokens = pace.tokens_to_train(lengths.rows, lengths.mean, params)
    path = session.settings.fetch.path
    base = files.size_of(Path(path)) if path else 2 * (shape.linear_weights + shape.other_weights)
    return pace.training_s(tokens, rate, base_bytes=base)
