"""verify: what is live answers a canary as the task demands."""

from __future__ import annotations

from contracts.entrypoint import StageContext
from contracts.errors import VerifyFailed
from contracts.params import (
    VerifyMetrics,
    VerifyParams,
)
from serving.engine import Engine, full_tag
from tasks import load_task
from tasks.definition import InvalidAnswer


def work(context: StageContext[VerifyParams], engine: Engine, name: str) -> VerifyMetrics:
    """Ask the alias as the backend does, and check every field of the answer.

    Unloads first: two tags on one model share a runner, and only a fresh load shows under the
    name, and with the digest, that was asked for.
    """
    task = load_task(context.job.task)
    alias = full_tag(name)
    engine.unload(alias)
    context.progress(0, 1, "answers")
    answer = engine.chat(
        alias,
        task.messages(task.canary),
        schema=task.schema() if context.params.constrained else None,
        options={**task.modelfile().parameters},
        timeout_s=context.params.timeout_s,
    )
    shown = next((model for model in engine.loaded() if model.tag == alias), None)
    expected = engine.models()[alias].digest
    if shown is None or shown.digest != expected:
        raise VerifyFailed(
            f"the canary was not answered by {alias}",
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
            todo="Train longer or on more rows, or better ones.",
        ) from error
    context.progress(1, 1, "answers")
    return VerifyMetrics(
        model=alias,
        digest=expected,
        fields=len(task.output.model_fields),
        answer=output.model_dump(mode="json"),
    )


def disagreement(metrics: VerifyMetrics, engine: Engine) -> str:
    """Return why the model that answered is no longer the live one, "" if it is."""
    live = engine.models().get(metrics.model)
    if live is None or live.digest != metrics.digest:
        return f"{metrics.model} is another model now"
    return ""
