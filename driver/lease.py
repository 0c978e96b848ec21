"""What a stage needs of the host before it starts: the backend away, and the GPU free."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts import stages
from contracts.errors import EngineUnavailable, GpuUnavailable
from contracts.stage import GpuMode, Stage
from driver import preflight
from driver.holders import Holders
from driver.runners import compose
from serving.engine import Engine

if TYPE_CHECKING:
    from driver.adapters.containers import ContainerHost
    from driver.adapters.gpu import Gpu, Host
    from driver.plan import Step
    from driver.session import Session
    from driver.settings import GpuSettings

_SHARE = 0.9
"""Of a GPU's memory: a display and the driver's own contexts take the rest."""
_SETTLE_S = 5.0
"""How long memory may take to come back after Ollama has unloaded a model; 0.5 to 1.5 s are usual
(measured with Ollama)."""
_POLL_S = 0.5
_BESIDE_THE_SERVICE = (stages.SNAPSHOT, stages.RESTORE, stages.REPROCESS, stages.VERIFY)
"""Stages that need the backend, or come after its return."""


@dataclass(frozen=True)
class Clock:
    """The time, in seconds from any start; tests have one that nobody waits for."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


def make_way(session: Session, step: Step) -> None:
    """Open the service window if the stage needs it, and free the GPU if it wants all of it.

    Called before every attempt at a stage: what was opened and freed before may have come back.
    """
    stage = step.stage
    if _needs_window(session, step):
        beside = stage is stages.LABEL and session.settings.window.policy == "label_beside"
        session.window.open(stop=not beside)
    if stage.gpu is GpuMode.EXCLUSIVE and not session.runner.survives(stage, step.fingerprint):
        _free_gpu(session)


def _needs_window(session: Session, step: Step) -> bool:
    stage = step.stage
    if session.settings.window.policy == "run":
        return stage not in _BESIDE_THE_SERVICE
    if stage is stages.LABEL:
        return preflight.asks_teacher(session, step) and preflight.teacher_is_here(session)
    return stage.gpu is not GpuMode.NONE


def devices(session: Session, host: Host) -> tuple[Gpu, ...]:
    """Return the GPUs that training will see: those of the settings, else those reserved.

    For a process CUDA_VISIBLE_DEVICES comes before the reservation, which is a container's.

    `GpuUnavailable` for one that this host does not have.
    """
    from driver.adapters import gpu

    names = session.settings.gpu.devices
    if not names and session.settings.runner == "process":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = tuple(name.strip() for name in visible.split(",") if name.strip())
    if names:
        return gpu.choose(host, names, count=None)
    trainer = compose.read(session.compose_file, os.environ)["trainer"]
    return gpu.choose(host, trainer.gpu_names, trainer.gpu_count)


def environment(session: Session, stage: Stage) -> dict[str, str]:
    """Return what a stage's process has to know of its GPUs; a container sees no others.

    By UUID: CUDA counts the fastest first, NVML by bus address.
    """
    settings = session.settings
    if (
        stage.gpu is not GpuMode.EXCLUSIVE
        or settings.runner != "process"
        or settings.train.device != "cuda"
    ):
        return {}
    from driver.adapters import gpu

    chosen = devices(session, gpu.survey())
    return {"CUDA_VISIBLE_DEVICES": ",".join(each.uuid for each in chosen)}


def _free_gpu(session: Session) -> None:
    """Give the whole GPU to the stage: unload every model of the serving engine, and wait.

    Of an engine on another host the GPU cannot be seen: there only the models are unloaded.
    """
    settings = session.settings.gpu
    unload_all(session.engine, settings.free_timeout_s)
    if session.settings.train.device != "cuda" or not preflight.gpu_is_here(session):
        return
    from driver.adapters import gpu

    wait_free(lambda: devices(session, gpu.survey()), holders(session), settings)


def holders(session: Session) -> Holders:
    """Return who can name what holds a GPU of this host."""
    return Holders(session.settings.gpu, session.window, _engine_here)


def _engine_here() -> ContainerHost:
    from driver.adapters.containers import ContainerHost

    return ContainerHost()


def unload_all(engine: Engine, timeout_s: float, clock: Clock = CLOCK) -> None:
    """Unload every model and wait until the engine shows none.

    Raises `EngineUnavailable` after `timeout_s`: one hangs, or somebody goes on asking.
    """
    deadline = clock.now() + timeout_s
    while loaded := engine.loaded():
        left_s = deadline - clock.now()
        if left_s <= 0:
            raise EngineUnavailable(
                f"{engine.name} has {', '.join(model.tag for model in loaded)} loaded again and "
                f"again, for {timeout_s:g} s",
                why="somebody else asks it while the GPU is wanted",
                todo="Stop who asks, or point it to another Ollama; then run again.",
            )
        for model in loaded:
            engine.unload(model.tag, timeout_s=max(left_s, 1))
        clock.sleep(_POLL_S)


def wait_free(
    look: Callable[[], Sequence[Gpu]],
    known: Holders,
    settings: GpuSettings,
    clock: Clock = CLOCK,
) -> None:
    """Wait until every GPU has its memory free, and stop what holds it as far as allowed.

    Raises `GpuUnavailable` that names who holds it after `settings.free_timeout_s`.
    """
    started = clock.now()
    settled = False
    while short := [gpu for gpu in look() if gpu.free_mib < needed_mib(gpu, settings)]:
        waited_s = clock.now() - started
        if not settled and waited_s >= min(_SETTLE_S, settings.free_timeout_s):
            known.stop_allowed(short)
            started, settled = clock.now(), True
        elif waited_s >= settings.free_timeout_s:
            raise _taken(short, known, settings)
        clock.sleep(_POLL_S)


def needed_mib(gpu: Gpu, settings: GpuSettings) -> int:
    """Return how much memory has to be free on a GPU."""
    return settings.needed_mib or int(gpu.total_mib * _SHARE)


def _taken(short: Sequence[Gpu], known: Holders, settings: GpuSettings) -> GpuUnavailable:
    states = (
        f"GPU {gpu.index} ({gpu.name}) has {gpu.free_mib} of {gpu.total_mib} MiB free, "
        f"{needed_mib(gpu, settings)} MiB are needed"
        for gpu in short
    )
    found = known.of(short)
    held = [f"held by {each}" for each in found] or ["the driver lists no process that holds it"]
    held += [f"GPU {gpu.index}: {gpu.unlisted}" for gpu in short if gpu.unlisted]
    return GpuUnavailable("; ".join(states), why="; ".join(held), todo=known.advice(found))
