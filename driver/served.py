"""What the served name has named, and which models may be served: served.json.

Models are known by digest, since a tag can be made to name another. What was served before a model
is written once, before anything of its deployment is changed, and an attempt that is made again
keeps it: by then the name shows the new model. A rollback that takes nothing back writes it anew. A
model is *accepted* once it has passed a verification, or a person has asked for it (`driver
rollback`); from then on only a wrong answer takes it back, and no interruption or silence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import files, stages
from contracts.errors import NotVerified
from contracts.params import DeployMetrics, VerifyMetrics
from contracts.stage import Frozen
from driver import records, taken_back
from driver.store import RUN_NAME, Store
from serving.engine import Engine, Model, full_tag

if TYPE_CHECKING:
    from driver.settings import Settings

VERIFIED, ASKED_FOR = "verified", "asked for"
"""Why a model is accepted."""
BY_VERIFICATION, BY_ROLLBACK = "a verification", "`driver rollback`"
"""What takes a model back."""


class Served(Frozen):
    """What is known of one model under one name."""

    before: str = ""
    """Digest of what was served before it; "" for nothing."""
    accepted: str = ""
    """Why it may be served, "" where nobody has said so."""
    taken_back: str = ""
    """By what it was taken back last, "" where it was not, or nobody noted that."""


class Name(Frozen):
    """A served name: its models by digest."""

    engine: dict[str, str]
    """The environment that names the serving engine."""
    models: dict[str, Served] = {}
    asked: int = 0
    """How often a person has asked for one of them, as far as that was counted."""


class Book(Frozen):
    """All of served.json, by alias."""

    names: dict[str, Name] = {}


def read(workspace: Path) -> Mapping[str, Name]:
    """Return the served names; raises `FileUnusable` if the record is damaged."""
    found = records.read(workspace / records.SERVED, Book)
    return found.names if found else {}


def replaces(
    workspace: Path, environment: Mapping[str, str], alias: str, digest: str, before: str
) -> None:
    """Write down that a model takes the place of `before`, which is the way back from it."""
    known = _known(workspace, alias, digest)
    _write(workspace, environment, alias, digest, known.model_copy(update={"before": before}))


def accept(
    workspace: Path, environment: Mapping[str, str], alias: str, digest: str, why: str
) -> None:
    """Write down that a model may be served."""
    known = _known(workspace, alias, digest).model_copy(update={"accepted": why})
    _write(workspace, environment, alias, digest, known, asked=int(why == ASKED_FOR))


def note_taken_back(workspace: Path, alias: str, names: Collection[str], by: str) -> None:
    """Write down by what the known model with one of these names as its digest is taken back."""
    noted = _noted(workspace, alias)
    if found := next((digest for digest in names if digest in noted), ""):
        entry = noted[found].model_copy(update={"taken_back": by})
        _write(workspace, read(workspace)[alias].engine, alias, found, entry)


def taken_back_by(workspace: Path, alias: str, digest: str) -> str:
    """Return by what a model was taken back last, "" where nobody noted that."""
    noted = _noted(workspace, alias)
    return noted[digest].taken_back if digest in noted else ""


def is_accepted(workspace: Path, alias: str, digest: str) -> bool:
    """Return whether a model may be served: accepted, and not taken back since."""
    return bool(why_accepted(workspace, alias, digest))


def why_accepted(workspace: Path, alias: str, digest: str) -> str:
    """Return why a model may be served, "" where it may not."""
    if digest in taken_back.rejected(workspace):
        return ""
    return _known(workspace, alias, digest).accepted


def times_asked(workspace: Path, alias: str) -> int:
    """Return how often a person has asked for a version of a name."""
    names = read(workspace)
    return names[alias].asked if alias in names else 0


def check(workspace: Path, engine: Engine, settings: Settings) -> None:
    """Raise `NotVerified` where the items would get the answers of a model that nobody accepted."""
    if settings.reprocess.unverified or settings.backend is None:
        return
    alias, models = full_tag(settings.deploy.name), engine.models()
    live = models.get(alias)
    bad = live is not None and live.digest in taken_back.digests(workspace, models)
    if live is None or (not bad and is_accepted(workspace, alias, live.digest)):
        return
    raise NotVerified(
        f"the items do not get the answers of what {alias} names (digest {live.digest[:12]})",
        why="it was taken back" if bad else "nobody has verified it",
    )


def before(workspace: Path, models: Mapping[str, Model], alias: str, digest: str) -> str:
    """Return the digest of what was served before a model, "" where that is nothing or unknown.

    Older drivers have noted no more than a version, with the deployment.
    """
    noted = _noted(workspace, alias)
    if digest in noted:
        return noted[digest].before
    made = deployed(workspace, digest)
    return models[made.previous].digest if made and made.previous in models else ""


def all_before(
    workspace: Path, models: Mapping[str, Model], alias: str, digest: str
) -> tuple[str, ...]:
    """Return the digests of what was served before a model, the last one first."""
    found: list[str] = []
    while (digest := before(workspace, models, alias, digest)) and digest not in found:
        found.append(digest)
    return tuple(found)


def proven(workspace: Path, models: Mapping[str, Model], alias: str) -> frozenset[str]:
    """Return the digests of models that were accepted, or served until another took their place.

    A version that never went live is none, nor one that somebody has only given a name. Of a model
    that this record knows it has to say that it was accepted: one without a verdict may have been
    replaced while nobody could take it back. What an older driver has deployed it does not know.
    """
    store, known = Store(workspace), _noted(workspace, alias)
    found = {each.before for each in known.values()}
    for _, metrics in store.measured(stages.DEPLOY.name, DeployMetrics):
        if metrics.alias == alias and metrics.previous in models:
            found.add(models[metrics.previous].digest)
    found -= {digest for digest, each in known.items() if not each.accepted}
    found |= {digest for digest, each in known.items() if each.accepted}
    return frozenset((found | _verified(store, alias)) - {""})


def version_of(models: Mapping[str, Model], alias: str, digest: str) -> str:
    """Return the version that is this model, "" for none: a run's own, the newest, before others.

    A name that somebody has made by hand may be another model tomorrow.
    """
    name = alias.partition(":")[0]
    own = [
        tag
        for tag, model in models.items()
        if model.digest == digest and tag != alias and tag.startswith(f"{name}:")
    ]
    return max(own, key=age, default="")


def age(tag: str) -> tuple[bool, str]:
    """Return what versions are sorted by: those of runs by time, behind those made by hand."""
    return RUN_NAME.fullmatch(tag.partition(":")[2]) is not None, tag


def is_older(tag: str, other: str) -> bool:
    """Return whether both are versions of runs, and `tag` of an earlier one."""
    (of_run, _), (of_other, _) = age(tag), age(other)
    return of_run and of_other and tag < other


def deployed(workspace: Path, digest: str) -> DeployMetrics | None:
    """Return this workspace's last deployment of a model."""
    for _, metrics in Store(workspace).measured(stages.DEPLOY.name, DeployMetrics):
        if metrics.digest == digest:
            return metrics
    return None


def _noted(workspace: Path, alias: str) -> Mapping[str, Served]:
    """Return what served.json has of the models of a name, by digest."""
    names = read(workspace)
    return names[alias].models if alias in names else {}


def _known(workspace: Path, alias: str, digest: str) -> Served:
    """Return what is known of a model; of one from before this record, by its verifications."""
    noted = _noted(workspace, alias)
    if digest in noted:
        return noted[digest]
    return Served(accepted=VERIFIED if digest in _verified(Store(workspace), alias) else "")


def _verified(store: Store, alias: str) -> set[str]:
    found = store.measured(stages.VERIFY.name, VerifyMetrics)
    return {metrics.digest for _, metrics in found if metrics.model == alias}


def _write(
    workspace: Path,
    environment: Mapping[str, str],
    alias: str,
    digest: str,
    entry: Served,
    *,
    asked: int = 0,
) -> None:
    names = dict(read(workspace))
    known = names.get(alias, Name(engine={}))
    names[alias] = Name(
        engine=dict(environment),
        models={**known.models, digest: entry},
        asked=known.asked + asked,
    )
    files.write_json(workspace / records.SERVED, Book(names=names).model_dump())
