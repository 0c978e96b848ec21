"""What a run does at its end, whatever has become of the engine that its stages ran on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts import stages
from contracts.errors import BackendUnavailable, DockerUnavailable
from driver import pipeline, preflight
from driver.plan import Action, Step
from driver.report.display import Display
from driver.session import Session
from driver.settings import Settings
from driver.window import Window
from tests.unit.window_world import Outside


class Away:
    """A DOUBLE of the stage containers, on an engine that has gone away."""

    def drop(self) -> list[str]:
        raise DockerUnavailable("the Docker engine went away")


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def session(tmp_path: Path, outside: Outside) -> Session:
    """Return a session whose window is open."""
    settings = Settings.model_validate(
        {
            "workspace": str(tmp_path),
            "snapshot": {"items": ["items.jsonl"]},
            "fetch": {"path": str(tmp_path)},
            "backend": {"url": "http://127.0.0.1:9", "container": "news"},
        }
    )
    made = Session(settings, Display())
    containers: Any = Away()
    made.containers = containers
    made.window = Window(tmp_path, settings.backend, "http://ollama", outside)
    made.window.open()
    return made


def test_the_service_comes_back_although_the_stages_engine_is_away(
    session: Session, outside: Outside, capsys: pytest.CaptureFixture[str]
) -> None:
    session.bring_back()
    assert outside.running
    assert not session.window.is_open
    assert "a stage may be at work still: the Docker engine went away" in capsys.readouterr().out


def test_a_service_that_does_not_come_back_is_waited_for_once(
    session: Session, outside: Outside
) -> None:
    outside.healthy = False
    with pytest.raises(BackendUnavailable):
        session.bring_back()
    calls = list(outside.calls)
    session.bring_back()
    assert outside.calls == calls
    assert session.window.is_open


def test_a_service_that_is_still_away_is_away_until_now(session: Session) -> None:
    ((since, until),) = session.window.absences()
    assert since <= until
    session.bring_back()
    assert session.window.absences() == session.window.away
    ((_, back),) = session.window.away
    assert back >= until


def test_the_settings_of_a_run_are_for_its_user_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose's variables are among them."""
    monkeypatch.setattr(preflight, "check", lambda *_: None)
    session.begin([])
    kept = session.run.folder / "settings.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert Settings.model_validate_json(kept.read_bytes()) == session.settings
    session.bring_back()


def test_a_run_of_one_stage_notes_its_end(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that, it would look like one whose driver has died."""
    monkeypatch.setattr(preflight, "check", lambda *_: None)
    made: Any = object()
    monkeypatch.setattr(pipeline, "_do", lambda *_: made)
    step = Step(session.request(stages.SPLIT), Action.RUN, "asked for", "f" * 16, {}, None)
    assert pipeline._alone(session, step) is made
    noted = session.run.read_state()
    assert noted.ended_at
    assert noted.failure is None

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_do", fail)
    with pytest.raises(KeyboardInterrupt):
        pipeline._alone(session, step)
    failure = session.run.read_state().failure
    assert failure is not None
    assert failure.exit_code == 130
