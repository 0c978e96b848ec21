"""The first lines of a report say what is served now, what broke and what to do."""

from __future__ import annotations

import re
from copy import copy
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from contracts import files, stages
from contracts.errors import EngineUnavailable
from contracts.params import DeployMetrics
from driver import promotion, served, taken_back, verification
from driver.host_stages.outcomes import Outcomes
from driver.host_stages.reanalysis import Outcome, Seen
from driver.host_stages.record import Record
from driver.notes import Notes, named_by
from driver.report.finished import Finished
from driver.settings import BackendSettings
from driver.store import Run
from driver.window import Window
from serving.engine import Model
from tests.unit.finished_run import CANDIDATE, LIVE, FinishedRun
from tests.unit.reported import failure, head, report, run
from tests.unit.scripted_engine import ScriptedEngine
from tests.unit.window_world import Outside

__all__ = ["run"]

ALIAS, BEFORE = "liga-relevance:latest", "liga-relevance:before"
PLANNED = {"state": "planned", "metrics": {}, "error": ""}
LATER = dict.fromkeys(("restore", "verify", "reprocess"), PLANNED)


@pytest.fixture
def version(run: FinishedRun) -> str:
    return f"liga-relevance:{run.run.id}"


def told(run: FinishedRun, **changed: Any) -> tuple[str, dict[str, str]]:
    """Return the verdict of a report, and the labelled lines right below it, in order.

    The serving engine shows what the DOUBLE of the run shows by now.
    """
    changed.setdefault("served", named_by(run.engine, ALIAS).model_dump())
    text = head(report(run, **changed))
    found = re.search(r"<strong>(.*?)</strong>((?:<p><b>.*?</p>)*)", text)
    assert found is not None
    lines = re.findall(r"<p><b>(.*?):</b> (.*?)</p>", found[2])
    return unescape(found[1]), {label: unescape(line) for label, line in lines}


def let_name(run: FinishedRun, digest: str) -> None:
    run.engine.tags[ALIAS] = Model(ALIAS, digest, 15)


def waits(run: FinishedRun, version: str, *, undo: bool = False, items: int = 0) -> None:
    """Write down that the model of the run waits for a verdict, or is being taken back."""
    deployed = DeployMetrics(tag=version, alias=ALIAS, digest=CANDIDATE, previous=BEFORE)
    verification.expect(run.workspace, replaced_by(run, LIVE), "liga_relevance", deployed)
    record = verification.read(run.workspace)
    assert record is not None
    path = run.workspace / "reprocess" / "canaries.jsonl"
    files.write_jsonl(path, [{"id": str(number)} for number in range(items)])
    asked = {"canaries": path.relative_to(run.workspace).as_posix(), "undo": undo}
    files.write_json(
        run.workspace / verification.RECORD, record.model_copy(update=asked).model_dump()
    )


def replaced_by(run: FinishedRun, digest: str) -> ScriptedEngine:
    """Return the run's engine as it was with another model live."""
    engine = copy(run.engine)
    engine.tags = {**engine.tags, ALIAS: Model(ALIAS, digest, 15)}
    return engine


def test_a_model_that_is_taken_back_with_items_left_is_not_called_live(
    run: FinishedRun, version: str
) -> None:
    let_name(run, LIVE)
    waits(run, version, undo=True, items=3)
    error = (
        f"no answer\nROLLED BACK: {ALIAS} is {BEFORE} again.\n"
        "NOT ROLLED BACK to its end: the backend does not answer"
    )
    failed = failure("VerifyFailed", "2 of 3 items break a rule")
    said, lines = told(run, verify={"state": "failed", "error": error}, failure=failed)
    assert said == f"Taken back, but 3 items still have its answers: {version}"
    assert list(lines) == ["Served now", "What broke", "What to do"]
    assert lines["Served now"].startswith(f"{ALIAS} named {BEFORE} (digest b7b7b7b7b7b7) when the")
    assert lines["What broke"] == "2 of 3 items break a rule (because)."
    assert "`python -m driver recover`, ends the taking back" in lines["What to do"]
    assert "NOT ROLLED BACK to its end: the backend does not answer" in head(report(run))


def test_what_could_not_be_taken_back_is_told_as_live(run: FinishedRun, version: str) -> None:
    waits(run, version, undo=True)
    error = "no answer\nNOT ROLLED BACK to its end: the engine does not answer"
    failed = failure("VerifyFailed", "no answer")
    said, lines = told(run, verify={"state": "failed", "error": error}, failure=failed)
    assert said == f"Not verified, and not taken back yet: {version}"
    new = f"{ALIAS} named the new model, {version} (digest c4c4c4c4c4c4), when the run ended"
    assert lines["Served now"].startswith(new)
    assert lines["What to do"].startswith("mend it The next start of the driver, or")


