"""Let the alias name another version, so that a kill in the middle is finished or undone.

Ollama writes a copy's manifest in place, without rename or flush: a power cut can leave an alias
that names nothing. So what is about to happen is written down first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts import files
from contracts.errors import EngineUnavailable, FileUnusable, RetrainError
from contracts.stage import Frozen
from driver import records, served, taken_back
from serving import connect
from serving.engine import Engine, Model

RECORD = records.PROMOTION
"""Below the workspace, while an alias is being switched."""


class Switch(Frozen):
    """A switch under way, and what is needed to finish or undo it with nothing but this."""

    alias: str
    version: str
    previous: str
    """What the alias named before, by another name; "" for nothing."""
    engine: dict[str, str]
    """The environment that names the serving engine."""
    good: tuple[str, ...] = ()
    """All names of `version`, if a rollback to it was asked for: it may be live again."""
    bad: tuple[str, ...] = ()
    """All names of what that rollback takes back; none where that leads to a newer version."""
    left: str = ""
    """The version that was live before that rollback."""
    before: str = ""
    """The digest of that version where nothing is taken back: from `version` it is the way back."""
    digest: str = ""
    """Of `version`, if a rollback to it was asked for."""

    @property
    def rollback(self) -> bool:
        """Whether it was asked for by a person: it is finished in any case."""
        return bool(self.good)


def switch(
    workspace: Path,
    engine: Engine,
    alias: str,
    version: str,
    *,
    good: Sequence[str] = (),
    bad: Sequence[str] = (),
    left: str = "",
) -> None:
    """Let `alias` name `version`, compare the digests, and end the old model's runner.

    For a rollback `good` are the names of what may be live again, `bad` those of what is taken
    back, `left` the version that was live. What the alias names keeps a name, one made for it if
    need be. Raises `EngineUnavailable` where the alias does not show the version's digest
    afterwards. Called again for the same switch it knows what the alias named before the first
    call: by now it may name anything.
    """
    before, known = engine.models(), _cut_off(workspace)
    previous = ""
    if known and (known.alias, known.version) == (alias, version):
        previous = known.previous
    elif alias in before and before[alias].digest != before[version].digest:
        previous = keep_name(engine, before, alias)
    record = Switch(
        alias=alias,
        version=version,
        previous=previous,
        engine=environment(engine),
        good=tuple(good),
        bad=tuple(bad),
        left=left,
        before=before[left].digest if left and not bad else "",
        digest=before[version].digest if good else "",
    )
    files.write_json(workspace / RECORD, record.model_dump(), files.PRIVATE)
    _copy(engine, version, alias)
    _mark(workspace, record)
    _drop(workspace)


def keep_name(engine: Engine, models: Mapping[str, Model], alias: str) -> str:
    """Return another name of what the alias names, a version where there is one; else make one."""
    digest = models[alias].digest
    same = (tag for tag, model in models.items() if tag != alias and model.digest == digest)
    known = served.version_of(models, alias, digest) or max(same, default="")
    return known or name_before(engine, alias, digest)


def name_before(engine: Engine, alias: str, digest: str) -> str:
    """Give what the alias names a version of its own: overwritten, it would be deleted."""
    version = f"{alias.partition(':')[0]}:before-{digest[:12]}"
    engine.copy(alias, version)
    return version


def _cut_off(workspace: Path) -> Switch | None:
    """Return the switch that was begun and not ended; a damaged record is kept aside."""
    try:
        return read(workspace)
    except FileUnusable:
        records.keep(workspace / RECORD)
        if (workspace / RECORD).is_dir():  # a file is overwritten
            records.remove(workspace / RECORD)
        return None


def _copy(engine: Engine, version: str, alias: str) -> None:
    engine.copy(version, alias)
    after = engine.models()
    if alias not in after or after[alias].digest != after[version].digest:
        raise EngineUnavailable(
            f"{alias} is not {version} after the copy",
            why=f"{version} has digest {after[version].digest[:12]}",
            todo="Run again; the version itself is complete.",
        )
    engine.unload(alias)  # the old runner would go on answering until its keep_alive ends


def _mark(workspace: Path, record: Switch) -> None:
    if record.rollback:
        taken_back.reinstate(workspace, *record.good)
    if record.before:
        came_after = record.alias, record.digest, record.before
        served.replaces(workspace, record.engine, *came_after)
    if record.digest:
        asked = record.alias, record.digest, served.ASKED_FOR
        served.accept(workspace, record.engine, *asked)
    if record.bad:
        taken_back.reject(workspace, *record.bad)
        served.note_taken_back(workspace, record.alias, record.bad, served.BY_ROLLBACK)


def settle(workspace: Path) -> str:
    """Finish or undo a switch that was interrupted; return what was done, "" for nothing to do.

    A rollback is finished. Another switch is finished where the alias is the version already, else
    undone: whoever runs next starts from a model that was good. Needs nothing but the workspace. It
    raises nothing, as it must not keep the service away: a failure is told, and the next start
    tries again; what a rollback takes back is so by then, even if the engine does not answer.
    """
    try:
        record = read(workspace)
        if record is None:
            return ""
        _mark(workspace, record)
        engine = connect(record.engine, workspace)
        try:
            said = _settled(engine, record)
        finally:
            engine.close()
    except RetrainError as error:
        return f"a switch of the served model was interrupted, and cannot be settled now: {error}"
    _drop(workspace)
    return said


def _settled(engine: Engine, record: Switch) -> str:
    alias, version, previous = record.alias, record.version, record.previous
    models = engine.models()
    if version in models and alias in models and models[alias].digest == models[version].digest:
        engine.unload(alias)
        return f"{alias} is {version}: the switch that was interrupted is finished"
    if version in models and record.rollback:
        _copy(engine, version, alias)
        return f"{alias} is {version}: the rollback that was interrupted is finished"
    if previous in models:
        engine.copy(previous, alias)
        engine.unload(alias)
        return f"{alias} is {previous} again: a switch to {version} was interrupted"
    return f"{alias} is as it was: a switch to {version} was interrupted"


def read(workspace: Path) -> Switch | None:
    """Return the switch that is under way or was cut off; `FileUnusable` if damaged."""
    return records.read(workspace / RECORD, Switch)


def environment(engine: Engine) -> dict[str, str]:
    """Return the environment by which `serving.connect` finds this engine again."""
    names = ("OLLAMA_HOST", "LLAMACPP_HOME")
    found = {name: os.environ[name] for name in names if name in os.environ}
    return {**found, "RETRAIN_ENGINE": engine.name}


def _drop(workspace: Path) -> None:
    """Remove the record durably: come back after a power cut, it would switch once more."""
    files.remove(workspace / RECORD)
