"""An engine at tcp://: what a run was told of its certificates, a recovery at boot knows too."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import DockerUnavailable
from driver import docker_tls
from driver.adapters.containers import ContainerHost
from driver.docker_tls import DockerTls, Tls, environment_for, in_effect
from driver.notes import Notes
from driver.settings import BackendSettings
from driver.store import Run
from driver.window import Window
from tests.certificates import asks_for_one, make_certificates
from tests.unit.window_world import Outside, stop_other

ADDRESS = "tcp://gpu.example:2376"
_INTERPRETERS = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
"""What an interpreter may need to start; of engines they say nothing."""
VARIABLES = ("DOCKER_HOST", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    # The latter two, if set, are what requests believes in place of the SDK's own ca.pem.
    for name in (*VARIABLES, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as DOCKER_CERT_PATH is, made by openssl; one certificate is all of them."""
    if shutil.which("openssl") is None:
        refuse = pytest.fail if os.environ.get("REQUIRE_DOCKER") == "1" else pytest.skip
        refuse("no openssl on this machine")
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


class _Engine(http.server.BaseHTTPRequestHandler):
    """A DOUBLE of a Docker engine without containers; tests/docker/test_engine_tls.py has a real
    one."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path.partition("?")[0].rpartition("/")[2])
        body = {"_ping": b"OK", "version": b'{"ApiVersion": "1.41"}'}.get(self.asked[-1], b"[]")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Running:
    """The double at work."""

    host: str
    asked: list[str]
    """The last part of each path."""


@pytest.fixture
def engine(certificates: Path) -> Iterator[Running]:
    """Return an engine that lets in only who shows the certificate."""
    asked: list[str] = []
    context = asks_for_one(certificates)
    handler = type("_Asked", (_Engine,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who is refused
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Running(f"tcp://127.0.0.1:{server.server_port}", asked)
        server.shutdown()
        thread.join()


def as_in_a_run(monkeypatch: pytest.MonkeyPatch, host: str, certificates: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))


def test_recover_in_an_empty_environment_reaches_the_engine_of_the_run(
    engine: Running, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_in_a_run(monkeypatch, engine.host, certificates)
    run = Run.create(tmp_path)
    Notes(run, engine.host).stage("train", state="running")
    noted = (run.folder / "run.json").read_text(encoding="utf-8")
    assert str(certificates) in noted
    assert "KEY" not in noted
    done = subprocess.run(
        [sys.executable, "-m", "driver", "recover", "--workspace", str(tmp_path)],
        cwd=files.ROOT,
        env={name: value for name, value in os.environ.items() if name in _INTERPRETERS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "may be at work still" not in done.stdout
    assert "json" in engine.asked  # containers/json


def test_without_the_certificates_it_lets_nobody_in(engine: Running) -> None:
    with pytest.raises(DockerUnavailable):
        ContainerHost(engine.host)


def test_what_is_given_counts_whatever_the_environment_says(
    engine: Running, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_in_a_run(monkeypatch, "tcp://other.example:2376", Path("/nowhere"))
    assert ContainerHost(engine.host, tls=DockerTls(cert_path=certificates)).answers()


def test_the_window_records_them_for_the_backend_and_the_others(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_in_a_run(monkeypatch, ADDRESS, certificates)
    outside = Outside(other="running")
    backend = BackendSettings(url="http://127.0.0.1:9", container="news")
    opened = Window(tmp_path, backend, "http://ollama", outside)
    opened.open()
    stop_other(opened, outside)
    record = opened.record()
    assert record.settings.docker_host == ADDRESS
    assert record.settings.docker_tls == DockerTls(cert_path=certificates)
    assert record.others[0].tls is None  # it is at unix://


@pytest.mark.parametrize(
    ("folder", "verify", "noted"),
    [
        ("/certs", "1", DockerTls(cert_path=Path("/certs"), verify=True)),
        ("/certs", "", DockerTls(cert_path=Path("/certs"), verify=False)),
        ("", "1", DockerTls(cert_path=Path("~/.docker"), verify=True)),
        ("", "", False),
    ],
)
def test_what_the_environment_says_is_noted_and_means_the_same_afterwards(
    folder: str, verify: str, noted: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CERT_PATH", folder)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", verify)
    assert in_effect(ADDRESS) == noted
    assert in_effect("unix:///var/run/docker.sock") is None
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    environ = environment_for(ADDRESS, noted)
    assert environ["DOCKER_HOST"] == ADDRESS
    assert bool(environ.get("DOCKER_TLS_VERIFY")) == bool(verify)
    assert environ.get("DOCKER_CERT_PATH", "") == (str(noted.cert_path) if noted else "")
    assert bool(environ.get("DOCKER_TLS")) == bool(noted)


def test_certificates_are_for_tcp_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    environ = docker_tls.environment_for("unix:///var/run/docker.sock")
    assert environ["DOCKER_TLS_VERIFY"] == ""
    assert docker_tls.environment_for("") == dict(os.environ)


def test_that_there_is_no_tls_is_noted_and_counts_whatever_the_environment_says_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", ADDRESS)
    opened = Window(
        tmp_path, BackendSettings(url="http://127.0.0.1:9", container="news"), "", Outside()
    )
    opened.open()
    run = Run.create(tmp_path)
    Notes(run, ADDRESS).stage("train", state="running")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    for noted in (run.read_state().docker_tls, opened.record().settings.docker_tls):
        assert noted is False
        assert environment_for(ADDRESS, noted)["DOCKER_TLS_VERIFY"] == ""
    assert environment_for(ADDRESS, None)["DOCKER_TLS_VERIFY"] == "1"  # an older driver's record


def test_where_those_noted_fail_the_environment_s_for_the_same_engine_are_tried(
    engine: Running, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_in_a_run(monkeypatch, engine.host, certificates)
    for noted in (False, DockerTls(cert_path=Path("/moved/since"))):
        reached = ContainerHost(engine.host, tls=noted)
        assert reached.environment()["DOCKER_CERT_PATH"] == str(certificates)
    monkeypatch.setenv("DOCKER_HOST", "tcp://other.example:2376")
    with pytest.raises(DockerUnavailable):
        ContainerHost(engine.host, tls=False)