def test_a_failed_verification_of_a_model_verified_earlier_is_no_contradiction(
    run: FinishedRun, version: str
) -> None:
    served.accept(run.workspace, {}, ALIAS, CANDIDATE, served.VERIFIED)
    failed = failure("VerifyUnanswered", "no answer")
    said, lines = told(run, verify={"state": "failed", "error": "no answer"}, failure=failed)
    assert said == f"Not verified, and not taken back: {version}"
    assert lines["Served now"].endswith(
        ", which an earlier run has verified, and this one has not."
    )


def test_a_restore_that_fails_behind_the_deployment(run: FinishedRun, version: str) -> None:
    waits(run, version)
    backend = BackendSettings(url="http://127.0.0.1:9", container="news")
    Window(run.workspace, backend, "http://ollama", Outside()).open()
    failed = failure("BackendUnavailable", "the backend did not become healthy within 600 s")
    restore = {**PLANNED, "state": "failed", "error": "the backend did not become healthy"}
    said, lines = told(run, failure=failed, **{**LATER, "restore": restore})
    live = f"{version} is live, and nobody has verified it"
    assert said == f"Failed in the stage restore: {live}"
    assert lines["Served now"].endswith("which nobody has verified. The service is stopped.")
    assert lines["What broke"] == "the backend did not become healthy within 600 s (because)."
    assert lines["What to do"] == (
        "mend it `python -m driver recover` brings the service back. `python -m driver run` "
        f"verifies {version}, or takes it back; `python -m driver recover` takes it back at once."
    )


def test_what_an_earlier_run_has_verified_is_not_called_unverified(
    run: FinishedRun, version: str
) -> None:
    served.accept(run.workspace, {}, ALIAS, CANDIDATE, served.VERIFIED)
    restore = {**PLANNED, "state": "failed", "error": "no"}
    said, lines = told(run, failure=failure("Away", "no"), **{**LATER, "restore": restore})
    assert said == f"Failed in the stage restore: {version} is live, and verified"
    assert lines["Served now"].endswith("when the run ended, verified.")


@pytest.mark.parametrize("live", [True, False])
def test_a_refusal_tells_what_is_served_and_not_what_was(run: FinishedRun, *, live: bool) -> None:
    if live:
        let_name(run, LIVE)
    else:
        del run.engine.tags[ALIAS]
    named = f"named {BEFORE} (digest b7b7b7b7b7b7)" if live else "named no model at its end"
    refused = failure("CandidateRefused", "the adapter's base is another")
    text = head(report(run, served=named_by(run.engine, ALIAS).model_dump(), failure=refused))
    assert f"The run has let nothing new go live; {ALIAS} {named}" in text


