"""The stage images as built, and their containers as compose.retrain.yml declares them.

What a container may do is asked from inside it: a declaration can be right and still have no
effect with the engine at hand.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from contracts.errors import ImageStale
from contracts.files import code_digest
from contracts.stages import MERGE, SPLIT
from driver.runners.docker import DockerRunner
from tests.docker.stage_compose import ROOT, compose

pytestmark = pytest.mark.docker

STAGES = ("labeler", "trainer", "merger", "gguf")
OFFLINE = ("trainer", "merger", "gguf")
NO_GPU = Path(__file__).with_name("compose.no-gpu.yml")

PROBE = """
import getpass, json, os, pathlib, sys

def write(path):
    try:
        pathlib.Path(path, "probe").write_text("x")
    except OSError as error:
        return os.strerror(error.errno)
    return "written"

def limit(*paths):  # cgroup v2, or v1
    return next(open(path).read().strip() for path in paths if os.path.exists(path))

from contracts.files import code_digest
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "uid": os.getuid(),
    "user": getpass.getuser(),
    "capabilities": {k: int(status[k], 16) for k in ("CapEff", "CapPrm", "CapBnd")},
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "written": {p: write(p) for p in ("/", "/app", "/etc", "/usr", "/tmp", "/workspace")},
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "memory": limit("/sys/fs/cgroup/memory.max",
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "pids": limit("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
    "first_process": open("/proc/1/comm").read().strip(),
    "code": code_digest(*sys.argv[1:]),
    "environment": dict(os.environ),
}))
"""


@pytest.fixture(scope="module")
def user() -> int:
    """Return the user id to run as: the caller's, or for root that of the image."""
    return os.getuid() or 1000


