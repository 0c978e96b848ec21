"""Whether what a stage has left outside the store still agrees with its result.

Each question is a stage's; "" means that it does, anything else is why the stage runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from contracts import stages, test_set
from contracts.errors import BackendUnavailable, FileUnusable, RetrainError
from contracts.label_cache import imports_of
from contracts.params import (
    DeployMetrics,
    EvaluateMetrics,
    LabelMetrics,
    SplitMetrics,
    VerifyMetrics,
)
from contracts.stage import Job, Result, Stage
from driver import preflight, verification
from driver.adapters.addresses import is_same_address
from driver.adapters.backend import Backend
from driver.adapters.items import storage_of
from driver.host_stages import deploy, reprocess, same_backend, verify
from driver.host_stages.record import Record
from serving import engine_named
from serving.engine import full_tag

if TYPE_CHECKING:
    from driver.session import Session

Question = Callable[["Session", Result], str]


def still_true(session: Session, stage: Stage, result: Result) -> str:
    """Return why the result of a stage no longer holds, "" if it does.

    What cannot be found out is a reason to run: an effect is idempotent.
    """
    ask = _QUESTIONS.get(stage.name)
    try:
        return ask(session, result) if ask else ""
    except RetrainError as error:
        return f"unknown: {error.what}"


def _label(session: Session, result: Result) -> str:
    """Labels may have been imported since."""
    labelled = LabelMetrics.model_validate(result.metrics)
    newer = imports_of(session.workspace) > labelled.imports
    return "labels have been imported since" if newer else ""


def _split(session: Session, result: Result) -> str:
    """Another split may have added to the frozen test set since, or its file may be gone."""
    split = SplitMetrics.model_validate(result.metrics)
    settings = session.settings
    found = test_set.digest_of(session.workspace, settings.task, settings.split.test_set)
    return "" if found == split.test_set_digest else "the frozen test set has changed"


def _evaluate(session: Session, result: Result) -> str:
    """Another model may be live than the candidate was compared with, or than itself; or what has
    to be deployed would go to another engine than was asked.

    A live model that was silent then is asked once more, unless the candidate is forced. And under
    the name of an adapter's base there may be another model.
    """
    evaluated, deployed = EvaluateMetrics.model_validate(result.metrics), session.settings.deploy
    try:
        models = session.engine.models()
    except RetrainError:
        return ""  # the stages that need the engine will say so
    live, on = models.get(full_tag(deployed.name)), deployed.served_on
    if on and (base := models.get(full_tag(on))) and base.digest != evaluated.models.get("base"):
        return f"{on} is another model now"
    if evaluated.silent and live and live.digest == evaluated.silent and not deployed.force:
        return "the live model gave too few answers to compare with"
    deployed_there = live is not None and live.digest == evaluated.models.get("candidate")
    if not deployed_there and (changed := _another_engine(session, evaluated.engine)):
        return changed
    known = {digest for role, digest in evaluated.models.items() if role != "baseline"}
    return "another model is live now" if live and live.digest not in known else ""


def _another_engine(session: Session, asked: str) -> str:
    """Return that another engine is named than was asked, "" where nobody noted which that was."""
    now = engine_named(session.addresses) if asked else ""
    same = is_same_address(asked, now)
    return "" if same else f"the serving engine is {now} now, and was {asked}"


def _deploy(session: Session, result: Result) -> str:
    return deploy.disagreement(DeployMetrics.model_validate(result.metrics), session.engine)


def _restore(session: Session, result: Result) -> str:
    """Compose may not have made the service anew yet for what is deployed by now, or somebody may
    have made it anew otherwise. Not where compose makes it ask that other model: `restore` said so.
    """
    if session.window.is_open:
        return "the service has been stopped"
    backend, store = session.settings.backend, session.store
    if backend is None or backend.compose is None:
        return ""
    if (changed := _asks_another(session)) and preflight.compose_mends_it(session):
        return changed
    restored, deployed = store.latest(stages.RESTORE.name), store.latest(stages.DEPLOY.name)
    if restored and _later(restored[1], result):
        return "the service has been restored with other settings since"
    return "a model has been deployed since" if deployed and _later(deployed[1], result) else ""


def _later(one: Result, other: Result) -> bool:
    return datetime.fromisoformat(one.finished_at) > datetime.fromisoformat(other.finished_at)


def _reprocess(session: Session, result: Result) -> str:
    """Another model may have answered for items since, if only to be verified; or the items have
    got back what they held before; or a deployment since has let others come in between; or there
    was no backend yet, or another one; or it was begun again, and stopped; or the backend asks
    another model, now or when a run began.

    What the items hold their record says: the result is there from before it was begun again.
    """
    if not (session.backend_url and session.settings.reprocess.enabled):
        return ""  # there is nothing to do
    store, last = session.store, next(iter(Record.by_last_run(session.workspace)), None)
    if last is None:
        return "it was done without a backend"
    executions = store.executions(stages.REPROCESS.name)
    job = next((job for job, done in executions if done.fingerprint == result.fingerprint), None)
    if job and (changed := _of_items(session, last, job, result)):
        return changed
    return _asks_another(session)  # what comes in gets that one's answers


def note_due(session: Session) -> None:
    """Note that the items have to be reprocessed where the backend asks another model.

    What has come in has that one's answers, which nobody sees any more once the backend has been
    made anew. A damaged record is no finished one, so that it needs no note.
    """
    if not session.settings.reprocess.enabled or not (asked := _asked_instead(session)):
        return
    with suppress(FileUnusable):
        for last in Record.by_last_run(session.workspace)[:1]:
            last.note_due(f"the backend has asked {asked}")


def doubts(session: Session) -> str:
    """Return in words that the backend's items are not as the last reprocess has left them, "" if
    they are; one that is away shows nothing.

    Only who asks for a reprocess alone is told: it takes a listing of all items.
    """
    if session.backend_url and session.settings.reprocess.enabled and not session.window.is_open:
        backend, storage = Backend(session.backend_url), storage_of(session.task)
        with suppress(BackendUnavailable):
            return same_backend.doubts_of_newest(session.workspace, backend, storage)
    return ""


def _of_items(session: Session, record: Record, job: Job, result: Result) -> str:
    model, about = job.inputs[stages.GGUF.name].digest, record.about()
    if not is_same_address(about.backend, Backend(session.backend_url).url):
        return f"it was done in another backend, {about.backend}"
    if about.model != model:
        return "items have another model's answers now"
    if about.restored_at:
        return "the items have got back what they held before"
    finish = record.finish()
    if finish is None:  # or only a verification has asked about items since another model did
        stopped = "its last start was interrupted" if record.begun else ""
        return record.due() or stopped or "not every item was asked about"
    for other, done in session.store.executions(stages.DEPLOY.name):
        # By the runs' names, which sort also where the clock was set back; an older driver has not
        # noted that of the reprocess, and the job may name a later one, which was killed.
        run = finish.get("run")
        since = other.run > run if run else _later(done, result)
        another = other.inputs[stages.GGUF.name].digest != model
        if since and (another or done.metrics.get("moved", True)):
            return "a model has been deployed since"
    return ""


def _verify(session: Session, result: Result) -> str:
    """Another model may be live since, or the backend may have been made anew to ask another."""
    if under_way := verification.read(session.workspace):
        return (
            "its last start was interrupted" if under_way.begun else "a model has gone live since"
        )
    verified = VerifyMetrics.model_validate(result.metrics)
    if changed := verify.disagreement(verified, session.engine):
        return changed
    return _asks_another(session) if session.settings.verify.items else ""


def _asks_another(session: Session) -> str:
    """Return that the backend asks another model than the deployed one, "" where it does not.

    One that is away is waited for where it is wanted, and looked at again.
    """
    asked = _asked_instead(session)
    return f"the backend asks {asked}" if asked else ""


def _asked_instead(session: Session) -> str:
    if not session.backend_url or session.window.is_open:
        return ""
    try:
        return reprocess.another_asked(session.backend_url, session.settings.deploy.name)
    except RetrainError:
        return ""


_QUESTIONS: Mapping[str, Question] = {
    stages.LABEL.name: _label,
    stages.SPLIT.name: _split,
    stages.EVALUATE.name: _evaluate,
    stages.DEPLOY.name: _deploy,
    stages.RESTORE.name: _restore,
    stages.REPROCESS.name: _reprocess,
    stages.VERIFY.name: _verify,
}
