"""report.html says how a run has ended, whatever the end; what is unknown is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.errors import CandidateRefused
from contracts.stage import Artifact, Stage
from contracts.stages import EVALUATE, VERDICT
from driver import taken_back
from driver.notes import Notes
from driver.report import evaluation, html, verdict
from driver.report.finished import Finished
from driver.store import Run
from tests.unit.finished_run import FinishedRun
from tests.unit.reported import copied, failure, head, report, run

__all__ = ["run"]


def test_a_run_that_ended_well_says_what_is_live(run: FinishedRun) -> None:
    text = report(run)
    assert f"<strong>Live: liga-relevance:{run.run.id}</strong>" in text
    assert "The gate lets the candidate pass" in head(text)
    assert "the service was away for 2 h 21 min" in head(text)
    assert "Reprocessed: 1588 items, 3 failed, 9 reviewed left out." in text


def test_the_verification_comes_before_the_items(run: FinishedRun) -> None:
    text = report(run)
    assert text.index("<p>Verified: ") < text.index("<p>Reprocessed: ")


def test_every_measure_is_explained_by_the_kind_of_its_field(run: FinishedRun) -> None:
    text = report(run)
    (path,) = run.workspace.glob("store/evaluate/*/out/scores.json")
    names = json.loads(path.read_text(encoding="utf-8"))["models"]["candidate"]["measures"]
    _, _, told = text.partition("<summary>What the measures mean</summary>")
    rows = re.findall(r"<tr><td>([^<]+)<td>([^<]+)</tr>", told.split("</details>")[0])
    assert sorted(name for name, _ in rows) == sorted(names)
    assert dict(rows)["assigned_aks"].startswith("F1 over all values chosen")


def test_a_measure_of_nothing_is_a_dash(run: FinishedRun) -> None:
    (path,) = run.workspace.glob("store/evaluate/*/out/scores.json")
    scores = json.loads(path.read_text(encoding="utf-8"))
    scores["models"]["candidate"]["measures"]["rules.positive"]["of_nothing"] = True
    card = '<div class="card"><span>rules.positive</span><b>–</b><span>no answer is positive</span>'
    assert card in verdict.section(Finished(run.workspace, run.run), scores)
    side = evaluation.side_by_side(scores, scores["matters"])
    assert '<b class="candidate">–</b> <small>no answer is positive</small>' in side
    assert "candidate has none" in side


@pytest.mark.parametrize("few", [False, True])
def test_the_head_says_on_which_rows_the_texts_were_compared(
    run: FinishedRun, *, few: bool
) -> None:
    """On too few the difference is not shown: it would look like one that was found."""
    (path,) = run.workspace.glob("store/evaluate/*/out/scores.json")
    scores = json.loads(path.read_text(encoding="utf-8"))
    (texts,) = (d for d in scores["compared"]["champion"] if d["name"] == "rules.positive")
    assert texts["rows"] >= texts["fewest"] > 0
    texts["rows"] = 7 if few else texts["rows"]
    told = verdict.section(Finished(run.workspace, run.run), scores)
    (card,) = re.findall(r"<span>rules\.positive</span><b>[\d.]+</b><span>([^<]+)</span>", told)
    both = f"{texts['rows']} rows that both call positive"
    shown = f"{texts['value']:+z.3f} against the champion"
    assert both in card
    assert (shown in card) is not few
    assert card.startswith("not compared with the champion: 7 rows") is few
    assert ("not compared" in evaluation.side_by_side(scores, ())) is few


class _Unasked(Finished):
    """A run in which the first rule of the gate had nothing to go by."""

    def read(self, stage: Stage, artifact: Artifact) -> Any:
        found = super().read(stage, artifact)
        if artifact == VERDICT:
            found["findings"][0]["asked"] = False
        return found


def test_what_could_not_be_asked_has_no_check_mark(run: FinishedRun) -> None:
    marks = re.findall(r'"mark (\w+)">', verdict.section(_Unasked(run.workspace, run.run), None))
    assert marks[:2] == ["note", "good"]


def test_the_head_has_the_number_of_test_rows(run: FinishedRun) -> None:
    rows = Finished(run.workspace, run.run).read(EVALUATE, VERDICT)["rows"]
    assert f"<h3>The gate lets the candidate pass, on {rows} test rows</h3>" in head(report(run))


def test_the_same_run_gives_the_same_report(run: FinishedRun) -> None:
    assert report(run) == report(run)


def test_a_refusal_names_the_rule_first(refused_run: FinishedRun) -> None:
    assert isinstance(refused_run.raised, CandidateRefused)
    text = (refused_run.run.folder / html.FILE).read_text(encoding="utf-8")
    assert "Refused: the candidate does not go live" in head(text)
    refused, passed = head(text).index("rules is 0.9"), head(text).index("valid is 0.9")
    assert refused < passed
    assert 'id="answers"' in text
    assert 'id="service"' not in text


def test_a_refusal_says_in_its_verdict_that_the_live_model_is_broken(
    refused_run: FinishedRun, tmp_path: Path
) -> None:
    refused_run = copied(refused_run, tmp_path)
    (kept,) = refused_run.workspace.glob("store/evaluate/*/result.json")
    noted = json.loads(kept.read_text(encoding="utf-8"))["metrics"]
    changed = {"metrics": noted | {"silent": noted["models"]["champion"]}}
    said = "Refused: the candidate does not go live, and the live model is broken"
    assert said in head(report(refused_run, evaluate=changed))
    assert said not in head(report(refused_run, evaluate={"metrics": noted}))


def test_a_model_that_was_taken_back_is_not_called_live(run: FinishedRun) -> None:
    text = report(
        run,
        verify={"state": "failed", "error": "no answer\nliga:latest is liga:before again"},
        failure=failure("VerifyFailed", "no answer to the canary"),
    )
    assert "Not verified: the deployed model does not stay live" in head(text)
    assert "<p>liga:latest is liga:before again</p>" in head(text)
    assert "<strong>Live" not in text


def test_a_first_model_that_is_not_verified_is_still_live(run: FinishedRun) -> None:
    error = (
        "no answer\nNOT ROLLED BACK: there is no good version before; liga:latest still names it"
    )
    failed = failure("VerifyFailed", "no answer to the canary")
    text = head(report(run, verify={"state": "failed", "error": error}, failure=failed))
    assert f"Not verified, and not taken back: liga-relevance:{run.run.id}" in text
    assert "does not stay live" not in text


def test_an_unforeseen_failure_takes_nothing_back(run: FinishedRun) -> None:
    failed = failure("Unforeseen", "unforeseen TypeError")
    text = head(report(run, verify={"state": "failed", "error": "x"}, failure=failed))
    assert "Not verified, and not taken back yet" in text
    assert f"was made to name liga-relevance:{run.run.id}. Nobody could ask" in text


def test_a_run_killed_in_the_verification_is_not_called_live(run: FinishedRun) -> None:
    """Also when what it deployed was taken back since, and deployed anew by a later run."""
    (path,) = run.workspace.glob("store/deploy/*/result.json")
    later = json.loads(path.read_text(encoding="utf-8"))
    later["metrics"]["tag"] = "liga-relevance:20990101-000000"
    files.write_json(path, later)
    running = {"state": "running", "ended_at": None}
    text = report(run, ended_at=None, verify=running, reprocess={"state": "planned"})
    assert "not come to its end: it was cut off in the stage verify" in head(text)
    assert f"named liga-relevance:{run.run.id} then, which nobody had verified" in head(text)
    assert "began Monday, 2026-09-21 at " in head(text)
    for word in ("<strong>Live", "20990101"):
        assert word not in text


@pytest.mark.parametrize(
    ("state", "told"),
    [("running", "finishes the switch or undoes it"), ("planned", "It had deployed nothing")],
)
def test_a_run_killed_before_tells_what_the_alias_named(
    run: FinishedRun, state: str, told: str
) -> None:
    later = {name: {"state": "planned"} for name in ("restore", "verify", "reprocess")}
    text = head(report(run, ended_at=None, deploy={"state": state}, **later))
    assert ("in the stage deploy" if state == "running" else "before the stage deploy") in text
    assert told in text
    assert (state == "planned") == ("(digest b7b7b7b7b7b7) was not touched" in text)


def test_what_was_taken_back_is_not_said_to_be_refused_by_the_gate(run: FinishedRun) -> None:
    failed = failure("CandidateRefused", "this model has been live, and was taken back")
    later = {name: {"state": "planned"} for name in ("restore", "verify", "reprocess")}
    text = head(report(run, deploy={"state": "failed"}, failure=failed, **later))
    assert "Refused: this model has been live, and was taken back" in text
    assert "<p>because.</p><p>mend it</p>" in text
    assert "--force" not in text


def test_one_stage_alone_comes_to_its_end(run: FinishedRun) -> None:
    (train,) = (v for k, v in run.run.read_state().stages.items() if k == "train")
    text = head(report(run, stages={"train": train.model_dump(mode="json")}, ended_at=None))
    assert "Come to its end without a deployment: train" in text
    text = head(report(run, train={"state": "failed", "error": "the GPU is full"}))
    assert "Failed in the stage train" in text
    assert "<p>the GPU is full</p>" in text


def test_a_model_that_only_the_engine_has_shown_is_no_good_news(run: FinishedRun) -> None:
    noted = run.run.read_state().stages["verify"].metrics
    text = head(report(run, verify={"metrics": noted | {"wanted": 3}}))
    assert "Live, seen by the engine alone: liga-relevance" in text
    assert "not one of the 3 items of verify.items" in text


def test_what_was_rolled_back_since_is_not_called_live(run: FinishedRun) -> None:
    tag = f"liga-relevance:{run.run.id}"
    taken_back.reject(run.workspace, tag)
    assert f"Was live, and was taken back since: {tag}" in head(report(run))
    taken_back.reinstate(run.workspace, tag)
    assert f"<strong>Live: {tag}</strong>" in report(run)


def test_a_forced_model_says_who_and_why(run: FinishedRun) -> None:
    noted = run.run.read_state().stages["deploy"].metrics
    text = head(report(run, deploy={"metrics": noted | {"forced": "the fair begins (erika)"}}))
    assert "Live although the gate refused it" in text
    assert "Forced: the fair begins (erika)." in text
    taken_back.reject(run.workspace, f"liga-relevance:{run.run.id}")
    text = head(report(run))
    assert "Was live, and was taken back since" in text
    assert "Forced: the fair begins (erika)." in text


def test_a_run_that_failed_early_tells_what_it_has(run: FinishedRun) -> None:
    later = ("gguf", "evaluate", "deploy", "restore", "reprocess", "verify")
    text = report(
        run,
        train={"state": "failed", "error": "out of memory", "fingerprint": "none"},
        failure=failure("OutOfMemory", "the GPU is full"),
        **{name: {"state": "planned", "fingerprint": "", "started_at": None} for name in later},
    )
    assert "Failed in the stage train" in head(text)
    for word in ("the GPU is full.", "because", "mend it", "The run has let nothing new go live"):
        assert word in head(text)
    assert 'id="labels"' in text
    assert 'id="lineage"' in text
    assert 'id="models"' not in text
    assert "did not run" in text


def test_a_run_that_was_stopped_says_where(run: FinishedRun) -> None:
    text = report(
        run,
        verify={"state": "failed", "ended_at": None},
        failure=failure("Interrupted", "stopped by a signal"),
    )
    assert "Stopped by a signal in the stage verify" in head(text)


def test_notes_of_an_older_driver_have_no_times(run: FinishedRun) -> None:
    text = report(run, started_at=None, ended_at=None, away=[])
    assert "What ran when" not in text
    assert "<strong>Live" in text


def test_scores_of_an_older_version_show_what_they_have(run: FinishedRun) -> None:
    (path,) = run.workspace.glob("store/evaluate/*/out/scores.json")
    scores = json.loads(path.read_text(encoding="utf-8"))
    for key in ("fields", "matters"):
        del scores[key]
    for model in scores["models"].values():
        del model["confusion"], model["reliability"]
    files.write_json(path, scores)
    (kept,) = run.workspace.glob("store/evaluate/*/result.json")
    result = json.loads(kept.read_text(encoding="utf-8"))
    found = {"digest": files.digest_path(path), "bytes": path.stat().st_size}
    result["outputs"]["scores"] |= found
    files.write_json(kept, result)
    text = report(run)
    assert "21 more measures" in text
    assert 'id="answers"' not in text


def test_what_others_have_written_is_no_markup(run: FinishedRun) -> None:
    text = report(
        run,
        train={"summary": "<script>alert(1)</script>", "reason": "<img src=x>"},
        failure=failure("StageFailed", "<script>alert(2)</script>"),
    )
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(2)" in head(text)
    assert "<b>sein</b>" not in text
    assert "&lt;b&gt;sein&lt;/b&gt;" in text, "an answer of the double's"


def test_a_report_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    run, warnings = Run.create(tmp_path), list[str]()
    (run.folder / html.FILE).mkdir()
    notes = Notes(run, "")
    assert notes.end(tmp_path, [], warnings.append, CandidateRefused("not good enough")) is None
    assert "could not be written" in warnings[0]
    failed = run.read_state().failure
    assert failed is not None
    assert (failed.kind, failed.exit_code) == ("CandidateRefused", 26)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [(KeyboardInterrupt(), "Interrupted", 130), (ZeroDivisionError("x"), "Unforeseen", 35)],
)
def test_any_end_is_noted(tmp_path: Path, error: BaseException, kind: str, code: int) -> None:
    run = Run.create(tmp_path)
    path = Notes(run, "").end(tmp_path, [], pytest.fail, error)
    failed = run.read_state().failure
    assert failed is not None
    assert (failed.kind, failed.exit_code) == (kind, code)
    assert path is not None
    assert "<h1>Run" in path.read_text(encoding="utf-8")


def test_begin_and_end_of_a_stage_are_noted(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    notes = Notes(run, "")
    notes.stage("train", state="planned")
    planned = run.read_state().stages["train"]
    notes.stage("train", state="running")
    notes.stage("train", state="done", summary="well")
    noted = run.read_state().stages["train"]
    assert planned.started_at is None
    assert noted.started_at is not None
    assert noted.ended_at is not None
    assert noted.started_at <= noted.ended_at
