"""deploy on the llama.cpp engine's real store: versions, alias, what was live before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import CandidateRefused
from contracts.params import (
    DeployMetrics,
    DeployParams,
)
from contracts.stage import InputRef
from contracts.stages import (
    DEPLOY,
)
from driver import promotion, taken_back
from driver.host_stages import deploy
from serving import connect
from serving.engine import Engine
from tasks import load_task
from tests.jobs import job_of

TASK = load_task("liga_relevance")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = connect({"RETRAIN_ENGINE": "llamacpp"}, tmp_path)
    yield made
    made.close()


def run(
    root: Path,
    engine: Engine,
    name: str,
    content: str,
    *,
    promote: bool = True,
    force: str = "",
    keep: int = 3,
) -> DeployMetrics:
    """Deploy a file that stands for a GGUF: the store only keeps it, nobody loads it here."""
    (root / "model.gguf").unlink(missing_ok=True)
    (root / "model.gguf").write_text(content, encoding="utf-8")
    made = engine.create(f"news:{name}", root / "model.gguf", TASK.modelfile())
    finding = {"rule": "valid", "passed": promote, "text": "valid 0.5 is below 0.99"}
    verdict = {"promote": promote, "candidate": made.digest, "findings": [finding]}
    if not promote and not force:
        engine.delete(made.tag)  # a refusal makes none
    (root / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    inputs = {
        artifact: InputRef(path=file, digest=files.digest_path(root / file), bytes=1)
        for artifact, file in (("gguf", "model.gguf"), ("verdict", "verdict.json"))
    }
    job = job_of(DEPLOY, inputs=inputs, run=name)
    params = DeployParams(name="news", force=force, keep=keep)
    return deploy.work(StageContext(DEPLOY, job, params, root, root, lambda _: None), engine)


def live(engine: Engine) -> str:
    return engine.models()["news:latest"].digest


def test_a_version_and_an_alias(tmp_path: Path, engine: Engine) -> None:
    first = run(tmp_path, engine, "run-1", "one")
    assert (first.tag, first.alias, first.previous) == ("news:run-1", "news:latest", "")
    assert live(engine) == first.digest == engine.models()["news:run-1"].digest
    assert deploy.disagreement(first, engine) == ""


def test_what_was_live_can_come_back(tmp_path: Path, engine: Engine) -> None:
    first = run(tmp_path, engine, "run-1", "one")
    second = run(tmp_path, engine, "run-2", "two")
    assert second.previous == "news:run-1"
    assert live(engine) == second.digest
    promotion.switch(tmp_path, engine, second.alias, second.previous)
    assert live(engine) == first.digest
    assert "another model" in deploy.disagreement(second, engine)


def test_an_attempt_that_was_killed_after_the_switch_still_knows_what_was_before(
    tmp_path: Path, engine: Engine
) -> None:
    first = run(tmp_path, engine, "run-1", "one")
    run(tmp_path, engine, "run-2", "two")
    again = run(tmp_path, engine, "run-3", "two")
    assert again.previous == "news:run-1"
    assert engine.models()[again.previous].digest == first.digest


def test_a_model_made_by_hand_keeps_a_name(tmp_path: Path, engine: Engine) -> None:
    run(tmp_path, engine, "run-1", "one")
    engine.delete("news:run-1")
    by_hand = live(engine)
    second = run(tmp_path, engine, "run-2", "two")
    assert second.previous == f"news:before-{by_hand[:12]}"
    assert engine.models()[second.previous].digest == by_hand


def test_attempts_at_one_model_cost_no_older_one(tmp_path: Path, engine: Engine) -> None:
    """Deployments that were killed leave its file under the names of their runs."""
    runs = [f"2026010{day}-120000" for day in range(1, 8)]
    before = [run(tmp_path, engine, name, name, keep=1) for name in runs[:3]]
    (tmp_path / "again.gguf").write_text("again")
    for name in runs[3:6]:
        engine.create(f"news:{name}", tmp_path / "again.gguf", TASK.modelfile())
    last = run(tmp_path, engine, runs[6], "again", keep=1)
    # The live one, the one before it, and one more.
    left = {model.digest for model in engine.models().values()}
    assert left == {last.digest, before[2].digest, before[1].digest}


def test_what_was_taken_back_costs_no_version_to_go_back_to(tmp_path: Path, engine: Engine) -> None:
    runs = [f"2026010{day}-120000" for day in range(1, 6)]
    good = [run(tmp_path, engine, name, name, keep=1) for name in runs[:2]]
    for name in runs[2:4]:
        bad = run(tmp_path, engine, name, name, keep=1)
        promotion.switch(tmp_path, engine, "news:latest", good[1].tag)
        taken_back.reject(tmp_path, bad.digest)
    last = run(tmp_path, engine, runs[4], runs[4], keep=1)
    left = {model.digest for model in engine.models().values()}
    assert left == {last.digest, *(each.digest for each in good)}


def test_a_refused_candidate_touches_nothing(tmp_path: Path, engine: Engine) -> None:
    first = run(tmp_path, engine, "run-1", "one")
    with pytest.raises(CandidateRefused, match=r"valid 0\.5 is below"):
        run(tmp_path, engine, "run-2", "two", promote=False)
    assert set(engine.models()) == {"news:latest", "news:run-1"}
    assert live(engine) == first.digest


def test_the_gate_can_be_overruled_and_the_deployment_says_why_and_by_whom(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    forced = run(tmp_path, engine, "run-1", "one", promote=False, force="trial day")
    assert forced.forced == "trial day (ada)"
    assert live(engine) == forced.digest
    assert "forced: trial day (ada)" in forced.summary()
    assert run(tmp_path, engine, "run-2", "two", force="not needed").forced == ""
