"""Whether an evaluation and a reprocess still hold, for whatever has come in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.params import EvaluateMetrics, VerifyMetrics
from contracts.stage import InputRef, Result, Stage
from contracts.stages import DEPLOY, EVALUATE, REPROCESS, RESTORE, VERIFY
from driver import preflight
from driver.agreement import still_true
from driver.host_stages.outcomes import Outcomes
from driver.host_stages.record import Record
from driver.report.display import Display
from driver.session import Session
from driver.settings import Settings
from driver.store import Store
from serving.engine import Model
from tests.jobs import job_of
from tests.services.running_backend import RunningBackend
from tests.unit.scripted_engine import ScriptedEngine
from tests.unit.verification_world import Killed, kill

ALIAS = "liga:latest"
BOTH = ("verify", "restore")
FIXED = {"OLLAMA_MODEL": "qwen3:14b"}
"""What a compose file comes to that fixes the model."""


def session(folder: Path, live: str, *, force: str = "", **more: object) -> Session:
    settings = Settings.model_validate(
        {
            "workspace": str(folder),
            "snapshot": {"items": ["items.jsonl"]},
            "fetch": {"path": str(folder)},
            "deploy": {"name": "liga", "force": force},
            **more,
        }
    )
    made, engine = Session(settings, Display()), ScriptedEngine(lambda *_: "")
    engine.tags[ALIAS] = Model(ALIAS, live, 1)
    made.__dict__["engine"] = engine
    return made


def evaluated(silent: str = "", engine: str = "") -> Result:
    models = {"candidate": "c4", "champion": "b7", "baseline": "a1"}
    metrics = EvaluateMetrics(
        rows=1,
        valid=1,
        promote=not silent,
        scores={},
        silent=silent,
        models=models,
        engine=engine,
    )
    return Result(
        stage=EVALUATE.name,
        fingerprint="f",
        finished_at="2026-11-27T21:00:00Z",
        seconds=1.0,
        outputs={},
        metrics=metrics.model_dump(mode="json"),
    )


@pytest.mark.parametrize("live", ["b7", "c4"])
def test_an_evaluation_holds_while_one_that_took_part_is_live(tmp_path: Path, live: str) -> None:
    assert still_true(session(tmp_path, live), EVALUATE, evaluated()) == ""


@pytest.mark.parametrize("live", ["e5", "a1"])
def test_another_model_that_is_live_is_compared_with(tmp_path: Path, live: str) -> None:
    told = still_true(session(tmp_path, live), EVALUATE, evaluated())
    assert told == "another model is live now"


@pytest.mark.parametrize("asked", ["llamacpp", "http://gpu1:11434"])
def test_what_is_to_go_to_another_engine_is_evaluated_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """Not where it is live there already."""
    monkeypatch.setenv("OLLAMA_HOST", "localhost")
    told = still_true(session(tmp_path, "b7"), EVALUATE, evaluated(engine=asked))
    assert told == f"the serving engine is http://localhost:11434 now, and was {asked}"
    assert still_true(session(tmp_path, "c4"), EVALUATE, evaluated(engine=asked)) == ""
    same = evaluated(engine="http://127.0.0.1:11434")
    assert still_true(session(tmp_path, "b7"), EVALUATE, same) == ""


def test_a_champion_that_gave_no_answer_is_asked_again(tmp_path: Path) -> None:
    """It may have been the engine; else a fault of a night would refuse the candidate for good."""
    told = still_true(session(tmp_path, "b7"), EVALUATE, evaluated(silent="b7"))
    assert told == "the live model gave too few answers to compare with"


@pytest.mark.parametrize(("live", "force"), [("b7", "it is broken"), ("c4", "")])
def test_who_replaces_a_broken_champion_does_not_wait_for_it(
    tmp_path: Path, live: str, force: str
) -> None:
    found = session(tmp_path, live, force=force)
    assert still_true(found, EVALUATE, evaluated(silent="b7")) == ""


# --- reprocess -----------------------------------------------------------------------------------
URL = "http://127.0.0.1:9"  # nobody answers there
BACKEND: dict[str, Any] = {"backend": {"url": URL, "container": "news"}}
METRICS: dict[str, dict[str, object]] = {
    "deploy": {"tag": "liga:1", "alias": ALIAS, "digest": "a", "previous": ""},
    "reprocess": {"processed": 1, "failed": 0, "left_out": 0},
}


def executed(root: Path, stage: Stage, model: str, at: str, *, moved: bool = True) -> Result:
    """Leave an execution of a stage with a model behind, by a run that is named by its moment."""
    gguf = InputRef(path="model.gguf", digest=model, bytes=1)
    named = datetime.fromisoformat(at).strftime("%Y%m%d-%H%M%S")
    job = job_of(stage, inputs={"gguf": gguf}, fingerprint=f"{stage.name}{model}", run=named)
    place = Store(root).prepare(job).parent
    result = Result(
        stage=stage.name,
        fingerprint=job.fingerprint,
        outputs={},
        metrics=METRICS[stage.name] | ({"moved": moved} if stage is DEPLOY else {}),
        seconds=1,
        finished_at=at,
    )
    files.write_json(place / "result.json", result.model_dump(mode="json"))
    return result


def asked_about(root: Path, run: str, model: str, *, whole: bool, url: str = URL) -> Record:
    """Let a run have items analysed by a model: for its verification, or all of them."""
    record = Record.of_model(root, run, model, url)
    states = {"1": {"id": "1", "title": "t", "is_manually_reviewed": False}}
    record.begin(run, model, url, states, 1, canaries=() if whole else ["1"])
    if whole:
        files.write_jsonl(record.folder / "outcomes.jsonl", [{"finished": True, "run": run}])
    return record


def test_a_reprocess_holds_until_somebody_else_has_a_say(tmp_path: Path) -> None:
    result = executed(tmp_path, REPROCESS, "A", "2026-01-01T13:00:00+00:00")
    executed(tmp_path, DEPLOY, "A", "2026-01-01T12:00:00+00:00")
    record = asked_about(tmp_path, "20260101-120000", "A", whole=True)
    it = session(tmp_path, "a", **BACKEND)
    assert still_true(it, REPROCESS, result) == ""
    asked_about(tmp_path, "20260201-120000", "B", whole=False)
    assert still_true(it, REPROCESS, result) == "items have another model's answers now"
    asked_about(tmp_path, "20260301-120000", "A", whole=True)
    assert still_true(it, REPROCESS, result) == "", "done once more"
    record.restored()
    assert still_true(it, REPROCESS, result) == "the items have got back what they held before"
    record = asked_about(tmp_path, "20260401-120000", "A", whole=True)
    record.folder.joinpath("outcomes.jsonl").write_text("", encoding="utf-8")
    assert still_true(it, REPROCESS, result) == "its last start was interrupted"


@pytest.mark.parametrize(
    ("model", "moved", "told"),
    [
        ("A", True, "a model has been deployed since"),
        ("A", False, ""),
        ("B", False, "a model has been deployed since"),
    ],
)
def test_a_reprocess_from_before_a_deployment_is_made_again(
    tmp_path: Path, model: str, *, moved: bool, told: str
) -> None:
    """Items that came in meanwhile have the answers of whom that deployment has replaced.

    Not where the deployment only found the model live: the stage's code has changed, say.
    """
    result = executed(tmp_path, REPROCESS, "A", "2026-01-01T13:00:00+00:00")
    asked_about(tmp_path, "20260101-120000", "A", whole=True)
    executed(tmp_path, DEPLOY, model, "2026-02-01T12:00:00+00:00", moved=moved)
    assert still_true(session(tmp_path, "a", **BACKEND), REPROCESS, result) == told


def test_a_repetition_counts_once_it_is_finished(tmp_path: Path) -> None:
    """The result is there from before, and its job bears the repetition's name from its start."""
    result = executed(tmp_path, REPROCESS, "A", "2026-03-01T13:00:00+00:00")
    executed(tmp_path, DEPLOY, "A", "2026-02-01T12:00:00+00:00")
    asked_about(tmp_path, "20260101-130000", "A", whole=True)
    it = session(tmp_path, "a", **BACKEND)
    told = still_true(it, REPROCESS, result)
    assert told == "a model has been deployed since", "killed before it had begun"
    asked_about(tmp_path, "20260302-120000", "B", whole=True)
    asked_about(tmp_path, "20260303-120000", "A", whole=False)  # to be verified, after a rollback
    assert still_true(it, REPROCESS, result) == "not every item was asked about"
    off = session(tmp_path, "a", **BACKEND, reprocess={"enabled": False})
    assert still_true(off, REPROCESS, result) == ""


