"""Which model is live, and who decides it: a promotion, a refusal, a forced promotion, a way back.

Each test goes on from what the one before has left, and the first from the run of test_service.py.
To be quick, the good candidates are that run's adapter in another type: another file, with another
digest, without another training.
"""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from contracts import files
from contracts.errors import CandidateRefused, VerifyFailed, VerifyUnanswered
from tests.docker.engine import docker
from tests.e2e import seen
from tests.e2e.host import ALIAS, IRRELEVANT, LIVE, RELEVANT, TEACHER, Host

pytestmark = [pytest.mark.docker, pytest.mark.slow]

GOOD = ("gguf.outtype=f16", "evaluate.margin=1")
"""Two test rows cannot show that a model is not worse by less than the margin: 1 asks for none."""
UNPROVED = ("gguf.outtype=bf16", f"evaluate.baseline={TEACHER}", "reprocess.enabled=false")
"""Two test rows cannot show that a model is better than another one either."""
BAD = (
    "train.max_steps=4",
    "train.eval_steps=2",
    "train.min_loss_fall=0",
    "train.reference_tokens=0",
    "evaluate.drift_positions=0",
    "evaluate.min_valid=0.99",
)
"""Hardly trained, and not looked at but by the gate."""
SAME_AGAIN = ("evaluate.margin=1",)
"""The very file that the first run has made."""
REASON = "two test rows prove nothing"


def test_a_better_model_takes_the_place_of_the_live_one(finished: Host) -> None:
    first = seen.live(finished)
    _ends(finished.driver("run", *GOOD), 0)
    evaluated = finished.result("evaluate").metrics
    deployed = finished.result("deploy").metrics
    assert evaluated["models"] == {"candidate": deployed["digest"], "champion": first}
    assert evaluated["promote"]
    assert deployed["forced"] == ""
    models = seen.tags(finished)
    assert models[deployed["tag"]] == models[LIVE] == deployed["digest"] != first
    assert models[deployed["previous"]] == first
    assert len(finished.result("verify").metrics["items"]) == 3
    assert seen.answering(finished) == {LIVE: deployed["digest"]}


def test_a_refused_candidate_leaves_everything_as_it_was(finished: Host) -> None:
    before = seen.state(finished)
    refused = finished.driver("run", *BAD)
    _ends(refused, CandidateRefused.exit_code)
    assert "valid is 0, under the 0.99 demanded" in refused.stderr
    assert not finished.result("evaluate").metrics["promote"]
    assert seen.state(finished) == before
    assert finished.backend.healthy()
    assert not (finished.workspace / "window.json").exists()
    # Its verdict is known by now: the service is not even stopped.
    started = seen.started_at(finished)
    _ends(finished.driver("run", *BAD), CandidateRefused.exit_code)
    assert seen.started_at(finished) == started
    assert seen.state(finished) == before
    assert seen.answering(finished) == {LIVE: before.models[LIVE]}


def test_a_forced_promotion_keeps_who_and_why(finished: Host) -> None:
    before = seen.tags(finished)
    refused = finished.driver("run", *UNPROVED)
    _ends(refused, CandidateRefused.exit_code)
    assert "in no measure significantly better than the base model" in refused.stderr
    assert seen.tags(finished) == before
    _ends(finished.driver(f"run --force '{REASON}'", *UNPROVED), 0)
    deployed = finished.result("deploy").metrics
    assert deployed["digest"] == finished.result("evaluate").metrics["models"]["candidate"]
    models = seen.tags(finished)
    assert models == {**before, deployed["tag"]: deployed["digest"], LIVE: deployed["digest"]}
    assert seen.answering(finished) == {LIVE: deployed["digest"]}
    forced = f"{REASON} ({os.environ.get('SUDO_USER') or getpass.getuser()})"
    assert deployed["forced"] == forced
    assert f"live, forced: {forced}" in _listed(finished)[deployed["tag"]]


def test_the_way_back_is_by_digest_and_no_run_undoes_it(finished: Host) -> None:
    before = seen.tags(finished)
    taken_back = finished.result("deploy").metrics
    assert before[LIVE] == taken_back["digest"]
    back = finished.driver("rollback")
    _ends(back, 0)
    good = before[taken_back["previous"]]
    assert f"{ALIAS} is {taken_back['previous']} now (digest {good[:12]}" in back.stdout
    assert seen.tags(finished) == {**before, LIVE: good}
    assert seen.answering(finished) == {LIVE: good}
    listed = _listed(finished)
    assert "taken back" in listed[taken_back["tag"]]
    assert "live" in listed[taken_back["previous"]]

    # Not even by force, and without a look at the service.
    started = seen.started_at(finished)
    refused = finished.driver(f"run --force '{REASON}'", *UNPROVED)
    _ends(refused, CandidateRefused.exit_code)
    assert "was taken back" in refused.stderr
    assert seen.live(finished) == good
    assert seen.started_at(finished) == started
    # Items may have been answered by the model that was live meanwhile: all are asked once more.
    assert "items have another model's answers" in finished.driver("plan", *GOOD).stdout
    _ends(finished.driver("run", *GOOD), 0)
    asked = finished.result("reprocess").metrics
    assert (asked["processed"], asked["failed"]) == (RELEVANT + IRRELEVANT, 0)
    same = finished.driver("run", *GOOD)
    _ends(same, 0)
    assert "Nothing has changed" in same.stdout
    assert seen.live(finished) == good


