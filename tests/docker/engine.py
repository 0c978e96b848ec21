"""A real Docker engine for the tests: the stage images, built, and an Ollama server."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
import requests
from pytest_docker.plugin import Services

from tests.docker.stage_compose import ROOT, compose


def docker(*arguments: str) -> str:
    """Call the engine's own client, so that the driver is not checked by its own code."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def docker_engine() -> str:
    """Return the engine's version; skip where none answers, or fail if REQUIRE_DOCKER=1."""
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        version, reason = done.stdout.strip(), done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        version, reason = "", str(error)
    if not version:
        refuse = pytest.fail if os.environ.get("REQUIRE_DOCKER") == "1" else pytest.skip
        refuse(f"no Docker engine: {reason}")
    return version


@pytest.fixture(scope="session")
def stage_services(docker_engine: str) -> dict[str, dict[str, Any]]:
    """Return the services of compose.retrain.yml as Docker itself reads them."""
    services: dict[str, dict[str, Any]] = json.loads(compose("config", "--format", "json"))[
        "services"
    ]
    return services


@pytest.fixture(scope="session")
def stage_images(stage_services: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Build the four stage images, with the environment's build arguments; name them by stage."""
    compose("build")
    return {name: service["image"] for name, service in stage_services.items()}


@pytest.fixture(scope="session")
def docker_compose_file(docker_engine: str) -> str:
    """Tell pytest-docker where the servers are declared; without an engine it starts none."""
    return str(ROOT / "tests" / "services" / "compose.yml")


@pytest.fixture(scope="session")
def ollama_server(docker_services: Services) -> str:
    """Return the base URL of an Ollama server without models, on loopback."""
    url = f"http://127.0.0.1:{docker_services.port_for('ollama', 11434)}"
    answer = requests.get(f"{url}/api/version", timeout=10)
    answer.raise_for_status()
    return url