def test_a_repetition_of_an_older_driver_counts_by_its_result(tmp_path: Path) -> None:
    """Its record names no run. The job names one that came later, and was killed."""
    result = executed(tmp_path, REPROCESS, "A", "2026-01-01T13:00:00+00:00")
    record = asked_about(tmp_path, "20260101-130000", "A", whole=True)
    files.write_jsonl(record.folder / "outcomes.jsonl", [{"finished": True}])
    executed(tmp_path, DEPLOY, "A", "2026-02-01T12:00:00+00:00")
    executed(tmp_path, REPROCESS, "A", "2026-03-01T13:00:00+00:00")
    it = session(tmp_path, "a", **BACKEND)
    assert still_true(it, REPROCESS, result) == "a model has been deployed since"


def test_a_reprocess_of_another_backend_is_none_of_this_one(tmp_path: Path) -> None:
    result = executed(tmp_path, REPROCESS, "A", "2026-01-01T13:00:00+00:00")
    moved = "http://me:secret@127.0.0.1:8/"
    asked_about(tmp_path, "20260101-130000", "A", whole=True, url="http://me:secret@127.0.0.1:8")
    here = session(tmp_path, "a", backend={"url": moved, "container": "news"})
    assert still_true(here, REPROCESS, result) == ""
    told = still_true(session(tmp_path, "a", **BACKEND), REPROCESS, result)
    assert told == "it was done in another backend, http://127.0.0.1:8"


