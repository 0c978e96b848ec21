"""What a host shows from outside: Ollama, the Docker engine and the backend are asked themselves.

Nothing of the driver plays a part, so that it is not checked by its own code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from tests.docker.engine import docker
from tests.e2e.host import LIVE, Host

_PATIENCE_S = 60.0
Row = dict[str, Any]


@dataclass(frozen=True)
class State:
    """All that a run which changes nothing has to leave as it was."""

    models: dict[str, str]
    """Digest by tag: the alias, every version, and nothing besides."""
    items: list[Row]
    """As the backend shows them, the time of their last change included."""
    container: Row


def state(host: Host) -> State:
    """Return what is there now. When the backend was started is no part of it: see `started_at`."""
    every = {"relevant_only": "false", "group_duplicates": "false", "page_size": "100"}
    found = json.loads(docker("inspect", host.container))[0]
    container = {
        "id": found["Id"],
        "running": found["State"]["Running"],
        "restart policy": found["HostConfig"]["RestartPolicy"],
        "environment": found["Config"]["Env"],
    }
    return State(tags(host), _get(f"{host.backend.url}/api/items", **every)["items"], container)


def started_at(host: Host) -> str:
    """Return when the backend's container was started last."""
    return docker("inspect", "--format={{.State.StartedAt}}", host.container)


def tags(host: Host) -> dict[str, str]:
    """Return the digest of every model in Ollama by its tag."""
    return _digests(host, "/api/tags")


def live(host: Host) -> str:
    """Return the digest of what the backend asks for."""
    return tags(host)[LIVE]


def answering(host: Host, item: str = "1") -> dict[str, str]:
    """Let the backend analyse an item; return what Ollama has loaded for it, digest by tag.

    All models are unloaded before: a runner goes by its blob, and keeps the name that it was
    loaded by.
    """
    for tag in _digests(host, "/api/ps"):
        unload = {"model": tag, "keep_alive": 0}
        requests.post(f"{host.ollama}/api/generate", json=unload, timeout=30).raise_for_status()
    _wait(lambda: not _digests(host, "/api/ps"))
    url = f"{host.backend.url}/api/items/{item}"
    before = _get(url)["metadata"]
    requests.post(f"{url}/reprocess", timeout=30).raise_for_status()
    _wait(lambda: _get(url)["metadata"] != before)
    return _digests(host, "/api/ps")


def _digests(host: Host, path: str) -> dict[str, str]:
    return {each["name"]: each["digest"] for each in _get(f"{host.ollama}{path}")["models"]}


def _wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _get(url: str, **query: str) -> Any:
    answer = requests.get(url, params=query, timeout=30)
    answer.raise_for_status()
    return answer.json()
