"""The versions of the served model: what is there, how good it was, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contracts import stages
from contracts.errors import FileUnusable, ModelMissing, RetrainError
from contracts.params import DeployMetrics, EvaluateMetrics
from contracts.params.service import ERRORS
from driver import promotion, records, served, taken_back
from driver.host_stages.record import Record
from driver.store import Store
from serving.engine import Engine, Model, full_tag


@dataclass(frozen=True)
class Version:
    """A version of the model in the serving engine."""

    tag: str
    digest: str
    size_bytes: int
    live: bool
    """Whether the alias is this model now."""
    rejected: bool
    """Whether it was taken back: no run lets it go live again. Where the record of that is damaged,
    which `unfinished` says, nothing is known to have been."""
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
        (metrics.tag, metrics.digest): metrics.forced
        for _, result in store.executions(stages.DEPLOY.name)
        for metrics in [DeployMetrics.model_validate(result.metrics)]
        if metrics.forced
    }
    bad: frozenset[str] = frozenset()
    with suppress(FileUnusable):
        bad = taken_back.digests(workspace, models)
    found = [
        Version(
            tag,
            model.digest,
            model.size_bytes,
            live=model.digest == live,
            rejected=model.digest in bad,
            scores={n: v for n, v in figures.items() if not n.endswith(ERRORS)},
            errors={n: v for n, v in figures.items() if n.endswith(ERRORS)},
            forced=forced.get((tag, model.digest), ""),
        )
        for tag, model in models.items()
        if tag.startswith(prefix) and tag != alias
        for figures in [measured.get(model.digest, {})]
    ]
    return sorted(found, key=lambda each: (each.tag[len(prefix) :][:1].isdigit(), each.tag))[::-1]


def live_digest(engine: Engine, name: str) -> str:
    """Return the digest of what the alias names, "" for nothing; it need not be a version."""
    live = engine.models().get(full_tag(name))
    return live.digest if live else ""


def roll_back(
    workspace: Path,
    engine: Engine,
    name: str,
    wanted: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Version, str]:
    """Let the alias name another version; return it, and the tag of the one that was left.

    Without `wanted` that is what `way_back` finds. What was live is taken back on that way, and on
    one to an older model: the next run does not let it go live again, but makes a better one. A
    model is as old as its newest version. The way to a newer one, or to or from one made by hand,
    whose age nobody knows, is no verdict on the one left, which becomes the way back. Asked for by
    name, a version that was taken back may be live again, and no verification that failed before
    has a say any more. A switch that was interrupted is settled first, which `say` is told; if it
    was this rollback, that is all there is to do. A damaged record is kept aside: a person decides
    here. Raises `ModelMissing` where there is no such version.
    """
    taken_back.rescue(workspace, say)
    records.set_aside(workspace / records.SERVED, served.Book, say)
    records.set_aside(workspace / records.PROMOTION, promotion.Switch, say)
    begun = _begun(workspace)
    if said := promotion.settle(workspace):
        say(said)
    models, found = engine.models(), versions(workspace, engine, name)
    now = next((each for each in found if each.live), None)
    if begun and begun.alias == full_tag(name) and not _begun(workspace):
        finished = next((each for each in found if each.live and each.tag == begun.version), None)
        if finished and (not wanted or _named(found, name, wanted).digest == finished.digest):
            return finished, begun.left
    alias = full_tag(name)
    target = _named(found, name, wanted) if wanted else _before(workspace, models, found, name)
    live = models.get(alias)  # which may have no version: its tag was removed, say
    bad: Sequence[str] = ()
    left = ""
    if live and live.digest != target.digest:
        left = promotion.keep_name(engine, models, alias)
        newest = served.version_of(models, alias, target.digest) or target.tag
        if not wanted or now is None or served.is_older(newest, now.tag):
            bad = names(workspace, engine.models(), live.digest)
    promotion.switch(
        workspace,
        engine,
        alias,
        target.tag,
        good=names(workspace, models, target.digest),
        bad=bad,
        left=left,
    )
    return target, left


def _begun(workspace: Path) -> promotion.Switch | None:
    """Return the rollback that was interrupted."""
    record = promotion.read(workspace)
    return record if record and record.rollback else None


def _named(found: Sequence[Version], name: str, wanted: str) -> Version:
    tag = wanted if ":" in wanted else f"{full_tag(name).partition(':')[0]}:{wanted}"
    for each in found:
        if each.tag == tag:
            return each
    known = ", ".join(each.tag for each in found) or "none"
    raise ModelMissing(
        f"there is no version {tag}", why=f"there are: {known}", todo="See `driver models`."
    )


def way_back(
    workspace: Path, models: Mapping[str, Model], alias: str, digest: str, noted: str = ""
) -> list[str]:
    """Return the versions to go back to from the model `digest`, the one to take first.

    What was served before it, and before that; `noted`, which an older driver has written down; and
    then every other one that was verified, or served until another took its place, the newest
    first. Never one that was taken back, or that nobody has been served.
    """
    bad = {digest, *taken_back.digests(workspace, models)}
    first = [*served.all_before(workspace, models, alias, digest)]
    if noted in models and noted != alias:
        first.append(models[noted].digest)
    others = served.proven(workspace, models, alias)
    tags = [served.version_of(models, alias, each) for each in first]
    tags += sorted(
        (served.version_of(models, alias, each) for each in others), key=served.age, reverse=True
    )
    return [tag for tag in dict.fromkeys(tags) if tag and models[tag].digest not in bad]


def _before(
    workspace: Path, models: Mapping[str, Model], found: Sequence[Version], name: str
) -> Version:
    """Return the version before the one that is live, in the order of time."""
    alias = full_tag(name)
    now = next((each for each in found if each.live), None)
    digest = models[alias].digest if alias in models else ""
    for tag in way_back(workspace, models, alias, digest):
        if now is None or not served.is_older(now.tag, tag):
            return next(each for each in found if each.tag == tag)
    raise ModelMissing(
        f"there is no version of {name} to go back to",
        why=f"live is {now.tag}" if now else "nothing is live",
        todo="`driver models` lists what there is; name one to take it whatever its history.",
    )


def smaller_context(engine: Engine, version: str, num_ctx: int) -> str:
    """Say that a version has a smaller context than `num_ctx`, the task's tokens; "" where it has
    none, or the engine does not tell. The backend names none, so the model's own counts.
    """
    try:
        own = engine.num_ctx(version)
    except RetrainError:
        return ""
    if own is not None and own >= num_ctx:
        return ""
    return (
        f"! The num_ctx of {version} is {own or 'not set'}, the task's {num_ctx}: of an item that "
        "is too long for it the engine may cut a part off, without a word."
    )


def _measured(store: Store) -> dict[str, dict[str, float]]:
    """Return what evaluations have measured, by the digest of the model; the last one counts."""
    found: dict[str, dict[str, float]] = {}
    for _, result in store.executions(stages.EVALUATE.name):
        metrics = EvaluateMetrics.model_validate(result.metrics)
        found.setdefault(metrics.models.get("candidate", ""), metrics.scores)
    return found


def names(workspace: Path, models: Mapping[str, Model], digest: str) -> list[str]:
    """Return all that a model goes by: its versions, its digest, and those of the GGUF files that
    this workspace has deployed as this model.
    """
    tags = [t for t, m in models.items() if m.digest == digest and not t.endswith(":latest")]
    deployed = [
        (job, metrics)
        for job, result in Store(workspace).executions(stages.DEPLOY.name)
        for metrics in [DeployMetrics.model_validate(result.metrics)]
        if metrics.digest == digest
    ]
    found = {digest, *tags, *(metrics.tag for _, metrics in deployed)}
    return sorted(found | {job.inputs[stages.GGUF.name].digest for job, _ in deployed})


def others_answers(workspace: Path, digest: str) -> bool:
    """Return whether items hold another model's answers than this one's, by the last run that has
    reprocessed any, if only to verify.

    False also where they have got back what they held before it.
    """
    last = next(iter(Record.by_last_run(workspace)), None)
    if last is None or last.about().restored_at:
        return False
    return last.about().model not in names(workspace, {}, digest)