def test_a_run_notes_whom_the_backend_has_asked_before_anything_is_changed(
    tmp_path: Path, start_backend: Callable[..., RunningBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, or refused, when it asks the right one again, the items are still to be done."""
    other, right = (start_backend([], OLLAMA_MODEL=model).url for model in ("qwen3:14b", "liga"))
    result = executed(tmp_path, REPROCESS, "A", "2026-01-01T13:00:00+00:00")
    record = asked_about(tmp_path, "20260101-130000", "A", whole=True, url=right)
    outcomes = record.folder / "outcomes.jsonl"
    outcomes.write_text(outcomes.read_text() + '{"due": "cut')
    it = session(tmp_path, "a", backend={"url": right, "container": "news"})
    assert still_true(it, REPROCESS, result) == ""
    monkeypatch.setattr(preflight, "check", kill)  # the first that a run does
    for url in (other, right, other):
        begun = session(tmp_path, "a", backend={"url": url, "container": "news"})
        with pytest.raises(Killed):
            begun.begin([])
    assert still_true(it, REPROCESS, result) == "the backend has asked qwen3:14b"
    assert len(record.lines()) == 2, "noted once"
    Outcomes(record.folder)
    assert still_true(it, REPROCESS, result) == "its last start was interrupted"


def test_a_damaged_record_of_an_older_reprocess_is_no_matter(tmp_path: Path) -> None:
    result = executed(tmp_path, REPROCESS, "A", "2026-01-01T13:00:00+00:00")
    older = asked_about(tmp_path, "20250101-120000", "B", whole=True)
    asked_about(tmp_path, "20260101-130000", "A", whole=True)
    (older.folder / "about.json").write_text("{", encoding="utf-8")
    assert still_true(session(tmp_path, "a", **BACKEND), REPROCESS, result) == ""


def test_a_reprocess_of_before_there_was_a_backend_is_made_once_there_is_one(
    tmp_path: Path,
) -> None:
    result = executed(tmp_path, REPROCESS, "A", "2026-01-01T13:00:00+00:00")
    assert still_true(session(tmp_path, "a"), REPROCESS, result) == ""
    assert (
        still_true(session(tmp_path, "a", **BACKEND), REPROCESS, result)
        == "it was done without a backend"
    )


# --- verify --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("asks", "environment", "told"),
    [
        ("liga", {}, {"verify": "", "restore": ""}),
        ("qwen3:14b", {}, {"verify": "the backend asks qwen3:14b", "restore": ""}),
        ("", {}, {"verify": "the backend asks no model", "restore": ""}),
        ("qwen3:14b", {"OLLAMA_MODEL": "liga"}, dict.fromkeys(BOTH, "the backend asks qwen3:14b")),
        ("qwen3:14b", FIXED, {"verify": "the backend asks qwen3:14b", "restore": ""}),
    ],
)
def test_a_backend_that_was_made_anew_to_ask_another_model_is_noticed(
    tmp_path: Path,
    start_backend: Callable[..., RunningBackend],
    monkeypatch: pytest.MonkeyPatch,
    asks: str,
    environment: dict[str, str],
    told: dict[str, str],
) -> None:
    """Long after the run: then its readers get that one's answers. Compose can mend it, or not.

    What it comes to is a double here: tests/docker/test_backend_containers.py asks compose.
    """
    monkeypatch.setattr("driver.service.model_asked_anew", lambda _: environment["OLLAMA_MODEL"])
    url = start_backend([], OLLAMA_MODEL=asks).url
    backend: dict[str, Any] = {"url": url}
    if environment:
        compose = {"folder": str(tmp_path), "service": "news", "environment": environment}
        backend["compose"] = compose
    else:
        backend["container"] = "news"
    it = session(tmp_path, "a", backend=backend)
    metrics = VerifyMetrics(model=ALIAS, digest="a", fields=9, answer={}).model_dump(mode="json")
    asked_about(tmp_path, "20260101-120000", "A", whole=True, url=url)
    reprocessed = executed(tmp_path, REPROCESS, "A", "2026-01-01T13:00:00+00:00")
    assert still_true(it, REPROCESS, reprocessed) == told["verify"]
    for stage, given in ((VERIFY, metrics), (RESTORE, {})):
        result = evaluated().model_copy(update={"stage": stage.name, "metrics": given})
        assert still_true(it, stage, result) == told[stage.name]


def test_a_restore_that_cannot_mend_it_says_what_does(
    tmp_path: Path, start_backend: Callable[..., RunningBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driver.service.model_asked_anew", lambda _: "qwen3:14b")
    url = start_backend([], OLLAMA_MODEL="qwen3:14b").url
    it = session(
        tmp_path, "a", backend={"url": url, "compose": {"folder": str(tmp_path), "service": "news"}}
    )
    said: list[str] = []
    monkeypatch.setattr(it.window, "close", lambda **_: None)  # no container here
    monkeypatch.setattr(it.display, "warn", said.append)
    context: Any = None
    it._restore(context)
    (told,) = said
    assert told.startswith("the backend asks qwen3:14b, not the deployed model liga")
    assert "into the service's environment in the compose file" in told


def test_a_backend_that_is_away_is_no_reason_to_verify_again(tmp_path: Path) -> None:
    it = session(tmp_path, "a", backend={"url": "http://127.0.0.1:9", "container": "news"})
    metrics = VerifyMetrics(model=ALIAS, digest="a", fields=9, answer={}).model_dump(mode="json")
    result = evaluated().model_copy(update={"stage": VERIFY.name, "metrics": metrics})
    assert still_true(it, VERIFY, result) == ""
