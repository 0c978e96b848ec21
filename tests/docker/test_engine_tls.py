"""An engine at tcp:// with certificates: what is on the record is enough for SDK and compose."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from driver.docker_tls import DockerTls
from driver.service import service_for
from driver.settings import BackendSettings, ComposeSettings
from driver.window_record import Record
from tests.certificates import asks_for_one, make_certificates
from tests.docker.engine import docker

pytestmark = pytest.mark.docker

SOCKET = "/var/run/docker.sock"


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Pass what comes by TLS on to the engine's own socket, and back."""
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:  # closed: the test is over
            return
        try:
            secure = context.wrap_socket(plain, server_side=True)
        except OSError:  # who shows no certificate
            plain.close()
            continue
        engine = socket.socket(socket.AF_UNIX)
        engine.connect(SOCKET)
        for ends in ((secure, engine), (engine, secure)):
            threading.Thread(target=_pump, args=ends, daemon=True).start()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    folder = tmp_path / "certificates"
    folder.mkdir()
    make_certificates(folder)
    return folder


@pytest.fixture
def engine(docker_engine: str, certificates: Path) -> Iterator[str]:
    """Return the address of the real engine behind TLS, which asks for a certificate."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        context = asks_for_one(certificates)
        threading.Thread(target=_serve, args=(listener, context), daemon=True).start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_compose_service_comes_back_by_the_record_alone(
    engine: str,
    certificates: Path,
    stage_images: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests prefers them to the SDK's
        monkeypatch.delenv(name, raising=False)
    service = {"image": stage_images["labeler"], "entrypoint": ["sleep", "600"], "init": True}
    declared = {"name": f"retrain-tls-{os.getpid()}", "services": {"backend": service}}
    (tmp_path / "news.yml").write_text(json.dumps(declared), encoding="utf-8")
    compose = ("compose", "--file", str(tmp_path / "news.yml"))
    docker(*compose, "up", "--detach")
    try:
        settings = BackendSettings(
            url="http://127.0.0.1:9",
            compose=ComposeSettings(folder=tmp_path, files=("news.yml",), service="backend"),
            docker_host=engine,
            docker_tls=DockerTls(cert_path=certificates),
        )
        record = Record(backend=settings, opened_at=0).model_dump_json()
        backend = service_for(Record.model_validate_json(record).settings)
        before = backend.state()
        assert before.running
        backend.stop(before.id, 1)
        assert not backend.state().running
        assert backend.renew(before.id) == before.id
        assert backend.state().running
    finally:
        docker(*compose, "down", "--timeout=1")
