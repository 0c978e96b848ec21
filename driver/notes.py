"""What a run notes of itself while it goes on: run.json, and at its end report.html."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from contracts.errors import Interrupted, RetrainError, Unforeseen
from contracts.os_errors import from_os_error, in_a_line
from contracts.stages import DEPLOY
from driver.docker_tls import in_effect
from driver.store import Run, Served
from serving.engine import Engine

_TIMES = {"running": "started_at", "done": "ended_at", "failed": "ended_at"}
"""What is noted with a stage's change of state."""


class Notes:
    """A run's notes, on the disk after every change, so that they outlive the driver."""

    def __init__(self, run: Run, docker_host: str) -> None:
        tls = in_effect(docker_host)
        self._run = run
        self._facts: dict[str, Any] = {
            "run": run.id,
            "workspace": str(run.folder.parent.parent.resolve()),
            "pid": os.getpid(),
            "docker_host": docker_host,
            "docker_tls": tls.model_dump(mode="json") if tls else tls,
            "started_at": time.time(),
        }
        self.stages: dict[str, dict[str, Any]] = {}
        """By stage: what `StageState` holds of it."""

    def accept(self, drift: Sequence[str]) -> None:
        """Note which differences from the backend the user goes on with."""
        if drift:
            self._facts["accepted_drift"] = list(drift)

    def stage(self, name: str, **facts: Any) -> None:
        """Note something of a stage, and when, if it is that it begins or ends."""
        noted = self.stages.setdefault(name, {})
        noted.update(facts)
        if time_of := _TIMES.get(facts.get("state", "")):
            noted[time_of] = time.time()
        self._write()

    def end(
        self,
        workspace: Path,
        away: Sequence[tuple[float, float]],
        warn: Callable[[str], None],
        error: BaseException | None = None,
        served: Callable[[], Served] | None = None,
    ) -> Path | None:
        """Note how the run has ended, write its report and return the path of it.

        `away` says from when until when the service was away; `served` asks the engine what is
        served by now, where a deployment had begun. A report that cannot be written is
        told to `warn`: the run is none the worse for it.
        """
        from driver.report import html

        try:
            self.close(away, error)  # before anybody is asked, who may hang
            if served and self.stages.get(DEPLOY.name, {}).get("state") not in (None, "planned"):
                with suppress(RetrainError):
                    self._facts["served"] = served().model_dump()
                self._write()
            return html.write(workspace, self._run)
        except Exception as failed:  # noqa: BLE001  # must not hide how the run itself has ended
            told = f"{type(failed).__name__}: {failed}"
            told = in_a_line(failed) if isinstance(failed, OSError) else told
            warn(f"the report could not be written: {told}")
            return None

    def close(
        self, away: Sequence[tuple[float, float]], error: BaseException | None = None
    ) -> None:
        """Note that the run has ended, and with which error, as `end` does; write no report."""
        self._facts |= {"ended_at": time.time(), "away": list(away)}
        if error is not None:
            self._facts["failure"] = _failure(error)
        self._write()

    def _write(self) -> None:
        self._run.write_state({**self._facts, "stages": self.stages})


def named_by(engine: Engine, alias: str) -> Served:
    """Return what a name names in a serving engine."""
    models = engine.models()
    digest = models[alias].digest if alias in models else ""
    same = (tag for tag, model in models.items() if tag != alias and model.digest == digest)
    own = (tag for tag in same if tag.startswith(f"{alias.partition(':')[0]}:"))
    return Served(alias=alias, digest=digest, version=max(own, default=""))


def _failure(error: BaseException) -> dict[str, Any]:
    """Return what `driver.store.Failure` holds of an error."""
    if isinstance(error, KeyboardInterrupt):
        named: RetrainError = Interrupted("stopped by a signal")
    elif isinstance(error, RetrainError):
        named = error
    elif isinstance(error, OSError):
        named = from_os_error(error)
    else:
        named = Unforeseen(f"unforeseen {type(error).__name__}", why=str(error)[:500])
    return {
        "kind": type(named).__name__,
        "exit_code": named.exit_code,
        "what": named.what,
        "why": named.why,
        "todo": named.todo,
    }
