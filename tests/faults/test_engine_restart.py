"""The Docker engine is restarted in the middle of a stage: its output comes whole, and once.

On an engine of the test's own, so that no other test's containers go down with it.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts import files
from contracts.entrypoint import JOB_FILE, RESULT_FILE
from contracts.errors import StageKilled
from contracts.params import LabelMetrics, LabelParams
from contracts.stage import Event, Result
from contracts.stages import LABEL
from driver.adapters.backend import Backend
from driver.runners.docker import DockerRunner
from driver.runners.outcome import Limits
from driver.settings import BackendSettings
from driver.window import Window
from tests.docker.stage_compose import ROOT
from tests.faults.tally import Tally
from tests.jobs import inputs_in, job_of
from tests.services.ollama_double import OllamaDouble
from tests.unit.labeler_stage import label, write_jsonl

pytestmark = [pytest.mark.docker, pytest.mark.slow]

BRIDGE = "retrain-test0"
ITEMS = 60
ANSWER_S = 0.2
RESTART_AT = 10
ANSWER = json.dumps(label(None), ensure_ascii=False)
LIMITS = Limits(silence_s=600)
HEALTHY = """
import http.server, json, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"status": "healthy", "database_ok": True}).encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
"""A DOUBLE of the backend, as far as its health goes: what is stopped and started is real."""


class Engine:
    """A dockerd beside the host's, on a bridge of its own: `none` would take docker0 away."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.address = f"unix://{folder / 'docker.sock'}"
        self._command = [
            "dockerd",
            f"--host={self.address}",
            f"--data-root={folder / 'data'}",
            f"--exec-root={folder / 'exec'}",
            f"--pidfile={folder / 'pid'}",
            *(f"--bridge={BRIDGE}", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
            *options,
        ]
        self._log = (folder / "log").open("ab")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, stdout=self._log, stderr=self._log, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while self.docker("version", check=False).returncode:
            assert self._process.poll() is None, Path(self._log.name).read_text()
            assert time.monotonic() < deadline, Path(self._log.name).read_text()
            time.sleep(0.2)

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Call the client for this engine."""
        command = ["docker", "--host", self.address, *arguments]
        return subprocess.run(command, capture_output=True, check=check)

    def restart(self) -> None:
        """Stop it as an update does, and start it again."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Stop it in order."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


@contextmanager
def engine(image: str, *options: str) -> Iterator[Engine]:
    """Yield a running engine that has the image; leave no process of it behind.

    In a folder with a short name: the path of a socket has at most 104 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="dockerd") as folder:
        if Path("/sys/class/net", BRIDGE).exists():  # left by a test that was killed
            _ip("link", "delete", BRIDGE)
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("address", "add", "192.0.2.1/28", "dev", BRIDGE)  # RFC 5737: nobody's
        try:
            yield from _running(Engine(Path(folder), *options), image)
        finally:
            _unmount(folder)
            _ip("link", "delete", BRIDGE)


def _running(made: Engine, image: str) -> Iterator[Engine]:
    try:
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            load = ["docker", "--host", made.address, "load"]
            subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True)
        yield made
        ids = made.docker("ps", "--all", "--quiet").stdout.decode().split()
        if ids:  # with live-restore they would outlive the engine
            made.docker("rm", "--force", *ids)
    finally:
        made.stop()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _unmount(folder: str) -> None:
    """Let go of what the engine leaves mounted: its network name spaces, and its data."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in sorted((path for path in mounted if path.startswith(folder)), reverse=True):
        subprocess.run(["umount", "--lazy", path], check=True)


def make_job(workspace: Path) -> Path:
    """Write a label job of 60 items; return the path of its file."""
    rows = [
        {"id": f"i{n}", "title": f"Meldung {n}", "content": f"Das Land kürzt Mittel ({n})."}
        for n in range(ITEMS)
    ]
    write_jsonl(workspace / "items.jsonl", rows)
    write_jsonl(workspace / "reviewed.jsonl", [])
    job = job_of(
        LABEL,
        LabelParams(teacher="teacher", num_ctx=8192, concurrency=1),
        inputs_in(workspace, LABEL),
        run="r1",
        fingerprint="f1",
        code_digest=files.code_digest(*LABEL.code),
    )
    path = workspace / "store" / LABEL.name / job.fingerprint / JOB_FILE
    path.parent.mkdir(parents=True)
    files.write_json(path, job.model_dump(mode="json"))
    return path


class Restarting(list[Event]):
    """The stage's events; the engine is restarted, once, at the one that says that ten are done."""

    def __init__(self, running: Engine) -> None:
        super().__init__()
        self.restarted: threading.Thread | None = None
        self._running = running

    def __call__(self, event: Event) -> None:
        self.append(event)
        if self.restarted is None and (event.done or 0) >= RESTART_AT:
            self.restarted = threading.Thread(target=self._running.restart)
            self.restarted.start()

    def join(self) -> None:
        """Wait until the engine is back."""
        assert self.restarted is not None, "the stage ended before the fault"
        self.restarted.join()


