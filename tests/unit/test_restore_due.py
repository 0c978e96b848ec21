"""When a restore that has finished once is due again: a kill may have kept it from its work."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts import files, stages
from contracts.stage import Result, Stage
from driver.report.display import Display
from driver.session import Session
from driver.settings import Settings
from tests.jobs import job_of


def session(folder: Path, model: str = "", **backend: object) -> Session:
    """Return a session whose backend is compose's, asking `model`, or a container."""
    made = {"folder": "/srv/news", "service": "backend", "environment": {"OLLAMA_MODEL": model}}
    given = {"workspace": str(folder), "snapshot": {"items": ["items.jsonl"]}}
    fetch = {"path": str(folder)}
    where = {"compose": made} if model else {"container": "news"}
    return Session(
        Settings.model_validate({**given, "fetch": fetch, "backend": {**where, **backend}}),
        Display(),
    )


def finish(it: Session, stage: Stage, fingerprint: str, minute: int) -> Result:
    """Leave a stage's result behind, of the given minute."""
    metrics: dict[str, object] = {"away_s": 1.0}
    if stage is stages.DEPLOY:
        metrics = {"tag": "m:1", "alias": "m:latest", "digest": "d"}
    result = Result(
        stage=stage.name,
        fingerprint=fingerprint,
        outputs={},
        metrics=metrics,
        seconds=1,
        finished_at=f"2026-01-01T00:{minute:02}:00+00:00",
    )
    job = job_of(stage, fingerprint=fingerprint)
    place = it.store.prepare(job).parent / "result.json"
    files.write_json(place, result.model_dump(mode="json"))
    return result


@pytest.mark.parametrize(
    ("model", "deployed", "said"),
    [
        ("m", 4, ""),
        ("m", 6, "a model has been deployed since"),
        ("", 6, ""),
    ],
)
def test_a_restore_is_due_after_a_deployment(
    tmp_path: Path, model: str, deployed: int, said: str
) -> None:
    it = session(tmp_path, model)
    finish(it, stages.DEPLOY, "d", deployed)
    assert it.still_true(stages.RESTORE, finish(it, stages.RESTORE, "r", 5)) == said


def test_a_restore_is_due_when_the_settings_go_back(tmp_path: Path) -> None:
    it = session(tmp_path, "old")
    before = finish(it, stages.RESTORE, "r-old", 5)
    finish(it, stages.RESTORE, "r-new", 6)
    said = "the service has been restored with other settings since"
    assert it.still_true(stages.RESTORE, before) == said


def test_what_compose_makes_the_service_with_identifies_a_restore(tmp_path: Path) -> None:
    asked = [
        session(tmp_path, model).request(stages.RESTORE).environment for model in ("old", "new")
    ]
    assert asked[0] != asked[1]
    assert "old" not in asked[0], "its variables may hold secrets"
    assert session(tmp_path).request(stages.RESTORE).environment == ""
