"""Let the alias name another version, so that a kill in the middle is finished or undone.

Ollama writes a copy's manifest in place, without rename or flush: a power cut can leave an alias
that names nothing. So what is about to happen is written down first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts import files
from contracts.errors import EngineUnavailable, FileUnusable, RetrainError
from serving import connect
from serving.engine import Engine

RECORD = "promotion.json"
"""Below the workspace, while an alias is being switched."""


def switch(workspace: Path, engine: Engine, alias: str, version: str) -> None:
    """Let `alias` name `version`, compare the digests, and end the old model's runner.

    Raises `EngineUnavailable` where the alias does not show the version's digest afterwards.
    """
    before = engine.models()
    previous = ""
    if alias in before and before[alias].digest != before[version].digest:
        same = (t for t, m in before.items() if t != alias and m.digest == before[alias].digest)
        previous = max(same, default="")
    record = {
        "alias": alias,
        "version": version,
        "previous": previous,
        "RETRAIN_ENGINE": engine.name,
        "OLLAMA_HOST": os.environ.get("OLLAMA_HOST", ""),
    }
    files.write_json(workspace / RECORD, record)
    engine.copy(version, alias)
    after = engine.models()
    if alias not in after or after[alias].digest != after[version].digest:
        raise EngineUnavailable(
            f"{alias} is not {version} after the copy",
            why=f"{version} has digest {after[version].digest[:12]}",
            todo="Run again; the version itself is complete.",
        )
    engine.unload(alias)  # the old runner would go on answering until its keep_alive ends
    (workspace / RECORD).unlink()


def settle(workspace: Path) -> str:
    """Finish or undo a switch that was interrupted; return what was done, "" for nothing to do.

    Finished where the alias is the version already, else undone: whoever runs next starts from a
    model that was good. Needs nothing but the workspace. It raises nothing, as it must not keep
    the service away: a failure is told, and the next start tries again.
    """
    try:
        record = _read(workspace / RECORD)
        if record is None:
            return ""
        engine = connect(record, workspace)
        try:
            said = _settled(engine, record["alias"], record["version"], record["previous"])
        finally:
            engine.close()
    except RetrainError as error:
        return f"a switch of the served model was interrupted, and cannot be settled now: {error}"
    (workspace / RECORD).unlink()
    return said


def _settled(engine: Engine, alias: str, version: str, previous: str) -> str:
    models = engine.models()
    if version in models and alias in models and models[alias].digest == models[version].digest:
        engine.unload(alias)
        return f"{alias} is {version}: the switch that was interrupted is finished"
    if previous in models:
        engine.copy(previous, alias)
        engine.unload(alias)
        return f"{alias} is {previous} again: a switch to {version} was interrupted"
    return f"{alias} is as it was: a switch to {version} was interrupted"


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(record[name]) for name in (*_FIELDS, "RETRAIN_ENGINE", "OLLAMA_HOST")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FileUnusable(
            f"{path} is damaged",
            why=f"{type(error).__name__}: {error}",
            todo="See by `driver models` which model is live, then remove the file.",
        ) from error


_FIELDS = ("alias", "version", "previous")
