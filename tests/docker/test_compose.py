"""The driver reads compose.retrain.yml as Compose does, and starts what it declares."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from driver.pipeline import PIPELINE
from driver.runners import compose
from driver.runners.docker import container_options

FILE = files.ROOT / "compose.retrain.yml"
ENVIRON = {
    "RETRAIN_WORKSPACE": "/srv/retrain",
    "RETRAIN_UID": "4711",
    "RETRAIN_GID": "815",
    "TRAINER_MEMORY": "7g",
    "GGUF_BASE_IMAGE": "",  # empty counts as unset for ${NAME:-default}
}

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def theirs(docker_engine: object) -> dict[str, Any]:
    """Return the services as `docker compose config` resolves them."""
    environ = {name: os.environ[name] for name in ("HOME", "PATH")} | ENVIRON
    done = subprocess.run(
        ["docker", "compose", "-f", str(FILE), "--profile", "*", "config", "--format", "json"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


@pytest.fixture(scope="module")
def ours() -> dict[str, compose.Service]:
    return compose.read(FILE, ENVIRON)


def test_every_stage_with_an_image_has_a_service_and_the_reverse(
    theirs: dict[str, Any], ours: dict[str, compose.Service]
) -> None:
    images = {stage.image for stage in PIPELINE if stage.image}
    assert set(theirs) == set(ours) == images


@pytest.mark.parametrize("name", ["labeler", "trainer", "merger", "gguf"])
def test_the_reader_agrees_with_compose(
    theirs: dict[str, Any], ours: dict[str, compose.Service], name: str
) -> None:
    their, our = theirs[name], ours[name]
    assert our.image == their["image"]
    assert our.build.args == their["build"]["args"]
    assert our.build.dockerfile == their["build"]["dockerfile"]
    assert (files.ROOT / our.build.context).resolve() == Path(their["build"]["context"])
    assert our.user == their["user"] == "4711:815"
    assert our.read_only is their["read_only"] is True
    assert our.init is their["init"] is True
    assert list(our.tmpfs) == their["tmpfs"]
    assert list(our.cap_drop) == their["cap_drop"] == ["ALL"]
    assert list(our.security_opt) == their["security_opt"]
    assert our.environment == their.get("environment", {})
    assert our.network_mode == their.get("network_mode")
    assert our.pids_limit == their["pids_limit"]
    assert _bytes(our.mem_limit) == int(their["mem_limit"])
    assert _bytes(our.shm_size) == int(their.get("shm_size", 0))
    mount = their["volumes"][0]
    assert list(our.volumes) == [f"{mount['source']}:{mount['target']}"]
    devices = their.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
    assert list(our.gpus) == (devices or [])


def test_nothing_but_the_trainer_gets_the_gpu(ours: dict[str, compose.Service]) -> None:
    with_gpu = {n: container_options(s, gpu=True).get("device_requests") for n, s in ours.items()}
    assert [name for name, requests in with_gpu.items() if requests] == ["trainer"]
    assert "device_requests" not in container_options(ours["trainer"], gpu=False)


def _bytes(limit: str | int | None) -> int:
    """Return Compose's 4g, 512m in bytes."""
    text = str(limit or 0)
    factor: int = 1024 ** " kmg".index(text[-1] if text[-1] in "kmg" else " ")
    return int(text.rstrip("kmg")) * factor
