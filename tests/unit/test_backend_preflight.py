"""A backend that a stop would destroy (`--rm`) is refused before anything is touched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import BackendUnavailable, SettingsInvalid, WindowOpen
from contracts.stage import Stage
from contracts.stages import REPROCESS, SNAPSHOT, VERIFY
from driver import preflight, service
from driver.settings import BackendSettings, Settings
from driver.window import Window
from tasks import load_task
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


def test_one_that_is_paused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "service_for", Outside(paused=True).service)
    session: Any = SimpleNamespace(
        settings=SimpleNamespace(backend=BACKEND), window=Window(tmp_path, BACKEND)
    )
    with pytest.raises(BackendUnavailable, match="news is paused") as caught:
        preflight.check_backend(session)
    assert "`docker unpause news`" in caught.value.todo


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


def _of_no_backend(**changed: Any) -> Any:
    """Return a session of a task that says nothing of a backend; one is there all the same."""
    given = {
        "task": "support_messages",
        "backend": {"container": "news"},
        "fetch": {"path": "/base"},
        "snapshot": {"items": ["items.jsonl"]},
        "verify": {"items": 0},
        "reprocess": {"enabled": False},
    }
    settings = Settings.model_validate({**given, **changed})
    task = load_task(settings.task)
    return SimpleNamespace(settings=settings, backend_url="http://127.0.0.1:9", task=task)


@pytest.mark.parametrize(
    ("changed", "stage"),
    [
        ({"snapshot": {"source": "backend"}}, SNAPSHOT),
        ({"verify": {"items": 2}}, VERIFY),
        ({"reprocess": {"enabled": True}}, REPROCESS),
    ],
)
def test_a_task_of_no_backend_is_refused(changed: dict[str, Any], stage: Stage) -> None:
    session = _of_no_backend(**changed)
    with pytest.raises(SettingsInvalid, match="support_messages") as refused:
        preflight._check_given(session, [stage])
    assert list(preflight.doubts(session, [stage])) == [str(refused.value)]  # so says a plan


def test_a_task_of_no_backend_runs_where_none_is_asked() -> None:
    session = _of_no_backend()
    preflight._check_given(session, [VERIFY, REPROCESS])
    assert list(preflight.doubts(session, [VERIFY, REPROCESS])) == []
