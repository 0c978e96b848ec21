"""The program on one screen: the stages in order, and the loop that runs them."""

from __future__ import annotations

from dataclasses import replace

from contracts.errors import InputMissing, SettingsInvalid
from contracts.stage import OutputRef, Result
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
)
from driver.plan import Action, Step, make_plan, plan_stage
from driver.session import Session

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
    REPROCESS,
    VERIFY,
)


def run(session: Session) -> dict[str, Result]:
    """Run what the plan says and return every stage's result; raise the first failure.

    The plan is made anew before each stage, since a stage may give the same bytes as before; then
    what follows is reused after all. Whatever happens, the service comes back.
    """
    plan = make(session)
    session.drop_leftovers(plan)
    results = {step.stage.name: step.result for step in plan if step.result}
    if all(step.action is Action.REUSE for step in plan):
        session.nothing_to_do(plan)
        return results
    session.begin(plan)
    made: dict[str, OutputRef] = {}
    try:
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
    finally:
        session.bring_back()
    session.end(results)
    return results


def run_one(session: Session, name: str) -> Result:
    """Run one stage whether or not it has changed; what it takes must be there.

    Raises `SettingsInvalid` for an unknown name, `InputMissing` where an earlier stage is due.
    """
    plan = make(session)
    step = next((step for step in plan if step.stage.name == name), None)
    if step is None:
        raise SettingsInvalid(
            f"there is no stage {name}", why=f"there are {', '.join(s.name for s in PIPELINE)}"
        )
    if step.inputs is None:
        raise InputMissing(f"{name} cannot run on its own yet", why=step.reason)
    step = replace(step, action=Action.RUN, reason="asked for")
    session.drop_leftovers([step])
    session.begin([step])
    try:
        return _do(session, step)
    finally:
        session.bring_back()


def make(session: Session) -> list[Step]:
    """Return the plan: one step for each stage, with the reason for it."""
    requests = [session.request(stage) for stage in PIPELINE]
    return make_plan(requests, session.store.result, session.store.latest, session.still_true)


def _do(session: Session, step: Step) -> Result:
    session.prepare(step)
    return session.execute(step)