def test_a_bad_model_is_taken_back_before_an_item_is_asked(finished: Host) -> None:
    """Force overrules the gate, not the verification, which asks the engine first."""
    before = seen.state(finished)
    failed = finished.driver(f"run --force '{REASON}'", *BAD)
    bad = _taken_back(finished, failed, before)
    after = seen.state(finished)
    assert after == replace(before, models={**before.models, bad["tag"]: bad["digest"]})
    assert "taken back, forced" in _listed(finished)[bad["tag"]]
    refused = finished.driver(f"run --force '{REASON}'", *BAD)
    _ends(refused, CandidateRefused.exit_code)
    assert "was taken back" in refused.stderr
    assert seen.state(finished) == after
    assert seen.answering(finished) == {LIVE: before.models[LIVE]}


def test_a_backend_that_loses_a_field_rejects_no_model_and_no_other_item_is_touched(
    finished: Host,
) -> None:
    """Only the items show it. One that has passed before, as this one has in its first run, stays
    live: whoever answers in its place would lose the field as well.
    """
    before, rejected = seen.state(finished), finished.workspace / "rejected.json"
    barred = rejected.read_bytes() if rejected.exists() else b""
    with _losing_tags(finished):
        failed = finished.driver("run", *SAME_AGAIN, "verify.max_error_share=0")
    _ends(failed, VerifyUnanswered.exit_code)
    assert "the analysis has no tags" in failed.stderr
    assert "the engine, asked directly, gives one" in failed.stderr
    assert "NOT ROLLED BACK" in failed.stdout
    good, deployed = (finished.result(stage).metrics for stage in ("evaluate", "deploy"))
    assert good["promote"]
    assert deployed["digest"] == good["models"]["candidate"] == seen.live(finished)
    after = seen.state(finished)
    live = dict.fromkeys((deployed["tag"], LIVE), deployed["digest"])
    assert after.models == {**before.models, **live}
    assert after.container == before.container
    assert finished.backend.healthy()
    assert (rejected.read_bytes() if rejected.exists() else b"") == barred
    asked = _asked_last(finished)
    assert len(asked) == 3
    assert _changed(before, after) == asked
    assert seen.answering(finished) == {LIVE: deployed["digest"]}


@contextmanager
def _losing_tags(host: Host) -> Iterator[None]:
    """Let the backend's database lose a field of every analysis, as a faulty migration would."""
    trigger = (
        "CREATE TRIGGER losing AFTER UPDATE ON items BEGIN UPDATE items SET metadata = "
        "json_remove(metadata, '$.llm_analysis.tags') WHERE id = NEW.id; END"
    )
    call = "import sqlite3, sys; sqlite3.connect('/data/backend.sqlite').execute(sys.argv[1])"
    docker("exec", host.container, "python3", "-c", call, trigger)
    try:
        yield
    finally:
        docker("exec", host.container, "python3", "-c", call, "DROP TRIGGER losing")


def _taken_back(
    host: Host, failed: subprocess.CompletedProcess[str], before: seen.State
) -> dict[str, Any]:
    """Return the deployment that a failed verification has undone; nothing is left to settle."""
    _ends(failed, VerifyFailed.exit_code)
    deployed = host.result("deploy").metrics
    live = before.models[LIVE]
    assert before.models[deployed["previous"]] == seen.live(host) == live
    assert f"ROLLED BACK: {LIVE} is {deployed['previous']} again" in failed.stdout
    assert f"asks {LIVE} (digest {live[:12]})" in failed.stdout
    assert host.backend.healthy()
    for record in ("window.json", "promotion.json", "verification.json"):
        assert not (host.workspace / record).exists()
    return deployed


def _ends(done: subprocess.CompletedProcess[str], exit_code: int) -> None:
    assert done.returncode == exit_code, done.stdout + done.stderr


def _changed(before: seen.State, after: seen.State) -> set[str]:
    """Return the ids of the items that are not as they were."""
    known = {item["id"]: item for item in before.items}
    return {str(item["id"]) for item in after.items if item != known[item["id"]]}


def _asked_last(host: Host) -> set[str]:
    """Return the ids of the items that the last verification has asked through the backend."""
    kept = host.workspace.glob("store/verify/*/work/canaries.jsonl")
    last = max(kept, key=lambda path: path.stat().st_mtime)
    return {row["id"] for row in files.read_jsonl(last)}


def _listed(host: Host) -> dict[str, str]:
    """Return the line of `driver models` about each version."""
    done = host.driver("models")
    _ends(done, 0)
    lines = [line for line in done.stdout.splitlines() if line.startswith(f"{ALIAS}:")]
    return {line.split()[0]: line for line in lines}
