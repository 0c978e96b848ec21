"""deploy: an immutable version in the serving engine, and the alias that the backend asks."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
from collections.abc import Callable, Collection
from pathlib import Path

from contracts.entrypoint import StageContext
from contracts.errors import CandidateRefused, EngineUnavailable, FileUnusable, RetrainError
from contracts.params import (
    DeployMetrics,
    DeployParams,
)
from contracts.stages import (
    GGUF,
    VERDICT,
)
from driver import promotion, served, taken_back
from driver.store import RUN_NAME
from serving.engine import Engine, full_tag
from tasks import load_task

_PROBE_TOKENS, _PROBE_S = 16, 600.0


def work(
    context: StageContext[DeployParams],
    engine: Engine,
    expect: Callable[[DeployMetrics], None] | None = None,
) -> DeployMetrics:
    """Create `NAME:RUN`, then let the alias name it; whatever was live keeps a name of its own.

    `expect` is told what is about to go live, where it is to be verified: a kill may come next.
    Safe to repeat: the engine keeps what is there already. Raises `CandidateRefused` before
    anything is changed when the evaluation did not promote the model.
    """
    forced = require_promoted(context.input(VERDICT), context.params.force)
    name = context.params.name
    alias, version = full_tag(name), full_tag(f"{name}:{context.job.run}")
    model = engine.create(
        version,
        context.input(GGUF),
        load_task(context.job.task).modelfile(),
        lambda done, total: context.progress(done, total, "bytes"),
        base=context.params.served_on,
    )
    _require_evaluated(context, engine, version, model.digest)
    _probe(context, engine, version, model.digest)
    live = engine.models().get(alias)
    # One that is live without having been accepted was put there by this, before a kill.
    stays = (
        live is not None
        and live.digest == model.digest
        and served.is_accepted(context.root, alias, model.digest)
    )
    previous = _keep_previous(context.root, engine, alias, model.digest)
    metrics = DeployMetrics(
        tag=version,
        alias=alias,
        digest=model.digest,
        previous=previous,
        forced=forced,
        moved=not stays,
    )
    if expect:
        expect(metrics)
    promotion.switch(context.root, engine, alias, version)
    _prune(context.root, engine, name, context.params.keep, {version, previous})
    return metrics


def _require_evaluated(
    context: StageContext[DeployParams], engine: Engine, version: str, digest: str
) -> None:
    """Raise `CandidateRefused` for an adapter whose base is not the one it was evaluated on.

    Somebody may have pulled another model under the base's name since. The version goes again.
    """
    said = json.loads(context.input(VERDICT).read_text(encoding="utf-8"))
    if not context.params.served_on or said.get("candidate") == digest:
        return
    engine.delete(version)
    raise CandidateRefused(
        f"{context.params.served_on} is another model now than the adapter was evaluated on",
        why=f"together they are {digest[:12]}, and were {str(said.get('candidate'))[:12]}",
        todo="Evaluate anew: `python -m driver stage evaluate`.",
    )


def _probe(context: StageContext[DeployParams], engine: Engine, version: str, digest: str) -> None:
    """Raise `EngineUnavailable` unless the version loads and answers.

    The very model that the evaluation has asked, by digest, has shown that already.
    """
    said = json.loads(context.input(VERDICT).read_text(encoding="utf-8"))
    if said.get("candidate") == digest:
        return
    task = load_task(context.job.task)
    options = {**task.modelfile().parameters, "num_predict": _PROBE_TOKENS}
    messages = task.messages(task.canary)
    try:
        if not engine.chat(version, messages, options=options, timeout_s=_PROBE_S).text.strip():
            raise EngineUnavailable(
                f"{version} answers nothing",
                todo="Look at the engine's log; what was live stays live.",
                passing=False,
            )
    except RetrainError:
        with contextlib.suppress(RetrainError):  # the first failure is the one to tell
            engine.unload(version)
            engine.delete(version)
        raise
    engine.unload(version)


def _prune(root: Path, engine: Engine, name: str, keep: int, needed: Collection[str]) -> None:
    """Remove the oldest models that runs have made, but for the `keep` newest and those needed.

    What was taken back goes before any other: it must not cost a version that can be gone back to.
    By digest: attempts that were cut off leave a model several versions, which count as one, and
    go or stay together. A version that somebody has made by hand has another form of name, and
    stays.
    """
    models = engine.models()
    own = sorted((tag for tag in models if tag.startswith(f"{name}:")), reverse=True)
    made = [tag for tag in own if RUN_NAME.fullmatch(tag.partition(":")[2])]
    kept = {models[tag].digest for tag in needed if tag in models}
    others = dict.fromkeys(models[tag].digest for tag in made if models[tag].digest not in kept)
    bad: frozenset[str] = frozenset()
    with contextlib.suppress(FileUnusable):  # then nobody knows; the next start names it
        bad = taken_back.digests(root, models)
    old = {*sorted(others, key=bad.__contains__)[keep:]}
    for tag in reversed(made):
        if models[tag].digest in old:
            engine.unload(tag)
            engine.delete(tag)


def require_promoted(verdict: Path, force: str = "") -> str:
    """Return why and by whom the gate was overruled, "" where the evaluation promoted the model.

    Raises `CandidateRefused` for a model that it refused, unless `force` gives a reason.
    """
    said = json.loads(verdict.read_text(encoding="utf-8"))
    if said["promote"]:
        return ""
    if force:
        return f"{force} ({_user()})"
    raise CandidateRefused(
        "the new model is not good enough to go live",
        why="; ".join(each["text"] for each in said["findings"] if not each["passed"]),
        todo=f"Read scores.json and answers.jsonl in {verdict.parent}; evaluate.* holds the rules. "
        "To let it go live all the same: `driver run --force REASON`.",
    )


def _user() -> str:
    """Return who gives the command, also through sudo."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def disagreement(metrics: DeployMetrics, engine: Engine) -> str:
    """Return why the engine no longer shows what was deployed, "" if it does."""
    live = engine.models().get(metrics.alias)
    if live is None:
        return f"{metrics.alias} is gone from the serving engine"
    if live.digest != metrics.digest:
        return f"{metrics.alias} is another model now"
    return ""


def _keep_previous(root: Path, engine: Engine, alias: str, candidate: str) -> str:
    """Return a version of what was served before the candidate; "" for nothing.

    That is written down by digest before anything is changed; an attempt after the switch, or after
    one that was cut off, finds it there. A version is made where the model that is live has none:
    overwriting an alias whose model has no other name would delete it.
    """
    models = engine.models()
    live = models.get(alias)
    if live is not None and live.digest != candidate:
        before = live.digest
    else:
        before = served.before(root, models, alias, candidate)
    served.replaces(root, promotion.environment(engine), alias, candidate, before)
    version = served.version_of(models, alias, before)
    if before and not version and live is not None and live.digest == before:
        version = promotion.name_before(engine, alias, before)
    return version