@pytest.fixture
def teacher() -> Iterator[OllamaDouble]:
    """Return a DOUBLE of Ollama that takes its time: the engine is what is tested."""
    double = OllamaDouble("teacher:latest")

    def answer(_: str) -> str:
        time.sleep(ANSWER_S)
        return ANSWER

    double.script = answer
    yield double
    double.close()


def said(running: Engine, stream: str) -> list[str]:
    """Return what the engine kept of the only container's output."""
    (container,) = running.docker("ps", "--all", "--quiet").stdout.decode().split()
    done = running.docker("logs", container)
    text = done.stdout if stream == "stdout" else done.stderr
    return text.decode().splitlines()


@pytest.mark.parametrize("live_restore", [True, False])
def test_the_engine_is_restarted_in_the_middle_of_a_stage(
    live_restore: bool,
    stage_images: dict[str, str],
    teacher: OllamaDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tally: Tally,
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    job, log = make_job(workspace), tmp_path / "label.log"
    # Its default would throw away most of what the stage says.
    options = ["--log-opt=max-size=1k", *(["--live-restore"] if live_restore else [])]
    with engine(stage_images["labeler"], *options) as running:
        monkeypatch.setenv("DOCKER_HOST", running.address)
        monkeypatch.setenv("RETRAIN_KEEP_CONTAINERS", "1")
        runner = DockerRunner(workspace, ROOT / "compose.retrain.yml", gpu=False)
        events = Restarting(running)
        environ = {"OLLAMA_HOST": teacher.url, "RETRAIN_ENGINE": "ollama"}
        if live_restore:
            runner.run(LABEL, job, log, events, environ, LIMITS)
            events.join()
        else:
            with pytest.raises(StageKilled):
                runner.run(LABEL, job, log, events, environ, LIMITS)
            events.join()
        shown = [event.model_dump_json(exclude_none=True) for event in events]
        assert shown == said(running, "stdout"), "every line once, none lost"
        assert log.read_text().splitlines() == said(running, "stderr")
        if not live_restore:
            assert not (job.parent / RESULT_FILE).exists()
            monkeypatch.delenv("RETRAIN_KEEP_CONTAINERS")
            runner.run(LABEL, job, log, events, environ, LIMITS)
    result = Result.model_validate_json((job.parent / RESULT_FILE).read_text(encoding="utf-8"))
    metrics = LabelMetrics.model_validate(result.metrics)
    assert metrics.asked + metrics.cached == ITEMS
    assert metrics.quarantined == 0
    assert len(teacher.asked) <= ITEMS + 1, "only what was in flight is asked again"
    tally.survived("restarts of the Docker engine in the middle of a stage")


@pytest.fixture
def port() -> int:
    """Return a free port of this host's loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def test_an_engine_that_is_restarted_is_waited_for_by_the_service_window(
    stage_images: dict[str, str], tmp_path: Path, port: int, tally: Tally
) -> None:
    """It is away when the backend is to be stopped, and again when it is to be started."""
    image = stage_images["labeler"]
    with engine(image, "--live-restore") as running:
        shell = ("--init", "--entrypoint=python3", image, "-c", HEALTHY, str(port))
        running.docker("run", "--detach", "--name=news", "--network=host", *shell)
        url = f"http://127.0.0.1:{port}"
        backend = BackendSettings(url=url, container="news", docker_host=running.address)
        Backend(url).wait_healthy()
        window = Window(tmp_path, backend)
        for act, runs in ((window.open, b"false"), (window.close, b"true")):
            running.stop()
            acting = threading.Thread(target=act)
            acting.start()
            running.start()
            acting.join(120)
            state = running.docker("inspect", "--format={{.State.Running}}", "news").stdout
            assert state.strip() == runs
            tally.survived("restarts of the Docker engine under the service window")
        assert not window.is_open
        assert Backend(url).healthy()
