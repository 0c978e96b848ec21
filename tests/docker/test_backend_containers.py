"""The backend as a container: by name, under compose, and on an engine that is reached by ssh."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import BackendUnavailable, DockerUnavailable
from driver.adapters.containers import LOCAL, ContainerHost
from driver.service import ComposeService, ContainerService, model_asked_anew, service_for
from driver.settings import BackendSettings, ComposeSettings
from driver.window_return import finish_stop, is_stopping, stopping
from tests.docker.engine import docker

pytestmark = pytest.mark.docker

# Gunicorn's way of ending: a clean exit on SIGTERM.
PROGRAM = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
URL = "http://127.0.0.1:9"


@pytest.fixture
def plain(stage_images: dict[str, str]) -> Iterator[str]:
    """Return the name of a running container."""
    name = f"retrain-test-plain-{os.getpid()}"
    shell = ("--entrypoint=sh", stage_images["labeler"], "-c", PROGRAM)
    docker("run", "--detach", f"--name={name}", "--restart=unless-stopped", *shell)
    yield name
    docker("rm", "--force", name)


@pytest.fixture
def stubborn(stage_images: dict[str, str]) -> Iterator[str]:
    """Return the name of a container that ignores SIGTERM."""
    name = f"retrain-test-stubborn-{os.getpid()}"
    shell = ("--entrypoint=sh", stage_images["labeler"], "-c", "trap '' TERM; sleep 600")
    docker("run", "--detach", f"--name={name}", *shell)
    yield name
    docker("rm", "--force", name)


@pytest.fixture
def project(stage_images: dict[str, str], tmp_path: Path) -> Iterator[ComposeSettings]:
    """Return a compose project whose service has been started with the model `old`."""
    service = {
        "image": stage_images["labeler"],
        "entrypoint": ["sh", "-c", PROGRAM],
        "environment": {"OLLAMA_MODEL": "${OLLAMA_MODEL:-unset}"},
    }
    declared = {"name": f"retrain-test-{os.getpid()}", "services": {"backend": service}}
    file = tmp_path / "news.yml"
    file.write_text(json.dumps(declared), encoding="utf-8")
    settings = ComposeSettings(
        folder=tmp_path, files=[file.name], service="backend", environment={"OLLAMA_MODEL": "old"}
    )
    compose = ["compose", "--file", str(file)]
    subprocess.run(
        ["docker", *compose, "up", "--detach"],
        env={**os.environ, **settings.environment},
        check=True,
        capture_output=True,
    )
    yield settings
    docker(*compose, "down", "--timeout=1")


def model_of(container: str) -> str:
    return docker("exec", container, "printenv", "OLLAMA_MODEL")


def test_a_container_is_stopped_and_started(plain: str) -> None:
    service = service_for(BackendSettings(url=URL, container=plain))
    before = service.state()
    assert (before.name, before.running, before.restart_policy) == (plain, True, "unless-stopped")
    ended = service.stop(service.state().id, 10)
    assert ended.exit_code == 0
    assert not service.state().running
    service.start(before.id)
    service.start(before.id)  # once more: nothing changes
    after = service.state()
    assert (after.id, after.running) == (before.id, True)


def test_a_container_that_will_not_stop_is_killed_and_that_is_told(stubborn: str) -> None:
    ended = ContainerHost().stop(stubborn, 1)
    assert ended.exit_code == 137
    assert ended.seconds >= 1


def test_a_stop_whose_caller_has_died_is_waited_for(stubborn: str) -> None:
    """The engine goes on with it, and a start does nothing to what still runs."""
    host = ContainerHost()
    before = host.state(stubborn)
    begun = stopping(before, 4)
    with subprocess.Popen(["docker", "stop", "--timeout=4", stubborn]) as caller:
        time.sleep(1)
        caller.kill()
    assert is_stopping(begun, host.state(stubborn))
    finish_stop(begun, host)
    assert not host.state(stubborn).running
    host.start(stubborn)
    assert not is_stopping(begun, host.state(stubborn))
    time.sleep(4)  # past the end of the first stop
    assert host.state(stubborn).running


def test_a_container_made_anew_is_found_by_its_name(
    plain: str, stage_images: dict[str, str]
) -> None:
    service = ContainerService(plain, ContainerHost())
    old = service.state().id
    docker("rm", "--force", plain)
    shell = ("--entrypoint=sh", stage_images["labeler"], "-c", PROGRAM)
    docker("create", f"--name={plain}", *shell)
    service.start(old)
    assert service.state().running
    assert service.state().id != old


def test_a_container_that_is_not_there_is_named() -> None:
    with pytest.raises(BackendUnavailable, match="there is no container nobody"):
        ContainerService("nobody", ContainerHost()).state()


def test_compose_starts_the_very_container_after_a_failure(project: ComposeSettings) -> None:
    service = ComposeService(project, ContainerHost())
    before = service.state()
    service.stop(service.state().id, 10)
    service.start(before.id)
    assert service.state().id == before.id
    assert model_of(before.id) == "old"


def test_compose_makes_a_changed_service_anew(project: ComposeSettings) -> None:
    old = ComposeService(project, ContainerHost()).state()
    changed = project.model_copy(update={"environment": {"OLLAMA_MODEL": "new"}})
    service = ComposeService(changed, ContainerHost())
    service.stop(service.state().id, 10)
    service.renew(old.id)
    new = service.state()
    assert new.running
    assert new.id != old.id
    assert model_of(new.id) == "new"
    service.renew(new.id)
    assert service.state().id == new.id, "nothing has changed since"


@pytest.mark.parametrize("fixed", [False, True])
def test_compose_says_whom_the_service_asks_once_made_anew(
    project: ComposeSettings, *, fixed: bool
) -> None:
    """Where the file fixes the model, no variable of ours reaches it, and a run is refused."""
    if fixed:
        file = project.folder / project.files[0]
        declared = json.loads(file.read_text(encoding="utf-8"))
        declared["services"]["backend"]["environment"]["OLLAMA_MODEL"] = "qwen3:14b"
        declared["services"]["backend"]["profiles"] = ["news"]  # `up` of the service begins it too
        file.write_text(json.dumps(declared), encoding="utf-8")
    changed = project.model_copy(update={"environment": {"OLLAMA_MODEL": "liga"}})
    asked = model_asked_anew(BackendSettings(url=URL, compose=changed))
    assert asked == ("qwen3:14b" if fixed else "liga")


def test_compose_starts_it_where_a_variable_is_missing_by_now(project: ComposeSettings) -> None:
    """As at a boot, where nobody has set what the compose file demands."""
    service = ComposeService(project, ContainerHost())
    before = service.state()
    service.stop(service.state().id, 10)
    file = project.folder / project.files[0]
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("${OLLAMA_MODEL:-unset}", "${OLLAMA_MODEL:?}"), encoding="utf-8")
    bare = ComposeService(project.model_copy(update={"environment": {}}), ContainerHost())
    with pytest.raises(BackendUnavailable, match="OLLAMA_MODEL"):
        bare.state()
    assert bare.state(bare.start(before.id)).running
    file.write_text(text, encoding="utf-8")


_CTRL_C = """
import os, pathlib, signal, sys
from driver.adapters.containers import ContainerHost
from driver.service import ComposeService
from driver.settings import ComposeSettings
signal.signal(signal.SIGINT, lambda *_: None)  # as within the shield
project = ComposeSettings.model_validate_json(sys.argv[1])
print(ComposeService(project, ContainerHost()).renew(""), flush=True)
"""


def test_a_ctrl_c_while_compose_is_at_work_is_not_for_compose(
    project: ComposeSettings, tmp_path: Path
) -> None:
    """A terminal sends it to the whole process group; `docker` in front tells when it is called."""
    called, go_on, folder = tmp_path / "called", tmp_path / "go-on", tmp_path / "bin"
    folder.mkdir()
    docker_path = shutil.which("docker")
    script = folder / "docker"
    script.write_text(
        f"#!/bin/sh\n: > {called}\nwhile [ ! -e {go_on} ]; do sleep 0.05; done\n"
        f'exec {docker_path} "$@"\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-c", _CTRL_C, project.model_dump_json()],
        cwd=files.ROOT,
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            while not called.exists():
                assert process.poll() is None
            os.killpg(process.pid, signal.SIGINT)
            go_on.touch()
            assert process.stdout is not None
            made = process.stdout.read().strip()
            assert ComposeService(project, ContainerHost()).state().id == made
        finally:
            process.kill()


def test_compose_says_what_is_wrong(project: ComposeSettings) -> None:
    other = project.model_copy(update={"service": "front"})
    with pytest.raises(BackendUnavailable, match="`docker compose ps` failed for front") as caught:
        ComposeService(other, ContainerHost()).state()
    assert "no such service: front" in caught.value.why


@pytest.fixture
def ssh_double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a DOUBLE of ssh first in the path: it runs the remote command on this machine.

    What docker's clients ask a remote host for is `docker system dial-stdio`; a real sshd would
    start the same. Returns the file of its calls.
    """
    calls, folder = tmp_path / "calls", tmp_path / "bin"
    folder.mkdir()
    script = folder / "ssh"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$*" >> {calls}\n'
        'case "$*" in *away.example*) echo "ssh: no route to away.example" >&2; exit 255;; esac\n'
        "exec docker --host unix:///var/run/docker.sock system dial-stdio\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return calls


