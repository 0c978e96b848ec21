"""The return of the service where something has happened to its container meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import BackendUnavailable
from driver import service as service_module
from driver.service import ContainerService
from driver.settings import BackendSettings
from driver.window import Window
from tests.unit.window_world import Outside

BACKEND = BackendSettings(url="http://127.0.0.1:9", container="news")


def window(folder: Path, outside: Outside, backend: BackendSettings | None = BACKEND) -> Window:
    return Window(folder, backend, "http://ollama", outside)


def test_another_programs_answers_do_not_count_for_a_dead_container(tmp_path: Path) -> None:
    outside = Outside(usurped=True)
    opened = window(tmp_path, outside)
    opened.open()
    with pytest.raises(BackendUnavailable, match="news has ended, although its address answers"):
        opened.close()
    assert opened.is_open


class Engine:
    """A DOUBLE of a Docker engine: names and ids of its containers, and which it has started."""

    def __init__(self, containers: dict[str, str]) -> None:
        self.containers = containers
        self.started: list[str] = []

    def exists(self, name: str) -> bool:
        return name in {*self.containers, *self.containers.values()}

    def start(self, name: str) -> None:
        self.started.append(self.containers.get(name, name))


@pytest.mark.parametrize(
    ("containers", "started"),
    [
        ({"news": "c1"}, "c1"),
        ({"news": "c2"}, "c2"),
        ({"news": "c2", "news-before": "c1"}, "c2"),
        ({"news-before": "c1"}, "c1"),
    ],
)
def test_what_has_the_name_by_now_is_the_service(
    containers: dict[str, str], started: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(containers)
    monkeypatch.setattr(service_module, "ContainerHost", lambda _host, _patience_s: engine)
    ContainerService("news", "").start("c1")
    assert engine.started == [started]
