"""Damaged records of the served model: nothing bad stays live because of them.

Without promotion.json nobody knows what the name was about to name, and without verification.json
not what still waits for a verdict. So what is live has to be known to be good, or a version that is
takes its place. rejected.json and served.json are gone on without, as far as they cannot be read.
Each is kept aside, and no run begins until a person has looked (`records.require_whole`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contracts import stages
from contracts.errors import EngineUnavailable, RetrainError
from contracts.params import DeployMetrics
from driver import promotion, recent, records, served, taken_back, verification, versions
from driver.store import Store
from serving import connect
from serving.engine import Engine, full_tag

Say = Callable[[str], None]


def settle(workspace: Path, say: Say) -> None:
    """Make safe what damaged records leave open, then keep them aside; `say` is told what was done.

    Raises nothing, as it must not keep the service away: where the engine does not answer, the
    records stay as they are, and the next start tries again.
    """
    taken_back.rescue(workspace, say)
    records.set_aside(workspace / records.SERVED, served.Book, say)
    lost = _unsecured(workspace)
    if not lost:
        return
    kept = {file: records.keep(workspace / file) for file in lost}
    said = [f"{workspace / file} is damaged; it is kept as {kept[file].name}" for file in lost]
    say("\n".join(said))
    try:
        _secure(workspace, say)
    except RetrainError as error:
        say(f"what is live cannot be made sure of now: {error}")
        return
    for file in lost:
        records.remove(workspace / file)


def require_secured(workspace: Path) -> None:
    """Raise `EngineUnavailable` where `settle` could not make sure of what is live: try again."""
    if lost := _unsecured(workspace):
        raise EngineUnavailable(
            "it is not certain that the model which is live is a good one",
            why=f"{', '.join(lost)} in {workspace} is damaged, and the serving engine did not "
            "answer",
            todo="Start the engine, then call `python -m driver recover` again.",
        )


def _unsecured(workspace: Path) -> list[str]:
    kinds = ((records.PROMOTION, promotion.Switch), (records.VERIFICATION, verification.Record))
    return [file for file, kind in kinds if records.is_damaged(workspace / file, kind)]


def _secure(workspace: Path, say: Say) -> None:
    """Let each served name name a model that is known to be good, where there is one."""
    found = _served_names(workspace)
    if not found:
        say("nobody knows which name is served: `driver models` shows what is live")
    for alias, environment in found.items():
        engine = connect(environment, workspace)
        try:
            _secure_name(workspace, engine, alias, say)
        finally:
            engine.close()


def _served_names(workspace: Path) -> dict[str, dict[str, str]]:
    """Return the names that may be served, each with the environment that names its engine.

    Where served.json does not say so, by the deployments in the store, and by the settings of the
    last run, whose deployment may not have come to its end.
    """
    settings = recent.settings(workspace)
    environment = recent.engine_environment(settings)
    deployments = Store(workspace).measured(stages.DEPLOY.name, DeployMetrics)
    aliases = {metrics.alias for _, metrics in deployments}
    deploy = settings.get("deploy")
    if isinstance(deploy, dict) and deploy.get("name"):
        aliases.add(full_tag(str(deploy["name"])))
    known = {alias: dict(name.engine) for alias, name in served.read(workspace).items()}
    return {**dict.fromkeys(sorted(aliases), environment), **known}


def _secure_name(workspace: Path, engine: Engine, alias: str, say: Say) -> None:
    models = engine.models()
    live = models.get(alias)
    if live is not None and served.is_accepted(workspace, alias, live.digest):
        return
    older = versions.way_back(workspace, models, alias, live.digest if live else "")
    if not older:
        if live is not None:
            say(
                f"NOT ROLLED BACK: nothing says that what {alias} names (digest "
                f"{live.digest[:12]}) is good, and there is no version to go back to"
            )
        return
    promotion.switch(workspace, engine, alias, older[0])
    say(
        f"ROLLED BACK: {alias} is {older[0]} now, since a record was damaged and nothing says that "
        "what it named was verified. Name another version to `driver rollback` if that is wrong."
    )
