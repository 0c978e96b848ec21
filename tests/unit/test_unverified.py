"""A model that has gone live without a verdict is known before the switch, through any kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts import files, stages
from contracts.errors import BackendUnavailable, EngineUnavailable, FileUnusable
from contracts.stage import InputRef, Stage
from driver import preflight, promotion, records, recover, taken_back, takeover, verification
from driver.host_stages import deploy
from driver.plan import Action, Step
from driver.report.display import Display
from driver.session import Session
from driver.settings import Settings
from serving import connect
from serving.engine import Engine
from serving.llamacpp import LlamaCpp
from tests.unit.test_versions import RUNS, TASK, live, released


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = connect({"RETRAIN_ENGINE": "llamacpp"}, tmp_path)
    yield made
    made.close()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    settings = Settings.model_validate(
        {
            "workspace": str(tmp_path),
            "runner": "process",
            "engine": "llamacpp",
            "snapshot": {"items": ["items.jsonl"]},
            "fetch": {"path": str(tmp_path)},
            "deploy": {"name": "news"},
        }
    )
    made = Session(settings, Display())
    yield made
    made.close()


def _begun(session: Session, monkeypatch: pytest.MonkeyPatch, *also: Stage) -> Step:
    """Begin a run that deploys a second model, and return the step that does so."""
    root = session.workspace
    (root / "second.gguf").write_text("second")
    made = session.engine.create("news:made", root / "second.gguf", TASK.modelfile())
    session.engine.delete("news:made")
    verdict = {"promote": True, "candidate": made.digest, "findings": []}
    (root / "verdict.json").write_text(json.dumps(verdict))
    given = {
        name: InputRef(
            path=file, digest=files.digest_path(root / file), bytes=files.size_of(root / file)
        )
        for name, file in (("gguf", "second.gguf"), ("verdict", "verdict.json"))
    }
    monkeypatch.setattr(preflight, "check", lambda *_: None)
    step, *more = [
        Step(session.request(stage), Action.RUN, "asked for", f"f-{stage.name}", given)
        for stage in (stages.DEPLOY, *also)
    ]
    session.begin([step, *more])
    return step


_PLACES: list[tuple[Any, str]] = [
    (promotion, "switch"),
    (LlamaCpp, "copy"),
    (LlamaCpp, "unload"),
    (promotion, "_drop"),
    (deploy, "_prune"),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("place", _PLACES, ids=[name for _, name in _PLACES])
def test_recover_takes_back_what_was_not_verified_yet(
    session: Session,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[Any, str],
    *,
    after: bool,
) -> None:
    first = released(session.workspace, engine, RUNS[0])
    step = _begun(session, monkeypatch, stages.VERIFY)
    real = getattr(*place)

    def killed(*given: Any) -> None:
        if after:
            real(*given)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(*place, killed)
        with pytest.raises(Killed):
            session.execute(step)
    said: list[str] = []
    recover.recover(session.workspace, said.append)
    assert live(engine) == first.digest
    assert taken_back.rejected(session.workspace) == [], "it may be tried again"
    for record in (promotion.RECORD, verification.RECORD):
        assert not (session.workspace / record).exists()
    said.clear()
    recover.recover(session.workspace, said.append)
    assert len(said) == 1


def test_a_service_that_stays_away_keeps_no_bad_model_live_in_a_run_either(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = released(session.workspace, engine, RUNS[0])
    session.execute(_begun(session, monkeypatch, stages.VERIFY))
    record = verification.read(session.workspace)
    assert record is not None
    undo = record.model_copy(update={"undo": True})
    files.write_json(session.workspace / verification.RECORD, undo.model_dump())

    def away(_: Session) -> None:
        raise BackendUnavailable("the backend is away")

    monkeypatch.setattr(takeover, "bring_back_first", away)
    with pytest.raises(BackendUnavailable):
        takeover.take_over(session)
    assert live(engine) == first.digest


@pytest.mark.parametrize("place", [(LlamaCpp, "unload"), (deploy, "_prune")])
def test_an_attempt_after_the_switch_knows_what_was_served_before(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str]
) -> None:
    """Not what sorts last: a name made by hand, or a version that never went live."""
    first = released(session.workspace, engine, RUNS[0])
    for tag in ("news:try", "news:before-0815", f"news:{RUNS[1]}"):
        (session.workspace / "other.gguf").write_text(tag)
        engine.create(tag, session.workspace / "other.gguf", TASK.modelfile())
    step = _begun(session, monkeypatch, stages.VERIFY)
    real, owner = getattr(*place), place[0]
    failures = [EngineUnavailable("the engine is away for a moment")]

    def once(*given: Any, **named: Any) -> Any:
        switched = live(engine) != first.digest
        if failures and switched:
            raise failures.pop()
        return real(*given, **named)

    monkeypatch.setattr(owner, place[1], once)
    changed = {"retry": session.settings.retry.model_copy(update={"times": 1, "pause_s": 0.01})}
    session.settings = session.settings.model_copy(update=changed)
    result = session.execute(step)
    assert not failures
    assert result.metrics["previous"] == first.tag
    record = verification.read(session.workspace)
    assert record is not None
    assert record.previous == first.tag
    recover.recover(session.workspace, lambda _: None)
    assert live(engine) == first.digest


def test_the_next_run_verifies_what_has_gone_live(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    first = released(session.workspace, engine, RUNS[0])
    step = _begun(session, monkeypatch, stages.VERIFY)
    session.execute(step)
    session.fail(Killed())
    assert "is not verified yet" in capsys.readouterr().out
    for next_one in (stages.RESTORE, stages.VERIFY):
        session.prepare(Step(session.request(next_one), Action.RUN, "", "n", {}))
        assert live(engine) != first.digest
    session.prepare(Step(session.request(stages.TRAIN), Action.RUN, "", "t", {}))
    assert live(engine) == first.digest
    assert "ROLLED BACK: news:latest is" in capsys.readouterr().out


def test_a_deployment_alone_is_not_to_be_verified(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`driver stage deploy`: nobody has asked for more."""
    first = released(session.workspace, engine, RUNS[0])
    session.execute(_begun(session, monkeypatch))
    assert verification.read(session.workspace) is None
    recover.recover(session.workspace, lambda _: None)
    assert live(engine) != first.digest


