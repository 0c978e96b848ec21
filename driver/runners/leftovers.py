"""Stage containers found by their labels: they live on when their driver dies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import docker.errors

from contracts.errors import DockerUnavailable
from contracts.stage import Stage
from driver.adapters.containers import connect
from driver.docker_tls import Tls
from driver.runners.follow import patiently

LABEL_STAGE = "retrain.stage"
LABEL_WORKSPACE = "retrain.workspace"
LABEL_FINGERPRINT = "retrain.fingerprint"
LABEL_PROBE = "retrain.probe"
"""On containers that only look into an image: the workspace."""
_AT_WORK = {"running", "paused", "restarting"}
"""States in which a container holds its memory, and a GPU's."""
_KEPT = "retrain-kept-"
_STOP_GRACE_S = 10
_AWAY_S = 30.0
"""How long an engine that is being restarted may be away."""
_PAUSE_S = 0.5


class StageContainers:
    """The stage containers of one workspace; a workspace is its absolute path."""

    def __init__(
        self, workspace: Path, client: Any = None, host: str = "", tls: Tls | None = None
    ) -> None:
        """Connect, unless a client is given; `DockerUnavailable` when no engine answers.

        `host` is the engine; "" means DOCKER_HOST.
        """
        self._workspace = str(workspace.resolve())
        self._client = client or connect(host, tls)

    def labels(self, stage: Stage, fingerprint: str) -> dict[str, str]:
        """Return the labels by which a job's container is found again."""
        return {
            LABEL_STAGE: stage.name,
            LABEL_WORKSPACE: self._workspace,
            LABEL_FINGERPRINT: fingerprint,
        }

    def probe_labels(self) -> dict[str, str]:
        """Return the labels of a container that only looks into an image."""
        return {LABEL_PROBE: self._workspace}

    def of(self, stage: Stage, fingerprint: str) -> list[Any]:
        """Return the containers of a job that nobody has put away, whatever their state."""
        found = self._listed(self.labels(stage, fingerprint))
        return [each for each in found if not each.name.startswith(_KEPT)]

    def at_work(self) -> list[str]:
        """Return the stages that run although no driver of this workspace does."""
        ours = self._listed({LABEL_WORKSPACE: self._workspace})
        return [c.labels[LABEL_STAGE] for c in ours if c.status in _AT_WORK]

    def elsewhere(self) -> list[str]:
        """Return the other workspaces of this engine in which a stage runs now."""
        filters = {"label": LABEL_WORKSPACE}
        running = self._client.containers.list(filters=filters, ignore_removed=True)
        return sorted({c.labels[LABEL_WORKSPACE] for c in running} - {self._workspace})

    def drop(self, *, keep: Sequence[str] = ()) -> list[str]:
        """Put away the containers of all jobs but those fingerprints; return their stages.

        They are of runs that died, and nobody will collect them. Raises `DockerUnavailable` for an
        engine that stays away.
        """
        for container in self._listed({LABEL_PROBE: self._workspace}):
            put_away(container)
        dropped = []
        for container in self._listed({LABEL_WORKSPACE: self._workspace}):
            kept = keeps_containers() and container.name.startswith(_KEPT)
            if container.labels.get(LABEL_FINGERPRINT) not in keep and not kept:
                put_away(container)
                dropped.append(container.labels[LABEL_STAGE])
        return dropped

    def _listed(self, labels: dict[str, str]) -> list[Any]:
        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        listed = self._client.containers.list
        ask = partial(listed, all=True, filters=filters, ignore_removed=True)
        return list(patiently(ask, _AWAY_S, _PAUSE_S))


def keeps_containers() -> bool:
    """Return whether ended containers are kept, for debugging."""
    return bool(os.environ.get("RETRAIN_KEEP_CONTAINERS"))


def put_away(container: Any) -> None:
    """Stop and remove a container; one that is gone already is fine.

    RETRAIN_KEEP_CONTAINERS=1 renames it instead, so that nobody collects it a second time. An
    engine that is being restarted is waited for; one that stays away keeps it, and the next run
    drops it.
    """

    def put() -> None:
        with suppress(docker.errors.APIError):
            container.stop(timeout=_STOP_GRACE_S)
        with suppress(docker.errors.APIError):
            if keeps_containers():
                container.rename(f"{_KEPT}{container.id[:12]}")
            else:
                container.remove(force=True)

    with suppress(DockerUnavailable):
        patiently(put, _AWAY_S, _PAUSE_S)
