"""What a stage needs of the host before it starts: the backend away, and the GPU free."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from contracts import stages
from contracts.stage import GpuMode
from driver import preflight
from serving import ollama_address

if TYPE_CHECKING:
    from driver.plan import Step
    from driver.session import Session

_FREE_TIMEOUT_S = 60
_BESIDE_THE_SERVICE = (stages.SNAPSHOT, stages.RESTORE, stages.REPROCESS, stages.VERIFY)
"""Stages that need the backend, or come after its return."""


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
        return preflight.asks_teacher(session, step) and _teacher_is_here(session)
    return stage.gpu is not GpuMode.NONE


def _teacher_is_here(session: Session) -> bool:
    """Return whether one of the labelling servers is the engine that the backend asks too."""
    teachers = [word for word in session.settings.teachers if not word.startswith("openai+")]
    if not session.settings.teachers:
        return True
    here = ollama_address(os.environ.get("OLLAMA_HOST", ""))
    return here in map(ollama_address, teachers)


def _free_gpu(session: Session) -> None:
    """Give the whole GPU to the stage: unload every model of the serving engine."""
    for model in session.engine.loaded():
        session.engine.unload(model.tag)
    if session.settings.train.device == "cuda":
        from driver.adapters import gpu

        total = gpu.devices()[0].total_mib
        gpu.wait_free(int(total * 0.9), _FREE_TIMEOUT_S)
