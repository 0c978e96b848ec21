"""What a run does with a backend that could not store what the task defines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts import stages
from contracts.errors import TaskDrifted
from driver import __main__ as cli
from driver import pipeline, preflight
from driver.plan import Action, Step
from driver.report.display import Display
from driver.session import Session
from driver.settings import Settings
from driver.store import Run
from driver.task.check import at_run
from tests.services.running_backend import RunningBackend
from tests.unit.checkout import ENUMS, PROCESSOR, TYPES, change


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    service = RunningBackend(tmp_path_factory.mktemp("backend"), [])
    service.start()
    yield service
    service.kill()


@pytest.fixture
def settings(
    tmp_path: Path, checkout: Path, backend: RunningBackend, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Return settings with a live backend, its checkout, and an engine that is away."""
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    return {
        "workspace": str(tmp_path / "workspace"),
        "runner": "process",
        "snapshot": {"items": ["items.jsonl"]},
        "fetch": {"path": str(tmp_path)},
        "backend": {"url": backend.url, "container": "news", "repository": str(checkout)},
    }


def _session(settings: dict[str, Any], **more: Any) -> Session:
    return Session(Settings.model_validate(settings | more), Display())


def _begin(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check", lambda *_: None)  # asks the GPU, the disk, the engine
    session.begin([Step(session.request(stages.REPROCESS), Action.RUN, "asked for", "f" * 16)])


def test_a_backend_that_agrees_is_not_spoken_of(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert at_run.check(_session(settings), [stages.REPROCESS]) == []
    assert capsys.readouterr().out == ""


def test_what_would_break_refuses_the_run_before_it_is_recorded(
    settings: dict[str, Any], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(checkout, ENUMS, '    MEDIUM = "medium"\n', "")
    session = _session(settings)
    with pytest.raises(TaskDrifted, match="would break production") as caught:
        _begin(session, monkeypatch)
    assert caught.value.exit_code == 44
    assert f"{ENUMS}:6: enum Priority does not know medium" in caught.value.why
    assert "--accept-drift" in caught.value.todo
    assert Run.last(session.workspace) is None
    [doubt] = at_run.doubts(session, [stages.REPROCESS])
    assert "does not know medium" in doubt, "plan says so, too"


def test_what_is_accepted_is_told_and_noted(
    settings: dict[str, Any],
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(checkout, ENUMS, '    MEDIUM = "medium"\n', "")
    session = _session(settings, accept_drift=True)
    _begin(session, monkeypatch)
    [noted] = session.run.read_state().accepted_drift
    assert "does not know medium" in noted
    assert "accepted: " in capsys.readouterr().out


def test_what_breaks_nothing_is_counted(
    settings: dict[str, Any], checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkout, TYPES, "  reasoning: string | null\n", "")
    change(checkout, PROCESSOR, "Quelle: ", "Source: ")
    assert at_run.check(_session(settings), [stages.REPROCESS]) == []
    said = " ".join(capsys.readouterr().out.split())
    assert "differs from what is outside in 2 places, which breaks nothing" in said


def test_stages_that_store_nothing_ask_nobody(settings: dict[str, Any], checkout: Path) -> None:
    change(checkout, ENUMS, '    MEDIUM = "medium"\n', "")
    assert at_run.check(_session(settings), [stages.LABEL, stages.SPLIT]) == []


def test_a_backend_that_is_away_is_compared_by_its_code_alone(
    settings: dict[str, Any], checkout: Path
) -> None:
    settings["backend"]["url"] = "http://127.0.0.1:9"
    assert at_run.check(_session(settings), [stages.REPROCESS]) == []
    change(checkout, ENUMS, '    MEDIUM = "medium"\n', "")
    with pytest.raises(TaskDrifted):
        at_run.check(_session(settings), [stages.REPROCESS])


def test_the_flag_is_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(pipeline, "run", lambda session: seen.append(session.settings.accept_drift))
    file = tmp_path / "retrain.yaml"
    file.write_text("fetch: {path: /base}\nsnapshot: {items: [items.jsonl]}\n")
    for flags in ([], ["--accept-drift"]):
        assert cli.main(["run", "-c", str(file), "-w", str(tmp_path / "w"), *flags]) == 0
    assert seen == [False, True]