def test_a_deploy_that_fails_behind_the_copy(
    run: FinishedRun, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the switch itself: the old model's runner does not end."""
    let_name(run, LIVE)
    waits(run, version)

    def hangs(_tag: str) -> None:
        raise EngineUnavailable("Ollama did not unload it within 60 s")

    monkeypatch.setattr(run.engine, "unload", hangs)
    with pytest.raises(EngineUnavailable):
        promotion.switch(run.workspace, run.engine, ALIAS, version)
    failed = failure("EngineUnavailable", "Ollama did not unload it within 60 s")
    deploy = {**PLANNED, "state": "failed", "error": "it did not unload"}
    said, lines = told(run, failure=failed, **{**LATER, "deploy": deploy})
    live = f"{version} is live, and nobody has verified it"
    assert said == f"Failed in the stage deploy, behind the switch: {live}"
    assert lines["Served now"].startswith(f"{ALIAS} named the new model, {version}")
    assert lines["What broke"] == "Ollama did not unload it within 60 s (because)."
    assert "finishes the switch or undoes it" in lines["What to do"]
    assert f"verifies {version}, or takes it back" in lines["What to do"]
    assert "has let nothing new go live" not in head(report(run))


def test_a_deploy_that_fails_before_the_copy(run: FinishedRun, version: str) -> None:
    let_name(run, LIVE)
    deploy = {**PLANNED, "state": "failed", "error": "the disk is full"}
    failed = failure("DiskFull", "the disk is full")
    said, lines = told(run, failure=failed, **{**LATER, "deploy": deploy})
    assert said == f"Failed in the stage deploy: {version} is not live"
    assert f"{ALIAS} named {BEFORE} (digest b7b7b7b7b7b7)" in lines["Served now"]
    assert lines["What to do"] == "mend it"


def test_a_name_that_a_broken_copy_left_empty_is_said_loudly(
    run: FinishedRun, version: str
) -> None:
    del run.engine.tags[ALIAS]
    deploy = {**PLANNED, "state": "failed", "error": "the engine went away"}
    failed = failure("EngineUnavailable", "the engine went away")
    said, lines = told(run, failure=failed, **{**LATER, "deploy": deploy})
    assert said == f"Failed in the stage deploy: {ALIAS} names nothing now"
    assert lines["Served now"].startswith(f"NOTHING: {ALIAS} named no model")
    assert "`python -m driver rollback VERSION` lets one of them be live" in lines["What to do"]


def test_with_an_engine_that_does_not_answer_nothing_is_claimed(run: FinishedRun) -> None:
    deploy = {**PLANNED, "state": "failed", "error": "the engine went away"}
    failed = failure("EngineUnavailable", "the engine went away")
    said, lines = told(run, served=None, failure=failed, **{**LATER, "deploy": deploy})
    assert said == "Failed in the stage deploy: whether the candidate is live is not known"
    assert "`python -m driver models` shows what is live" in lines["Served now"]


def test_items_that_fail_leave_a_verified_model_live(run: FinishedRun, version: str) -> None:
    failed = failure("ReprocessFailed", "200 of 1600 items failed")
    reprocess = {**PLANNED, "state": "failed", "error": "200 of 1600 items failed"}
    said, lines = told(run, failure=failed, reprocess=reprocess)
    assert said == f"Failed in the stage reprocess: {version} is live, and verified"
    assert lines["What to do"] == "mend it"


def test_a_signal_behind_the_copy_is_not_told_as_nothing_deployed(
    run: FinishedRun, version: str
) -> None:
    deploy = {**PLANNED, "state": "failed", "error": "stopped by a signal"}
    stopped = failure("Interrupted", "stopped by a signal")
    served = named_by(run.engine, ALIAS).model_dump()
    text = head(report(run, served=served, failure=stopped, **{**LATER, "deploy": deploy}))
    assert "Stopped by a signal in the stage deploy" in text
    assert f"{ALIAS} named the new model, {version}" in text
    unknown = head(report(run, served=None))
    assert "Whether the candidate was live for a moment is not noted" in unknown
    assert "had deployed nothing" not in text + unknown


def test_a_rollback_since_says_which_items_have_its_answers_still(
    run: FinishedRun, version: str
) -> None:
    taken_back.reject(run.workspace, version)
    said, lines = told(run)
    assert said == f"Was live, and was taken back since: {version}"
    assert lines["What to do"] == "Nothing: no item is known to have its answers."
    job = Finished(run.workspace, run.run).job(stages.DEPLOY)
    assert job is not None
    model = job.inputs["gguf"].digest
    record = Record.of_model(run.workspace, run.run.id, model, "http://backend")
    state = {"id": "3", "is_manually_reviewed": False}
    record.begin(run.run.id, model, "http://backend", {"3": state}, 1, canaries=["3"])
    _, lines = told(run)
    assert lines["What to do"].startswith("1 item has its answers still"), "of its verification"
    reprocessed(run.workspace, run.run.id, model, done=1)
    _, lines = told(run)
    assert lines["What to do"].startswith("2 items have its answers still; `python -m driver repro")
    reprocessed(run.workspace, "29990101-000000", "another", done=1)
    _, lines = told(run)
    assert lines["What to do"].startswith("1 of 4 items have been given another model's answers")


def test_what_has_taken_a_model_back_is_told_where_it_is_noted(
    run: FinishedRun, version: str
) -> None:
    taken_back.reject(run.workspace, version)
    either = "The model was taken back: by `driver rollback`, or by a verification."
    assert told(run)[1]["What broke"] == either, "of an older driver"
    served.replaces(run.workspace, {}, ALIAS, CANDIDATE, "")
    for by in (served.BY_ROLLBACK, served.BY_VERIFICATION):
        served.note_taken_back(run.workspace, ALIAS, [version, CANDIDATE], by)
        assert told(run)[1]["What broke"] == f"The model was taken back: by {by}."


def reprocessed(workspace: Path, name: str, model: str, done: int) -> None:
    """Let a reprocess of four items with a model be under way."""
    record = Record.of_model(workspace, name, model, "http://backend")
    states = {str(n): {"id": str(n), "is_manually_reviewed": False} for n in range(4)}
    record.begin(name, model, "http://backend", states, 4)
    outcomes = Outcomes(record.folder)
    for number in range(done):
        outcomes.add(str(number), Seen(Outcome.PROCESSED))


def test_what_is_served_is_asked_only_where_a_deployment_had_begun(tmp_path: Path) -> None:
    def served() -> Any:
        asked.append(1)
        raise EngineUnavailable("away")

    for state, times in (("planned", 0), ("failed", 1)):
        asked = list[int]()
        run = Run.create(tmp_path)
        notes = Notes(run, "")
        notes.stage("deploy", state=state)
        assert notes.end(tmp_path, [], pytest.fail, EngineUnavailable("away"), served) is not None
        assert len(asked) == times
        assert run.read_state().served is None


def test_a_run_that_came_to_its_end_is_not_called_live_where_another_model_is(
    run: FinishedRun, version: str
) -> None:
    let_name(run, LIVE)
    said, lines = told(run)
    assert said == f"Not live, although the run came to its end: {version}"
    assert BEFORE in lines["Served now"]
    let_name(run, CANDIDATE)
    assert told(run)[0] == f"Live: {version}"
