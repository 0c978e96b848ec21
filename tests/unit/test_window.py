"""The service window: recorded before anything stops, closed only when healthy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BackendUnavailable, WindowOpen
from driver import window
from driver.adapters import backend as backend_module
from driver.settings import BackendSettings
from driver.window import Window

SETTINGS = BackendSettings(url="http://127.0.0.1:9", container="news")


class Containers:
    """A double of the Docker engine, for orders of events that a real one cannot be made to show.

    The real engine is in tests/e2e.
    """

    def __init__(self, workspace: Path, *, running: bool = True) -> None:
        self.running = running
        self.restarts = 0
        self.exit_code = 0
        self.calls: list[str] = []
        self._record = workspace / "window.json"

    def state(self, name: str) -> dict[str, Any]:
        assert name == "news"
        return {"id": "c0ffee", "running": self.running, "restarts": self.restarts}

    def stop(self, name: str, timeout_s: int) -> int:
        assert self._record.exists(), "the record has to be on the disk before the stop"
        self.calls.append(f"stop {name} {timeout_s}")
        self.running = False
        return self.exit_code

    def start(self, name: str) -> None:
        self.calls.append(f"start {name}")
        self.running = True


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Containers:
    """Put the double in the engine's place, and a backend that is healthy at once."""
    double = Containers(tmp_path)
    monkeypatch.setattr(window, "_containers", lambda: double)
    monkeypatch.setattr(backend_module.Backend, "wait_healthy", lambda *_args, **_named: None)
    return double


def test_open_stops_once_and_close_brings_back(tmp_path: Path, containers: Containers) -> None:
    opened = Window(tmp_path, SETTINGS)
    opened.open()
    opened.open()
    assert containers.calls == ["stop news 120"]
    assert opened.is_open
    opened.close()
    opened.close()
    assert containers.calls == ["stop news 120", "start news"]
    assert not opened.is_open
    assert opened.away_s > 0


def test_another_process_needs_nothing_but_the_workspace(
    tmp_path: Path, containers: Containers
) -> None:
    Window(tmp_path, SETTINGS).open()
    later = Window(tmp_path, None)
    assert later.is_open
    later.close()
    assert containers.running
    assert not (tmp_path / "window.json").exists()


def test_without_a_backend_nothing_is_touched(tmp_path: Path, containers: Containers) -> None:
    alone = Window(tmp_path, None)
    alone.open()
    alone.close()
    assert containers.calls == []
    assert alone.away_s == 0


def test_what_was_not_running_is_left_alone(tmp_path: Path, containers: Containers) -> None:
    containers.running = False
    stopped = Window(tmp_path, SETTINGS)
    stopped.open()
    assert not stopped.is_open
    assert containers.calls == []
    assert stopped.warnings == ["news was not running, and is left as it is"]


def test_a_stop_that_was_not_clean_is_said(tmp_path: Path, containers: Containers) -> None:
    containers.exit_code = 137
    opened = Window(tmp_path, SETTINGS)
    opened.open()
    assert "exit 137" in opened.warnings[0]


def test_a_backend_that_does_not_come_back_keeps_the_record(
    tmp_path: Path, containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Window(tmp_path, SETTINGS)
    opened.open()

    def never(*_args: object, **_named: object) -> None:
        raise BackendUnavailable("not healthy")

    monkeypatch.setattr(backend_module.Backend, "wait_healthy", never)
    with pytest.raises(BackendUnavailable):
        opened.close()
    assert opened.is_open


def test_a_backend_that_restarts_while_it_answers_is_not_back(
    tmp_path: Path, containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Window(tmp_path, SETTINGS)
    opened.open()

    def restarts(*_args: object, **_named: object) -> None:
        containers.restarts += 1

    monkeypatch.setattr(backend_module.Backend, "wait_healthy", restarts)
    with pytest.raises(BackendUnavailable, match="restarts again and again"):
        opened.close()
    assert opened.is_open


def test_a_damaged_record_says_what_to_do(tmp_path: Path, containers: Containers) -> None:
    (tmp_path / "window.json").write_text("{", encoding="utf-8")
    with pytest.raises(WindowOpen, match=r"by hand"):
        Window(tmp_path, SETTINGS).close()
    assert containers.calls == []
