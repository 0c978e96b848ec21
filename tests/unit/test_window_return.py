"""The return of the service where something has happened to its container meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import BackendUnavailable
from driver import service as service_module
from driver.service import ContainerService
from driver.settings import BackendSettings, ComposeSettings
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


def test_a_backend_that_was_only_switched_off_and_has_ended_is_started(tmp_path: Path) -> None:
    outside = Outside()
    window(tmp_path, outside).open(stop=False)
    outside.running = False
    later = Window(tmp_path, None, world=outside)
    later.close()
    assert outside.calls == ["llm False", "start c1", "llm True", "load news:latest"]
    assert (outside.running, outside.llm, later.is_open) == (True, True, False)
    assert later.away_s > 0


def test_a_backend_that_was_only_switched_off_was_not_away(tmp_path: Path) -> None:
    outside = Outside()
    opened = window(tmp_path, outside)
    opened.open(stop=False)
    opened.close()
    assert (outside.container, outside.llm, opened.away_s) == ("c1", True, 0)


def compose(model: str) -> BackendSettings:
    made = ComposeSettings(
        folder=Path("/srv/news"), service="backend", environment={"OLLAMA_MODEL": model}
    )
    return BACKEND.model_copy(update={"compose": made})


def test_after_a_recovery_compose_still_makes_the_service_anew(tmp_path: Path) -> None:
    """The driver died between deploy and restore, and `recover` starts the very container."""
    outside = Outside()
    window(tmp_path, outside, compose("new")).open()
    Window(tmp_path, None, world=outside).close()
    assert (outside.container, outside.running) == ("c1", True)
    later = window(tmp_path, outside, compose("new"))
    later.close(renew=True)
    assert (outside.container, outside.running, later.is_open) == ("c1+", True, False)
    assert later.away_s > 0


def test_a_service_that_nothing_has_changed_is_not_away(tmp_path: Path) -> None:
    outside = Outside(changed=False)
    closed = window(tmp_path, outside, compose("new"))
    closed.close(renew=True)
    assert outside.calls == ["renew c1", "load news:latest"]
    assert (outside.container, closed.away_s, closed.warnings) == ("c1", 0, [])


def test_a_container_of_its_own_and_a_service_that_does_not_run_are_left_alone(
    tmp_path: Path,
) -> None:
    outside = Outside()
    window(tmp_path, outside).close(renew=True)
    outside.running = False
    window(tmp_path, outside, compose("new")).close(renew=True)
    assert (outside.calls, outside.running) == ([], False)


def test_a_kill_while_compose_is_at_work_is_recovered(tmp_path: Path) -> None:
    outside = Outside()
    closed = window(tmp_path, outside, compose("new"))
    outside.healthy = False
    with pytest.raises(BackendUnavailable):
        closed.close(renew=True)
    outside.running, outside.healthy = False, True
    Window(tmp_path, None, world=outside).close()
    assert (outside.running, outside.container) == (True, "c1+")


def test_the_settings_of_now_count_for_what_another_run_has_stopped(tmp_path: Path) -> None:
    outside = Outside(healthy=False)
    window(tmp_path, outside, compose("old")).open()
    later = window(tmp_path, outside, compose("new"))
    with pytest.raises(BackendUnavailable):
        later.close(renew=True)
    assert later.record().settings.compose == compose("new").compose


def test_a_bulk_reprocess_that_a_renewal_ends_is_said(tmp_path: Path) -> None:
    closed = window(tmp_path, Outside(busy=9), compose("new"))
    closed.close(renew=True)
    assert "was made anew in the middle of a bulk reprocess" in closed.warnings[0]


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
