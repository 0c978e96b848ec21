"""verify: what is live answers as the task demands, asked directly and through the backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contracts import files
from contracts.entrypoint import RESULT_FILE, StageContext
from contracts.errors import (
    BackendUnavailable,
    EngineUnavailable,
    RulesNotKept,
    VerifyFailed,
    VerifyUnanswered,
)
from contracts.params import VerifyMetrics, VerifyParams
from driver import verification
from driver.adapters.backend import Backend, ModelNotAsked
from driver.host_stages import canaries, reprocess
from driver.host_stages.canaries import Canary
from serving.engine import Engine, full_tag
from tasks import Task, load_task
from tasks.definition import InvalidAnswer

_MOST_NAMED = 5  # items in a message
_FEWEST_TEXTS = 5
"""Answers with long texts that have to be seen before broken label rules reject a model for good:
of a good model, which breaks one in a quarter of them, three of five do in one case of ten, and one
of one in one of four (binomial)."""


def work(
    context: StageContext[VerifyParams], engine: Engine, name: str, backend_url: str = ""
) -> VerifyMetrics:
    """Ask the alias the task's canary, then have a few real items analysed by the backend.

    Raises `VerifyFailed` for answers that are not what the task demands, `ModelNotAsked` where the
    backend does not ask this model, and `VerifyUnanswered` where the backend or the engine does not
    answer, which says nothing about it. What taking the model back needs has been written down
    before the first question.
    """
    try:
        return _verified(context, engine, name, backend_url)
    except ModelNotAsked:
        raise
    except (BackendUnavailable, EngineUnavailable) as error:
        raise VerifyUnanswered(
            f"{full_tag(name)} could not be verified: {error.what}", why=error.why
        ) from error


def _verified(
    context: StageContext[VerifyParams], engine: Engine, name: str, backend_url: str
) -> VerifyMetrics:
    task, alias = load_task(context.job.task), full_tag(name)
    through = backend_url if context.params.items else ""
    kept = context.work / "canaries.jsonl"
    record = verification.begin(
        context.root,
        engine,
        alias,
        task.name,
        through,
        kept,
        context.params.timeout_s,
        constrained=context.params.constrained,
    )
    # It has passed before, maybe: if it fails now, or is killed, that must not count any more.
    files.remove(context.folder / RESULT_FILE)
    if through:
        reprocess.check(through, alias)
    answer = _ask(context, engine, task, alias, record.digest)
    seen: list[Canary] = []
    if through:
        kept = context.root / record.canaries
        seen = canaries.ask(context, engine, Backend(through), alias, kept)
        _require_good(context.params, seen, record)
    verification.passed(context.root, engine, record)
    return VerifyMetrics(
        model=alias,
        digest=record.digest,
        fields=len(task.output.model_fields),
        answer=answer,
        items=tuple(each.id for each in seen),
        wanted=context.params.items if through else 0,
        failed=sum(bool(each.failure) for each in seen),
        broken=sum(bool(each.broken) for each in seen),
    )


def _ask(
    context: StageContext[VerifyParams], engine: Engine, task: Task, alias: str, expected: str
) -> dict[str, Any]:
    """Ask the alias as the backend does, and return the valid answer.

    Unloads first: two tags on one model share a runner, and only a fresh load shows under the
    name, and with the digest, that was asked for.
    """
    engine.unload(alias)
    context.progress(0, 1 + context.params.items, "answers")
    try:
        answer = canaries.whole_answer(
            engine,
            alias,
            task,
            task.canary,
            timeout_s=context.params.timeout_s,
            schema=task.schema() if context.params.constrained else None,
        )
    except InvalidAnswer as error:
        raise VerifyFailed(
            f"{alias} does not come to the end of its answer to the canary", why=str(error)
        ) from error
    shown = next((model for model in engine.loaded() if model.tag == alias), None)
    if shown is None or shown.digest != expected:
        raise VerifyUnanswered(
            f"who has answered the canary cannot be seen, so {alias} is not verified",
            why=f"loaded is {shown.tag if shown else 'nothing'}, not digest {expected[:12]}",
        )
    try:
        if not answer.finished:
            raise InvalidAnswer(f"cut off after {answer.answer_tokens} tokens")
        output = task.parse(answer.text)
    except InvalidAnswer as error:
        raise VerifyFailed(
            f"{alias} answered the canary with something that is not valid",
            why=f"{error}; it said: {answer.text[:300]}",
        ) from error
    context.progress(1, 1 + context.params.items, "answers")
    return output.model_dump(mode="json")


def _require_good(
    params: VerifyParams, seen: Sequence[Canary], record: verification.Record
) -> None:
    """Raise `VerifyFailed` where more items than allowed have no valid answer, or a bad one.

    `VerifyUnanswered` where that hangs on items that the model has not answered at all, or whose
    answer the backend has lost, and `RulesNotKept` where it hangs on the label rules in a few
    texts: the gate has seen more.
    """
    silent = [f"item {each.id}: {each.failure}" for each in seen if each.unanswered]
    ended_early = len(silent) > params.max_error_share * params.items
    asked = params.items if ended_early else len(seen)
    lost = [f"item {each.id}: {each.failure}" for each in seen if each.lost]
    failed = [
        f"item {each.id}: {each.failure}"
        for each in seen
        if each.failure and not (each.unanswered or each.lost)
    ]
    broken = [f"item {each.id} breaks {', '.join(each.broken)}" for each in seen if each.broken]
    most_failed = params.max_error_share * asked
    unanswered = len(failed) + len(silent) + len(lost) > most_failed
    if len(failed) <= most_failed:
        failed = []
    if len(broken) <= params.max_broken_share * asked:
        broken = []
    if not failed and not broken:
        if unanswered and lost and not ended_early:
            raise _lost(record, lost, len(seen))
        if unanswered:
            raise VerifyUnanswered(
                f"{record.version} could not be verified: {len(silent)} of {len(seen)} items got "
                "no answer through the backend",
                why="; ".join(silent[:_MOST_NAMED]),
            )
        return
    few = not failed and sum(each.positive for each in seen) < _FEWEST_TEXTS
    kind = RulesNotKept if few else VerifyFailed
    raise kind(
        f"{record.version} does not answer through the backend as the task demands: "
        f"{len(failed) or len(broken)} of {len(seen)} items "
        f"{'have no valid answer' if failed else 'break a label rule'}",
        why="; ".join((failed + broken)[:_MOST_NAMED]),
        todo="Raise verify.items: on more items that may turn out to be chance. Or raise "
        "verify.max_broken_share, and run again."
        if few
        else "Train on more rows, or better ones. To let it live all the same, raise verify.max_* "
        f"and call `driver rollback {record.version.rpartition(':')[2]}`.",
    )


def _lost(record: verification.Record, lost: Sequence[str], asked: int) -> VerifyUnanswered:
    """Return the failure that the backend does not store what the model answers."""
    return VerifyUnanswered(
        f"{record.version} could not be verified: the backend holds no valid answer to {len(lost)} "
        f"of {asked} items, and the engine, asked directly, gives one",
        why="; ".join(lost[:_MOST_NAMED]),
        todo="The backend loses it whichever model answers, or asks otherwise than the task: "
        f"compare what {record.backend} shows under /api/items/ID with the task's fields (`driver "
        "task check` names what it cannot store), mend it, and run again: that verifies the model.",
        passing=False,  # until somebody does
    )


def disagreement(metrics: VerifyMetrics, engine: Engine) -> str:
    """Return why the model that answered is no longer the live one, "" if it is."""
    live = engine.models().get(metrics.model)
    if live is None or live.digest != metrics.digest:
        return f"{metrics.model} is another model now"
    return ""
