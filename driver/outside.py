"""The outside as the service window touches it: the backend, its container, and the engines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from driver.docker_tls import Tls
from driver.settings import BackendSettings

if TYPE_CHECKING:  # the Docker SDK takes 0.2 s to import, and requests too
    from driver.adapters.backend import Backend
    from driver.adapters.containers import ContainerHost
    from driver.service import Service
    from serving.ollama import Ollama


class World:
    """The outside, as far as the window touches it; a double of it crashes in the tests."""

    def service(self, settings: BackendSettings) -> Service:
        """Return the backend's service."""
        from driver.adapters.containers import AWAY_S
        from driver.service import service_for

        return service_for(settings, AWAY_S)

    def backend(self, settings: BackendSettings) -> Backend:
        """Return the backend's API."""
        from driver.adapters.backend import Backend

        return Backend(settings.url)

    def containers(self, host: str, tls: Tls | None = None) -> ContainerHost:
        """Return an engine with containers of others."""
        from driver.adapters.containers import AWAY_S, ContainerHost

        return ContainerHost(host, AWAY_S, tls)

    def default_engine(self) -> str:
        """Return the engine that is asked where the settings name none."""
        from driver.adapters.containers import LOCAL

        return os.environ.get("DOCKER_HOST") or LOCAL

    def ollama(self, address: str) -> Ollama:
        """Return the engine."""
        from serving.ollama import Ollama

        return Ollama(address)
