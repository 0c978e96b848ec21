"""Reads compose.retrain.yml: the one declaration of how stage containers are built and run.

Only the part of Compose that the file uses is understood, and anything else is refused, so that
nothing is silently dropped. `tests/docker/test_compose.py` holds this reader to what
`docker compose config` makes of the same file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from contracts.errors import SettingsInvalid
from contracts.stage import Frozen
from driver import yaml_text

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
"""Of a size in Compose, all of them powers of 1024."""


class Build(Frozen):
    """How an image is built."""

    context: str
    dockerfile: str
    args: dict[str, str] = {}
    labels: dict[str, str] = {}


class Logging(Frozen):
    """Where the engine keeps what a container says."""

    driver: str
    options: dict[str, str] = {}


class Service(Frozen):
    """How one stage's container is run. Names are Compose's own."""

    image: str
    build: Build
    user: str
    read_only: bool = False
    init: bool = False
    tmpfs: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    mem_limit: str | int | None = None
    pids_limit: int | None = None
    shm_size: str | int | None = None
    ulimits: dict[str, int] = {}
    network_mode: str | None = None
    volumes: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    profiles: tuple[str, ...] = ()
    logging: Logging | None = None
    deploy: dict[str, Any] = Field(default={})

    @property
    def memory_mib(self) -> int | None:
        """The memory limit; None where there is none, or it is not as Compose writes it."""
        found = _BYTES.fullmatch(str(self.mem_limit).strip().lower())
        if found is None:
            return None
        return int(float(found[1]) * _UNITS[found[2]]) >> 20 or None

    @property
    def gpus(self) -> tuple[dict[str, Any], ...]:
        """The devices that the service reserves."""
        reservations = self.deploy.get("resources", {}).get("reservations", {})
        return tuple(reservations.get("devices", ()))

    @property
    def gpu_names(self) -> tuple[str, ...]:
        """The devices that it reserves by index or UUID."""
        return tuple(str(name) for device in self.gpus for name in device.get("device_ids", ()))

    @property
    def gpu_count(self) -> int | None:
        """How many devices it reserves; None for all, which is what no number means."""
        counts = [device.get("count", "all") for device in self.gpus]
        return sum(map(int, counts)) if counts and "all" not in counts else None


def read(file: Path, environ: Mapping[str, str]) -> dict[str, Service]:
    """Return the services by name, with variables from `environ` put in.

    Raises `SettingsInvalid` for a file that is missing or says what this reader does not know.
    """
    try:
        document = yaml_text.load(file.read_text(encoding="utf-8"), str(file))
        services = _filled(document["services"], environ)
        return {name: Service.model_validate(body) for name, body in services.items()}
    except OSError as error:
        raise SettingsInvalid(f"cannot read {file}", why=str(error)) from error
    except (KeyError, TypeError, ValueError) as error:  # pydantic's errors are of the last
        raise SettingsInvalid(
            f"{file} is not as the driver can read it",
            why=str(error),
            todo="Keep to the keys that the shipped file uses.",
        ) from error


def _filled(value: Any, environ: Mapping[str, str]) -> Any:
    """Put variables into every text: `${NAME:-default}` (also for an empty NAME), `${NAME}`."""
    if isinstance(value, dict):
        return {key: _filled(inner, environ) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, environ) for inner in value]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(lambda match: environ.get(match[1]) or match[2] or "", value)
