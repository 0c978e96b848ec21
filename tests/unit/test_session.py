"""What a run does at its end, whatever has become of the engine that its stages ran on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts import stages
from contracts.errors import BackendUnavailable, DockerUnavailable
from contracts.stage import Stage
from driver import pipeline, preflight, recover, takeover
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


class AtWork:
    """A DOUBLE of the stage containers: the training of a run that died, under a fingerprint."""

    def __init__(self) -> None:
        self.left = ["f" * 16]

    def at_work(self) -> list[str]:
        return ["train" for _ in self.left]

    def drop(self, *, keep: Sequence[str] = ()) -> list[str]:
        dropped = [each for each in self.left if each not in keep]
        self.left = [each for each in self.left if each in keep]
        return ["train" for _ in dropped]

    def drop_former(self) -> list[str]:
        return []


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


def at_work(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stage of the run that has left the window open be at work still."""
    monkeypatch.setattr(recover, "stop_stages", lambda *_, **__: [])
    containers: Any = AtWork()
    session.containers = containers
    takeover.bring_back_first(session)
    assert session.window.is_open  # until there is a plan


def step_of(session: Session, stage: Stage, fingerprint: str) -> Step:
    return Step(session.request(stage), Action.RUN, "asked for", fingerprint, {}, None)


def test_the_service_stays_away_for_a_stage_that_the_plan_goes_on_with(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_work(session, monkeypatch)
    session.drop_leftovers([step_of(session, stages.TRAIN, "f" * 16)])
    assert session.window.is_open
    assert "this run goes on with both" in capsys.readouterr().out
    session.bring_back()


def test_the_service_comes_back_before_a_plan_that_drops_the_stage(
    session: Session,
    outside: Outside,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_work(session, monkeypatch)
    session.drop_leftovers([step_of(session, stages.TRAIN, "e" * 16)])
    assert outside.running
    assert not session.window.is_open
    assert "goes on with both" not in capsys.readouterr().out


def test_a_reprocess_stops_the_stage_and_has_the_service(
    session: Session, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work(session, monkeypatch)
    step = step_of(session, stages.REPROCESS, "d" * 16)
    monkeypatch.setattr(pipeline, "_reprocess_step", lambda _: step)
    seen: list[bool] = []
    monkeypatch.setattr(pipeline, "_alone", lambda *_: seen.append(outside.running))
    pipeline.reprocess(session)
    assert seen == [True]
    assert session.containers is not None
    assert not session.containers.at_work()
