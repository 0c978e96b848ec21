"""`driver recover` asks the engine of the run for its stages, and says where it cannot."""

from __future__ import annotations

import errno
import http.server
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import DockerUnavailable, FileUnusable, InputMissing
from driver import locks, recover
from driver.adapters import containers
from driver.adapters.containers import ContainerHost
from driver.moved import former_paths
from driver.settings import BackendSettings
from driver.store import Run
from driver.window import Window
from driver.window_record import RECORD_FILE
from tests.unit.other_user import another_user, close, public_folder
from tests.unit.window_world import Outside


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an address at which no engine answers; DOCKER_HOST is another one."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/now.sock")
    return f"unix://{tmp_path}/then.sock"


def said(workspace: Path) -> str:
    lines: list[str] = []
    recover.recover(workspace, lines.append)
    assert lines[-1].startswith("Nothing to recover")
    return "\n".join(lines[:-1])


def noted(workspace: Path, **facts: str) -> None:
    run = Run.create(workspace)
    run.write_state({"run": run.id, "stages": {}, **facts})


def test_the_engine_of_the_run_is_asked(
    tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    noted(tmp_path, docker_host=nobody)
    text = said(tmp_path)
    assert f"no Docker engine answers at {nobody}" in text
    assert "set DOCKER_HOST as it was in the run" in text


def test_the_engine_of_now_is_asked_too(tmp_path: Path, nobody: str) -> None:
    noted(tmp_path, docker_host=nobody)
    text = said(tmp_path)
    assert text.count("no Docker engine answers") == 2
    assert "now.sock" in text


def test_notes_that_cannot_be_read_hide_nothing(tmp_path: Path, nobody: str) -> None:
    noted(tmp_path)
    (Run.create(tmp_path).folder / "run.json").write_bytes(b"{")
    assert "may be at work still" in said(tmp_path)


@pytest.mark.usefixtures("nobody")
def test_notes_that_cannot_even_be_opened_keep_nobody_from_the_service(tmp_path: Path) -> None:
    """Any error but that of a missing file: EIO, EACCES, or a folder in its place."""
    (Run.create(tmp_path).folder / "run.json").mkdir()
    (tmp_path / RECORD_FILE).write_text('{"opened_at": 1.0}', encoding="utf-8")
    lines: list[str] = []
    recover.recover(tmp_path, lines.append)
    assert "may be at work still" in lines[0]
    assert lines[-1] == "What was stopped for the GPU runs again."
    assert not (tmp_path / RECORD_FILE).exists()


def test_where_the_run_cannot_say_its_engine_those_of_the_window_are_asked(
    tmp_path: Path, nobody: str
) -> None:
    (Run.create(tmp_path).folder / "run.json").mkdir()
    there = nobody.replace("then", "news")
    record = {
        "backend": {"url": "http://127.0.0.1:9", "container": "news", "docker_host": there},
        "others": [{"id": "c1", "name": "notebook", "host": nobody}],
    }
    files.write_json(tmp_path / RECORD_FILE, {"opened_at": 1.0, **record})
    lines: list[str] = []
    assert recover.stop_stages(tmp_path, lines.append) == []
    *engines, last = lines
    names = ("now.sock", "then.sock", "news.sock")
    for name, said_of_it in zip(names, engines, strict=True):
        assert "no Docker engine answers" in said_of_it
        assert name in said_of_it
        assert name in last
    assert "which Docker engine it is on is not known" in last
    assert "run.json cannot be read" in last


def test_nothing_that_goes_wrong_with_the_stages_keeps_the_service_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_stages(*_: object) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr(recover, "stop_stages", stop_stages)
    (tmp_path / RECORD_FILE).write_text('{"opened_at": 1.0}', encoding="utf-8")
    lines: list[str] = []
    recover.recover(tmp_path, lines.append)
    assert "cannot be told: OSError: input/output error" in lines[0]
    assert not (tmp_path / RECORD_FILE).exists()


@pytest.mark.usefixtures("nobody")
def test_a_service_that_is_back_is_told_so_although_its_record_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a workspace whose file system has gone read-only."""
    monkeypatch.setenv(locks.FOLDER_VARIABLE, str(tmp_path))  # what stays would refuse other runs
    outside = Outside()
    backend = BackendSettings(url="http://127.0.0.1:9", container="news")
    Window(tmp_path, backend, world=outside).open()

    def remove(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(files, "remove", remove)
    monkeypatch.setattr(recover, "Window", partial(Window, world=outside))
    lines: list[str] = []
    with pytest.raises(FileUnusable, match=r"is back, but its record .*window.json") as caught:
        recover.recover(tmp_path, lines.append)
    assert caught.value.why == "Read-only file system"
    assert outside.running
    assert lines[-1].startswith("The service is back and healthy; it was away")


def test_a_run_that_was_killed_before_its_first_note_hides_no_engine(
    tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the path at which the run before it was at work."""
    monkeypatch.delenv("DOCKER_HOST")
    former = {"docker_host": nobody, "workspace": str(tmp_path / "former"), "stages": {}}
    Run(tmp_path, "20260101-000000").folder.mkdir(parents=True)
    Run(tmp_path, "20260101-000000").write_state({"run": "20260101-000000", **former})
    Run.create(tmp_path)
    assert f"no Docker engine answers at {nobody}" in said(tmp_path)
    assert former_paths(tmp_path) == [str(tmp_path / "former")]


@pytest.mark.usefixtures("nobody")
def test_without_containers_no_engine_is_missed(tmp_path: Path) -> None:
    noted(tmp_path, docker_host="")
    assert said(tmp_path) == ""


class _Stuck(http.server.BaseHTTPRequestHandler):
    """A DOUBLE of a Docker engine that answers a ping, and nothing else until the test ends."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.endswith("/_ping"):
            body = b"OK"
        elif self.path.endswith("/version"):
            body = b'{"ApiVersion": "1.41"}'
        else:
            time.sleep(600)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a unix socket"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Engine(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[str]:
    """Return the address of an engine that is stuck."""
    path = tmp_path / "stuck.sock"
    with _Engine(str(path), _Stuck) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


def test_an_engine_that_is_stuck_is_not_waited_for(
    tmp_path: Path, stuck: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover, "_STAGES_S", 0.5)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    noted(tmp_path, docker_host=stuck)
    assert "why: the Docker engine does not answer: nothing came within 0 s" in said(tmp_path)


def test_the_engine_that_the_run_goes_on_with_is_left_alone(
    tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    noted(tmp_path, docker_host=nobody)
    lines: list[str] = []
    assert recover.stop_stages(tmp_path, lines.append, but=nobody) == []
    assert not lines
    recover.stop_stages(tmp_path, lines.append, but="unix:///var/run/docker.sock")
    assert len(lines) == 1


def test_an_engine_that_this_user_may_not_use_is_no_engine_that_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(containers, "_REFUSED_S", 0.0)
    with public_folder() as folder, socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(folder / "docker.sock"))
        engine.listen()
        close(folder / "docker.sock", 0o600)
        with another_user(), pytest.raises(DockerUnavailable) as caught:
            ContainerHost(f"unix://{folder}/docker.sock", patience_s=600)
    assert f"may not use the Docker engine at {folder}/docker.sock" in caught.value.what
    assert "sudo" in caught.value.todo
    assert "groups docker" in caught.value.todo


def test_an_engine_that_starts_may_give_its_socket_to_its_group_a_moment_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with public_folder() as folder:
        path = folder / "docker.sock"

        def sleep(_: float) -> None:
            """Let the engine open its socket, between two tries of ours."""
            before = os.geteuid()
            os.seteuid(os.getuid())
            path.chmod(0o666)
            os.seteuid(before)

        with _Engine(str(path), _Stuck) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                close(path, 0o600)
                monkeypatch.setattr(time, "sleep", sleep)
                with another_user():
                    assert ContainerHost(f"unix://{path}", patience_s=600).answers()
            finally:
                server.shutdown()
                thread.join()


@pytest.mark.usefixtures("nobody")
def test_a_workspace_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="there is no workspace"):
        recover.recover(tmp_path / "gone", lambda _line: None)


@pytest.mark.parametrize("output", ["/dev/full", "/dev/null"])
def test_where_it_cannot_be_told_it_is_done_all_the_same(tmp_path: Path, output: str) -> None:
    with Path(output).open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "driver", "recover", "-w", str(tmp_path)],
            cwd=files.ROOT,
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