@pytest.fixture(scope="module")
def run_in(
    stage_images: dict[str, str], user: int, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    """Return a function that runs a command in a stage's container and gives its output."""
    workspace = tmp_path_factory.mktemp("workspace")
    workspace.chmod(0o777)  # the tests may run as root, the container does not

    def run(stage: str, *command: str, uid: int = user) -> str:
        return compose(
            *("run", "--rm", "--no-TTY", "--entrypoint", command[0], stage, *command[1:]),
            files=(NO_GPU,),
            env={"RETRAIN_WORKSPACE": str(workspace), "RETRAIN_UID": str(uid)},
        )

    return run


@pytest.fixture(scope="module", params=STAGES)
def stage(request: pytest.FixtureRequest) -> str:
    """Return the name of a stage image."""
    return str(request.param)


@pytest.fixture(scope="module")
def seen(stage: str, run_in: Callable[..., str]) -> dict[str, Any]:
    """Return what a process in the stage's container finds out about itself."""
    output = run_in(stage, "python3", "-c", PROBE, f"images/{stage}", "contracts")
    result: dict[str, Any] = json.loads(output)
    return result


def test_runs_as_the_given_user(seen: dict[str, Any], user: int) -> None:
    assert seen["uid"] == user
    assert seen["user"] == "retrain"


def test_has_no_capabilities(seen: dict[str, Any]) -> None:
    assert seen["capabilities"] == {"CapEff": 0, "CapPrm": 0, "CapBnd": 0}
    assert seen["no_new_privileges"] == "1"


def test_writes_nowhere_but_the_workspace_and_tmp(seen: dict[str, Any]) -> None:
    writable = {path for path, outcome in seen["written"].items() if outcome == "written"}
    assert writable == {"/tmp", "/workspace"}  # noqa: S108
    assert seen["written"]["/app"] == "Read-only file system"


def test_has_an_init_and_limits(
    seen: dict[str, Any], stage: str, stage_services: dict[str, dict[str, Any]]
) -> None:
    assert seen["first_process"] == "docker-init"
    assert seen["memory"] == stage_services[stage]["mem_limit"]
    assert seen["pids"] == str(stage_services[stage]["pids_limit"])


def test_holds_the_code_of_this_checkout(seen: dict[str, Any], stage: str) -> None:
    assert seen["code"] == code_digest(f"images/{stage}", "contracts")


def test_has_a_network_only_where_one_is_needed(seen: dict[str, Any], stage: str) -> None:
    assert (seen["interfaces"] == ["lo"]) == (stage in OFFLINE)
    assert (seen["environment"].get("HF_HUB_OFFLINE") == "1") == (stage in OFFLINE)


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_user_id_has_a_name(stage: str, run_in: Callable[..., str]) -> None:
    """The driver passes the host's user id, of which no image has a passwd entry."""
    command = "import getpass, os; print(os.getuid(), getpass.getuser())"
    assert run_in(stage, "python3", "-c", command, uid=54321) == "54321 retrain\n"


def test_inductor_knows_the_user_under_an_unknown_user_id(run_in: Callable[..., str]) -> None:
    """Where it asked the passwd database in vain, Unsloth's import died of something else."""
    command = (
        "from torch._inductor.runtime import cache_dir_utils as c; print(c.default_cache_dir())"
    )
    output = run_in("trainer", "python3", "-c", command, uid=54321)
    assert output == "/tmp/torchinductor_retrain\n"  # noqa: S108


def test_the_trainer_keeps_the_torch_of_its_base(
    run_in: Callable[..., str], stage_services: dict[str, dict[str, Any]]
) -> None:
    ask = ("python3", "-c", "import torch; print(torch.__version__)")
    base = stage_services["trainer"]["build"]["args"]["BASE_IMAGE"]
    expected = subprocess.check_output(
        ["docker", "run", "--rm", "--entrypoint", ask[0], base, *ask[1:]], text=True
    )
    assert run_in("trainer", *ask) == expected


def test_gguf_has_the_tools_where_upstream_has_them(run_in: Callable[..., str]) -> None:
    for script in ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py"):
        assert "--outtype" in run_in("gguf", "python3", f"/app/{script}", "--help")
    for program in ("llama-quantize", "llama-imatrix"):
        assert run_in("gguf", "test", "-x", f"/app/{program}") == ""


def test_gguf_can_merge_what_it_converts(run_in: Callable[..., str]) -> None:
    assert run_in("gguf", "python3", "-c", "import images.gguf.merging") == ""


@pytest.mark.parametrize("stage", STAGES)
def test_is_labelled_with_its_commit(stage: str, stage_images: dict[str, str]) -> None:
    label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
    shown = subprocess.check_output(
        ["docker", "image", "inspect", "--format", label, stage_images[stage]], text=True
    )
    assert shown.strip() == os.environ.get("GIT_COMMIT", "unknown")


def test_compose_up_starts_none(stage_images: dict[str, str]) -> None:
    project = f"retrain-up-{os.getpid()}"
    compose("--project-name", project, "up", "--detach")
    assert compose("--project-name", project, "ps", "--all", "--quiet") == ""


def test_bake_builds_all_four(docker_engine: str) -> None:
    """The image workflow builds from the same declaration."""
    command = ["docker", "buildx", "bake", "--file", "compose.retrain.yml", "--print"]
    plan = json.loads(subprocess.check_output(command, cwd=ROOT, text=True))
    assert sorted(plan["target"]) == sorted(STAGES)


def test_ollama_server_is_a_fresh_one(ollama_server: str) -> None:
    assert requests.get(f"{ollama_server}/api/tags", timeout=10).json() == {"models": []}


def test_an_image_of_another_checkout_is_refused_before_anything_starts(
    stage_images: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = DockerRunner(tmp_path, ROOT / "compose.retrain.yml", gpu=False)
    runner.check([SPLIT, MERGE])

    tag = f"other-{os.getpid()}"
    other = stage_images["labeler"].rpartition(":")[0] + f":{tag}"
    dockerfile = f"FROM {stage_images['labeler']}\nUSER root\nRUN echo '#' >>/app/tasks/chat.py\n"
    subprocess.run(["docker", "build", "-qt", other, "-"], input=dockerfile, text=True, check=True)
    monkeypatch.setenv("RETRAIN_TAG", tag)
    try:
        runner = DockerRunner(tmp_path, ROOT / "compose.retrain.yml", gpu=False)
        with pytest.raises(ImageStale, match="labeler") as refusal:
            runner.check([SPLIT])
        assert refusal.value.why == "built from another state of tasks"
        with pytest.raises(ImageStale, match="is not built"):
            runner.check([MERGE])
    finally:
        subprocess.run(["docker", "rmi", other], check=True)
