"""The program on one screen: the stages in order, and the loop that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from contracts.errors import InputMissing, OnePassNotCovered, SettingsInvalid
from contracts.stage import OutputRef, Result, Stage
from contracts.stages import (
    CONVERT,
    DEPLOY,
    EVALUATE,
    FETCH,
    LABEL,
    MERGE,
    REPROCESS,
    RESTORE,
    SNAPSHOT,
    SPLIT,
    TRAIN,
    VERIFY,
    convert_stage,
)
from driver import agreement, verification
from driver.plan import Action, Step, make_plan, plan_stage
from driver.session import Session
from driver.settings import Settings

PIPELINE = (
    SNAPSHOT,
    FETCH,
    LABEL,
    SPLIT,
    TRAIN,
    MERGE,
    CONVERT,
    EVALUATE,
    DEPLOY,
    RESTORE,
    VERIFY,
    REPROCESS,
)
"""Every stage there is, in order."""


def stages_for(settings: Settings, *, covered: bool = True) -> tuple[Stage, ...]:
    """Return the stages of these settings, in order, each with what it takes.

    `covered` is False for an adapter or base of which it is known that one pass cannot convert
    them (docs/adr/0005-stages-follow-from-settings.md).
    """
    way, dtype = settings.gguf.way, settings.merge.dtype
    one_pass = way == "one_pass" or (way == "auto" and covered and dtype == "bf16")
    unmerged = one_pass or settings.deploy.form == "adapter"
    convert = convert_stage(one_pass=unmerged, imatrix=settings.gguf.imatrix)
    own = {CONVERT.name: convert}
    return tuple(
        own.get(stage.name, stage) for stage in PIPELINE if not (unmerged and stage is MERGE)
    )


def run(session: Session) -> dict[str, Result]:
    """Run what the plan says and return every stage's result; raise the first failure.

    The plan is made anew before each stage, since a stage may give the same bytes as before; then
    what follows is reused after all. Whatever happens, the service comes back. What one pass does
    not cover is merged and converted, which is another plan.
    """
    try:
        return _run(session)
    except OnePassNotCovered as error:
        if session.settings.gguf.way != "auto":
            raise
        session.display.warn(f"{error.what} ({error.why}); merging and converting instead")
        return _run(session)


def _run(session: Session) -> dict[str, Result]:
    plan = make(session)
    session.drop_leftovers(plan)
    results = {step.stage.name: step.result for step in plan if step.result}
    if all(step.action is Action.REUSE for step in plan):
        session.nothing_to_do(plan)
        return results
    session.begin(plan)
    try:
        try:
            results |= _each(session, plan)
        finally:
            session.bring_back()
    except BaseException as error:
        session.fail(error)
        raise
    session.end(results)
    return results


def _each(session: Session, plan: Sequence[Step]) -> dict[str, Result]:
    """Run or reuse each stage in turn, planned anew on what those before it have made."""
    made: dict[str, OutputRef] = {}
    results = {}
    for planned in plan:
        step = plan_stage(
            planned.request,
            made,
            {},
            session.store.result,
            session.store.latest,
            session.still_true,
        )
        result = session.reuse(step) if step.action is Action.REUSE else _do(session, step)
        results[step.stage.name] = result
        made |= result.outputs
    return results


def run_one(session: Session, name: str) -> Result:
    """Run one stage whether or not it has changed; what it takes must be there.

    Raises `SettingsInvalid` for an unknown name, `InputMissing` where an earlier stage is due.
    """
    step = _reprocess_step(session) if name == REPROCESS.name else _planned(session, name)
    step = replace(step, action=Action.RUN, reason="asked for", result=None)
    session.drop_leftovers([step])
    return _alone(session, step)


def _planned(session: Session, name: str) -> Step:
    """Return what the plan says of one stage."""
    plan = make(session)
    step = next((step for step in plan if step.stage.name == name), None)
    if step is None:
        raise SettingsInvalid(
            f"these settings have no stage {name}",
            why=f"they have {', '.join(step.stage.name for step in plan)}",
        )
    if step.inputs is None:
        raise InputMissing(f"{name} cannot run on its own yet", why=step.reason)
    return step


def reprocess(session: Session) -> Result:
    """Give the items the answers of the model that is live, by the newest snapshot.

    Whatever the settings would make now: a reprocess that was stopped can be gone on with days
    later, and a rollback followed by one.
    """
    step = _reprocess_step(session)
    if step.result:
        if doubt := agreement.doubts(session):
            session.display.warn(doubt)
        else:
            session.nothing_to_do([step])
        return step.result
    session.drop_leftovers([step])  # it needs the service, which a dead run may have left stopped
    return _alone(session, step)


def _reprocess_step(session: Session) -> Step:
    """Return the step that gives the items the answers of the model that is live.

    What has no verdict is taken back before, as it would be before the stage: planned earlier, the
    step would name another model than the one that answers. Raises `InputMissing` where no
    deployment of this workspace is live.
    """
    verification.settle(session.workspace, session.display.warn, unfinished=True)
    store, request = session.store, session.request(REPROCESS)
    live = next(
        (e for e in store.executions(DEPLOY.name) if not session.still_true(DEPLOY, e[1])), None
    )
    snapshot = store.latest(SNAPSHOT.name)
    if live is None or snapshot is None:
        raise InputMissing(
            "there is nothing to reprocess with",
            why="no model that this workspace has deployed is live",
            todo="`python -m driver models` shows what is live; `run` deploys.",
        )
    made = {**snapshot[1].outputs}
    made |= {name: OutputRef(**ref.model_dump()) for name, ref in live[0].inputs.items()}
    return plan_stage(request, made, {}, store.result, store.latest, session.still_true)


def _alone(session: Session, step: Step) -> Result:
    """Let one stage be a run of its own; the service comes back as after any other."""
    session.begin([step])
    try:
        try:
            result = _do(session, step)
        finally:
            session.bring_back()
    except BaseException as error:
        session.note_end(error)
        raise
    session.note_end()
    return result


def make(session: Session) -> list[Step]:
    """Return the plan: one step for each stage, with the reason for it."""
    plan = _make(session, stages_for(session.settings))
    convert = next(step for step in plan if step.stage.name == CONVERT.name)
    if session.store.refusal(CONVERT.name, convert.fingerprint):
        return _make(session, stages_for(session.settings, covered=False))
    return plan


def _make(session: Session, stages: Sequence[Stage]) -> list[Step]:
    requests = [session.request(stage) for stage in stages]
    return make_plan(requests, session.store.result, session.store.latest, session.still_true)


def _do(session: Session, step: Step) -> Result:
    session.prepare(step)
    try:
        return session.execute(step)
    except OnePassNotCovered as error:
        session.store.refuse(step.stage.name, step.fingerprint, str(error))
        raise
