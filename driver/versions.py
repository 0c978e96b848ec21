"""The versions of the served model: what is there, how good it was, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts import stages
from contracts.errors import ModelMissing
from contracts.params import DeployMetrics, EvaluateMetrics
from contracts.params.service import ERRORS
from driver import promotion
from driver.host_stages import deploy
from driver.store import Store
from serving.engine import Engine, full_tag


@dataclass(frozen=True)
class Version:
    """A version of the model in the serving engine."""

    tag: str
    digest: str
    size_bytes: int
    live: bool
    """Whether the alias is this model now."""
    rejected: bool
    """Whether it was taken back: no run lets it go live again."""
    scores: Mapping[str, float]
    """Of its evaluation in this workspace, 1 is best; empty where there was none."""
    errors: Mapping[str, float]
    """Of the same evaluation, 0 is best."""
    forced: str
    """Why and by whom the gate was overruled for it."""


def versions(workspace: Path, engine: Engine, name: str) -> list[Version]:
    """Return all versions of a model, the newest first; those made by hand come last."""
    models, store = engine.models(), Store(workspace)
    alias, prefix = full_tag(name), f"{full_tag(name).partition(':')[0]}:"
    live = models[alias].digest if alias in models else ""
    measured = _measured(store)
    forced = {
        metrics.digest: metrics.forced
        for _, result in store.executions(stages.DEPLOY.name)
        for metrics in [DeployMetrics.model_validate(result.metrics)]
        if metrics.forced
    }
    taken_back = deploy.rejected(workspace)
    found = [
        Version(
            tag,
            model.digest,
            model.size_bytes,
            live=model.digest == live,
            rejected=tag in taken_back,
            scores={n: v for n, v in figures.items() if not n.endswith(ERRORS)},
            errors={n: v for n, v in figures.items() if n.endswith(ERRORS)},
            forced=forced.get(model.digest, ""),
        )
        for tag, model in models.items()
        if tag.startswith(prefix) and tag != alias
        for figures in [measured.get(model.digest, {})]
    ]
    return sorted(found, key=lambda each: (each.tag[len(prefix) :][:1].isdigit(), each.tag))[::-1]


def roll_back(workspace: Path, engine: Engine, name: str, wanted: str = "") -> tuple[Version, str]:
    """Let the alias name an older version; return it, and the tag of the one taken back.

    Without `wanted` that is the newest one older than what is live that was not taken back. What
    was live is taken back: the next run does not let it go live again, but makes a better one.
    Asked for by name, a version that was taken back itself may be live again. Raises
    `ModelMissing` where there is none.
    """
    found = versions(workspace, engine, name)
    now = next((each for each in found if each.live), None)
    target = _named(found, name, wanted) if wanted else _before(found, now, name)
    promotion.switch(workspace, engine, full_tag(name), target.tag)
    deploy.reinstate(workspace, target.tag, *gguf_digests(workspace, target.digest))
    if now is not None and now.digest != target.digest:
        deploy.reject(workspace, now.tag, *gguf_digests(workspace, now.digest))
    return target, now.tag if now else ""


def _named(found: Sequence[Version], name: str, wanted: str) -> Version:
    tag = wanted if ":" in wanted else f"{full_tag(name).partition(':')[0]}:{wanted}"
    for each in found:
        if each.tag == tag:
            return each
    known = ", ".join(each.tag for each in found) or "none"
    raise ModelMissing(
        f"there is no version {tag}", why=f"there are: {known}", todo="See `driver models`."
    )


def _before(found: Sequence[Version], now: Version | None, name: str) -> Version:
    older = found[found.index(now) + 1 :] if now else found
    for each in older:
        if not each.rejected and not each.live:
            return each
    raise ModelMissing(
        f"there is no version of {name} to go back to",
        why=f"live is {now.tag}" if now else "nothing is live",
        todo="`driver models` lists what there is; name one to take it whatever its history.",
    )


def _measured(store: Store) -> dict[str, dict[str, float]]:
    """Return what evaluations have measured, by the digest of the model; the last one counts."""
    found: dict[str, dict[str, float]] = {}
    for _, result in store.executions(stages.EVALUATE.name):
        metrics = EvaluateMetrics.model_validate(result.metrics)
        found.setdefault(metrics.models.get("candidate", ""), metrics.scores)
    return found


def gguf_digests(workspace: Path, digest: str) -> list[str]:
    """Return the digests of the GGUF files that this workspace has deployed as this model."""
    return [
        job.inputs[stages.GGUF.name].digest
        for job, result in Store(workspace).executions(stages.DEPLOY.name)
        if DeployMetrics.model_validate(result.metrics).digest == digest
    ]
