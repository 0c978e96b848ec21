"""What the settings ask of a stage, with all that a fingerprint covers: the plan's input."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import files, stages
from contracts.stage import Stage
from driver.host_stages import fetch, snapshot
from driver.plan import Request
from driver.runners import compose
from driver.store import age_h
from serving.engine import full_tag

if TYPE_CHECKING:
    from driver.session import Session


def make(session: Session, stage: Stage) -> Request:
    """Return what the settings ask of a stage, with the digests that identify it."""
    params, deployed = getattr(session.settings, stage.name), session.settings.deploy
    if stage is stages.SNAPSHOT:
        params = params.model_copy(update={"source_digest": _snapshot_source(session)})
    if stage is stages.EVALUATE:
        known = {"champion": full_tag(deployed.name), "base": deployed.served_on}
        params = params.model_copy(update=known)
    if stage.name == stages.CONVERT.name:
        params = params.model_copy(update={"form": deployed.form})
    if stage is stages.FETCH:
        params = params.model_copy(update={"source_digest": fetch.source_digest(params)})
    return Request(
        stage=stage,
        params=params.model_dump(mode="json"),
        identity=params.identity(),
        code_digest=files.code_digest(*stage.code),
        task=session.settings.task,
        task_digest=_task_digest(session, stage),
        environment=_environment(session, stage),
    )


def _snapshot_source(session: Session) -> str:
    """Return what the items' source holds; a recent snapshot of the backend still counts.

    So an interrupted run goes on with its own rows although articles have come in since.
    """
    params = session.settings.snapshot
    last = session.store.latest(stages.SNAPSHOT.name) if params.source == "backend" else None
    # A backend that a dead run has stopped cannot be asked; that run's rows still count.
    if last and (age_h(last[1]) < params.max_age_h or session.window.is_open):
        return str(last[0].params.get("source_digest", ""))
    return snapshot.source_digest(params, session.settings.task, Path.cwd(), session.backend_url)


def _environment(session: Session, stage: Stage) -> str:
    """Return what the stage works in: what its image is built on, or the model it asks, or
    a digest of what compose makes the service with.

    Its own code has a digest already.
    """
    settings = session.settings
    if stage in (stages.REPROCESS, stages.VERIFY):
        asked = full_tag(settings.deploy.name)
        through = session.backend_url if stage is stages.VERIFY else ""  # may hold secrets
        return f"{asked} by {files.digest_text(through)[:12]}" if through else asked
    if stage is stages.RESTORE:
        made = settings.backend and settings.backend.compose
        return files.digest_text(made.model_dump_json()) if made else ""  # may hold secrets
    if stage.image is None or settings.runner == "process":
        return ""
    service = compose.read(session.compose_file, os.environ)[stage.image]
    return files.canonical_json(service.build.args)


def _task_digest(session: Session, stage: Stage) -> str:
    if stage.task == "none":
        return ""
    return session.label_digest if stage.task == "labels" else session.task_digest
