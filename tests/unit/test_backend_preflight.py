"""A backend that a stop would destroy (`--rm`) is refused before anything is touched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import WindowOpen
from driver import preflight, service
from driver.settings import BackendSettings
from driver.window import Window
from tests.unit.window_world import Outside

BACKEND = BackendSettings(url="http://127.0.0.1:9", container="news")


def test_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = Outside(removes_itself=True)
    monkeypatch.setattr(service, "service_for", outside.service)
    session: Any = SimpleNamespace(
        settings=SimpleNamespace(backend=BACKEND), window=Window(tmp_path, BACKEND)
    )
    with pytest.raises(WindowOpen, match="news cannot be stopped") as caught:
        preflight.check_backend(session)
    assert "--rm" in caught.value.why
    assert "compose" in caught.value.todo
    assert outside.calls == []


def test_at_the_window(tmp_path: Path) -> None:
    outside = Outside(removes_itself=True)
    window = Window(tmp_path, BACKEND, world=outside)
    with pytest.raises(WindowOpen, match="news cannot be stopped"):
        window.open()
    assert not window.is_open
    assert outside.calls == []


def test_made_anew_while_only_its_switch_was_off(tmp_path: Path) -> None:
    outside = Outside()
    window = Window(tmp_path, BACKEND, world=outside)
    window.open(stop=False)
    outside.container, outside.removes_itself = "c2", True
    with pytest.raises(WindowOpen, match="news cannot be stopped"):
        window.open()
    assert outside.running
    window.close()
    assert (outside.running, outside.llm, window.is_open) == (True, True, False)
