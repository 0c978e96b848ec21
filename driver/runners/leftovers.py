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
from driver.moved import former_paths
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
    """The stage containers of one workspace; a workspace is its absolute path.

    One that was moved while a stage of it was at work has containers of its former path, too.
    """

    def __init__(
        self, workspace: Path, client: Any = None, host: str = "", tls: Tls | None = None
    ) -> None:
        """Connect, unless a client is given; `DockerUnavailable` when no engine answers.

        `host` is the engine; "" means DOCKER_HOST.
        """
        self._workspace = str(workspace.resolve())
        self._former = former_paths(workspace)
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
        ours = self._all(LABEL_WORKSPACE)
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
        for container in self._all(LABEL_PROBE):
            put_away(container)
        dropped = self.drop_former()
        for container in self._listed({LABEL_WORKSPACE: self._workspace}):
            kept = keeps_containers() and container.name.startswith(_KEPT)
            if container.labels.get(LABEL_FINGERPRINT) not in keep and not kept:
                put_away(container)
                dropped.append(container.labels[LABEL_STAGE])
        return dropped

    def drop_former(self) -> list[str]:
        """Put away those that a move of the workspace has left behind; return their stages.

        They are mounted to where it was: none can be gone on with.
        """
        left = [c for path in self._former for c in self._listed({LABEL_WORKSPACE: path})]
        for container in left:
            put_away(container)
        return [container.labels[LABEL_STAGE] for container in left]

    def _all(self, label: str) -> list[Any]:
        return [c for path in (self._workspace, *self._former) for c in self._listed({label: path})]

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
