"""A driver that is killed while compose makes the service anew: what comes next waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contracts import files
from driver import locks, recover
from driver.settings import BackendSettings, ComposeSettings
from driver.window_record import RECORD_FILE
from tests.docker.engine import docker

pytestmark = pytest.mark.docker

STOPS_S = 10
"""How long the service takes to end: the driver is killed, and its successor is there, before."""
PROGRAM = f"trap 'sleep {STOPS_S}; exit 0' TERM; while :; do sleep 0.1; done"
_RENEWAL = """
import pathlib, sys
from driver import locks
from driver.settings import BackendSettings
from driver.window import Window
folder = pathlib.Path(sys.argv[1])
with locks.workspace(folder), locks.host(folder):
    Window(folder, BackendSettings.model_validate_json(sys.argv[2])).close(renew=True)
"""


class _Healthy(BaseHTTPRequestHandler):
    """A DOUBLE of the backend's health, which is none of compose's business."""

    def do_GET(self) -> None:
        body = b'{"status": "healthy", "database_ok": true}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Return where the backend seems to answer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def backend(stage_images: dict[str, str], tmp_path: Path, url: str) -> Iterator[BackendSettings]:
    """Return a compose service that runs with the model `old`, and is to get `new`."""
    service = {
        "image": stage_images["labeler"],
        "entrypoint": ["sh", "-c", PROGRAM],
        "environment": {"OLLAMA_MODEL": "${OLLAMA_MODEL:-unset}"},
    }
    declared = {"name": f"retrain-killed-{os.getpid()}", "services": {"backend": service}}
    (tmp_path / "news.yml").write_text(json.dumps(declared), encoding="utf-8")
    compose = ["docker", "compose", "--file", str(tmp_path / "news.yml")]
    environ = {**os.environ, "OLLAMA_MODEL": "old"}
    subprocess.run([*compose, "up", "--detach"], env=environ, check=True, capture_output=True)
    settings = ComposeSettings(
        folder=tmp_path,
        files=["news.yml"],
        service="backend",
        environment={"OLLAMA_MODEL": "new"},
    )
    yield BackendSettings(url=url, compose=settings)
    subprocess.run([*compose, "down", "--timeout=1"], check=True, capture_output=True)


def containers() -> list[str]:
    """Return the project's containers, whatever their state."""
    of = f"label=com.docker.compose.project=retrain-killed-{os.getpid()}"
    return docker("ps", "--all", "--quiet", "--no-trunc", "--filter", of).split()


def test_recover_waits_for_the_compose_of_a_driver_that_was_killed(
    backend: BackendSettings, tmp_path: Path
) -> None:
    (old,) = containers()
    workspace = tmp_path / "workspace"
    with subprocess.Popen(
        [sys.executable, "-c", _RENEWAL, str(workspace), backend.model_dump_json()], cwd=files.ROOT
    ) as driver:
        while len(containers()) < 2:  # the new one is there, the old one told to stop
            assert driver.poll() is None
            time.sleep(0.05)
        driver.kill()
    assert old in containers()
    assert (workspace / RECORD_FILE).exists()
    with locks.workspace(workspace):  # what any successor begins with
        (new,) = containers()
        assert new != old
    said: list[str] = []
    recover.recover(workspace, said.append)
    assert containers() == [new]
    assert docker("inspect", "--format={{.State.Running}}", new) == "true"
    assert docker("exec", new, "printenv", "OLLAMA_MODEL") == "new"
    assert not (workspace / RECORD_FILE).exists()
    assert "healthy" in said[-1]