def test_a_container_on_another_host(plain: str, ssh_double: Path) -> None:
    settings = BackendSettings(url=URL, container=plain, docker_host="ssh://deploy@news.example")
    service = service_for(settings)
    before = service.state()
    assert service.stop(service.state().id, 10).exit_code == 0
    service.start(before.id)
    assert service.state().running
    called = ssh_double.read_text(encoding="utf-8")
    assert "news.example" in called
    assert "deploy" in called
    assert "docker system dial-stdio" in called


def test_compose_on_another_host(project: ComposeSettings, ssh_double: Path) -> None:
    service = ComposeService(project, ContainerHost("ssh://deploy@news.example"))
    before = service.state()
    service.stop(service.state().id, 10)
    service.start(before.id)
    assert service.state().running
    assert ssh_double.exists()


@pytest.mark.usefixtures("ssh_double")
def test_a_host_that_is_away_is_named() -> None:
    with pytest.raises(DockerUnavailable, match=r"at ssh://deploy@away\.example"):
        ContainerHost("ssh://deploy@away.example")


def test_certificates_are_for_tcp_alone(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", "/nowhere")
    assert ContainerHost(LOCAL).state(plain).running
    with pytest.raises(DockerUnavailable, match="at tcp://127") as caught:
        ContainerHost("tcp://127.0.0.1:9")
    assert "TLS" in caught.value.why