def test_what_is_live_and_verified_is_not_taken_back_for_a_new_version_of_it(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(session.workspace, engine, RUNS[0])
    second = released(session.workspace, engine, RUNS[1], content="second")
    step = _begun(session, monkeypatch, stages.VERIFY)
    with monkeypatch.context() as patched:
        patched.setattr(deploy, "_prune", _kill)
        with pytest.raises(Killed):
            session.execute(step)
    recover.recover(session.workspace, lambda _: None)
    assert live(engine) == second.digest


def test_the_first_model_that_never_went_live_leaves_nothing_behind(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = _begun(session, monkeypatch, stages.VERIFY)
    with monkeypatch.context() as patched:
        patched.setattr(promotion, "switch", _kill)
        with pytest.raises(Killed):
            session.execute(step)
    said: list[str] = []
    recover.recover(session.workspace, said.append)
    assert not any("ROLLED BACK" in line for line in said)
    assert verification.read(session.workspace) is None


def _kill(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize(
    "file", [records.PROMOTION, records.VERIFICATION, records.REJECTED, records.SERVED]
)
def test_no_run_begins_while_a_damaged_record_waits_for_somebody(
    session: Session, file: str
) -> None:
    (session.workspace / file).write_text("{")
    for _ in range(2):
        with pytest.raises(FileUnusable, match=rf"{file}\.damaged-1"):
            takeover.take_over(session)
    (session.workspace / f"{file}.damaged-1").unlink()
    takeover.take_over(session)
