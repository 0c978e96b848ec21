"""`driver models`, as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import files
from contracts.params import DeployMetrics
from driver import promotion, records, unfinished, verification, versions
from driver.report import models
from driver.window_record import RECORD_FILE
from serving import connect
from serving.engine import Engine
from tests.unit.test_versions import RUNS, TASK, live, released


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = connect({"RETRAIN_ENGINE": "llamacpp"}, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("why", ["as in [ops-12]", "agreed [/OPS-12]", "[red]all[/red] of us"])
def test_a_reason_is_shown_as_it_was_given(
    tmp_path: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    why: str,
) -> None:
    """What stands in square brackets is no markup."""
    released(tmp_path, engine, RUNS[0], force=why)
    monkeypatch.setenv("COLUMNS", "250")
    models.show(versions.versions(tmp_path, engine, "news"), "news", live(engine))
    assert f"forced: {why} (" in capsys.readouterr().out


def test_what_is_live_and_no_version_is_said(
    tmp_path: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Somebody has made the name by hand, or removed the version's own."""
    monkeypatch.setenv("COLUMNS", "250")
    released(tmp_path, engine, RUNS[0])
    models.show(versions.versions(tmp_path, engine, "news"), "news", live(engine))
    assert "which is no version here" not in capsys.readouterr().out
    (tmp_path / "hand.gguf").write_text("made by hand")
    made = engine.create("news:latest", tmp_path / "hand.gguf", TASK.modelfile())
    digest = versions.live_digest(engine, "news")
    assert digest == made.digest
    models.show(versions.versions(tmp_path, engine, "news"), "news", digest)
    said = capsys.readouterr().out
    assert f"news:latest names digest {digest[:12]}, which is no version here" in said


def test_a_damaged_record_of_what_was_taken_back_hides_no_version(
    tmp_path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    made = released(tmp_path, engine, RUNS[0])
    (tmp_path / records.REJECTED).write_text("{")
    found = versions.versions(tmp_path, engine, "news")
    models.show(found, "news", live(engine), unfinished.unfinished(tmp_path, live(engine)))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(made.tag)
    assert said[3] == "! No version is shown as taken back, whether it was or not."
    assert said[4] == f"! {tmp_path / records.REJECTED} is damaged"


def test_what_a_kill_has_left_unfinished_is_said(
    tmp_path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the verification of a model that an older version is, too, behind a stopped service."""
    older = released(tmp_path, engine, RUNS[0])
    newer = released(tmp_path, engine, RUNS[1], content=RUNS[0])
    assert older.digest == newer.digest
    _cut_off(tmp_path, engine, newer)
    (tmp_path / RECORD_FILE).write_text("{}")
    switch = promotion.Switch(alias=newer.alias, version=newer.tag, previous="", engine={})
    files.write_json(tmp_path / promotion.RECORD, switch.model_dump())
    models.show(
        versions.versions(tmp_path, engine, "news"),
        "news",
        live(engine),
        unfinished.unfinished(tmp_path, live(engine)),
    )
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("GB  live, not verified")
    assert said[3].endswith(f"GB  same model as {newer.tag}")
    verifies, switches, stopped = [line for line in said if line.startswith("!")]
    assert verifies == (
        f"! {newer.tag} is not verified, its verification is not finished: `driver run` verifies "
        "it, or takes it back; `driver recover` takes it back."
    )
    assert switches.startswith(f"! news:latest is being switched to {newer.tag}: the next run, or ")
    assert "`driver recover` brings it back" in stopped


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("", "{} was not verified, and is not live any more: the next run, or"),
        (RUNS[1], "The verification of {} was cut off, but it had passed one before, or"),
    ],
)
def test_after_a_rollback_is_said_what_the_next_start_will_do(
    tmp_path: Path, engine: Engine, wanted: str, said: str
) -> None:
    """Nothing takes back what is not live any more, or what somebody has asked for."""
    older, newer = (released(tmp_path, engine, run) for run in RUNS[:2])
    _cut_off(tmp_path, engine, newer)
    versions.roll_back(tmp_path, engine, "news", wanted)
    found = unfinished.unfinished(tmp_path, live(engine))
    (line,) = found.lines
    assert line.startswith(said.format(newer.tag))
    assert found.version == ("" if wanted else newer.tag)
    told: list[str] = []
    verification.settle(tmp_path, told.append, unfinished=True)
    assert live(engine) == (newer if wanted else older).digest
    assert verification.read(tmp_path) is None
    assert ("NOT ROLLED BACK" in " ".join(told)) == bool(wanted)


def _cut_off(root: Path, engine: Engine, deployed: DeployMetrics) -> None:
    """Leave the record of a verification that has not come to its end."""
    record = verification.Record(
        alias=deployed.alias,
        version=deployed.tag,
        digest=deployed.digest,
        previous="",
        backend="",
        canaries="",
        timeout_s=1,
        engine=promotion.environment(engine),
    )
    files.write_json(root / verification.RECORD, record.model_dump())
