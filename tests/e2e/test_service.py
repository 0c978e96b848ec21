"""The whole pipeline in containers, against a real engine, a real Ollama, and a running backend."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import BackendUnavailable, TaskDrifted
from tests.docker.engine import docker
from tests.e2e import seen
from tests.e2e.host import LIVE, TASK, Host, Labelled
from tests.unit import checkout

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def test_a_backend_that_asks_another_model_is_found_before_it_is_stopped(host: Host) -> None:
    started = seen.started_at(host)
    refused = host.driver("run", "deploy.name=another")
    assert refused.returncode == BackendUnavailable.exit_code, refused.stdout + refused.stderr
    assert f"the backend asks {LIVE}, not the deployed model another" in refused.stderr
    assert not (host.workspace / "runs").exists()
    assert seen.started_at(host) == started


def test_the_backend_is_away_for_the_gpu_and_healthy_again(finished: Host) -> None:
    """The engine itself tells when the container was stopped and started."""
    state = json.loads(docker("inspect", finished.container))[0]["State"]
    assert state["Running"]
    assert finished.backend.healthy()
    stopped, started = (_time(state[key]) for key in ("FinishedAt", "StartedAt"))
    assert stopped < started
    train = finished.result("train")
    trained = datetime.fromisoformat(train.finished_at).timestamp()
    assert stopped < trained - train.seconds + 1, "it was stopped before the training began"
    assert trained <= started + 1, "it was started after the training ended"
    assert finished.result("restore").metrics["away_s"] > train.seconds
    assert not (finished.workspace / "window.json").exists()


def test_the_items_came_from_the_backend_and_the_labels_from_the_teacher(
    finished: Host, labelled: Labelled
) -> None:
    assert finished.result("snapshot").metrics == {
        "items": len(labelled),
        "reviewed": 0,
        "unusable_reviews": 0,
    }
    label = finished.result("label").metrics
    assert label["asked"] == len(labelled)
    rows = list(
        files.read_jsonl(finished.workspace / finished.result("label").outputs["labels"].path)
    )
    assert {row["origin"] for row in rows} == {"teacher"}
    assert {row["id"] for row in rows} <= {item.id for item, _ in labelled}
    for row in rows:
        assert TASK.parse(json.dumps(row["label"], ensure_ascii=False))


def test_the_next_request_of_the_backend_is_answered_by_the_new_model(finished: Host) -> None:
    """By digest in /api/ps, after an unload: names alone prove nothing about a shared runner."""
    deployed = finished.result("deploy").metrics["digest"]
    assert seen.answering(finished) == {LIVE: deployed}
    analysis = finished.backend.item("1")["metadata"]["llm_analysis"]
    assert analysis["model"] == LIVE


def test_every_item_was_reprocessed(finished: Host, labelled: Labelled) -> None:
    metrics = finished.result("reprocess").metrics
    assert metrics["processed"] + metrics["failed"] == len(labelled)
    assert metrics["processed"] > 0


def test_no_stage_container_is_left(finished: Host) -> None:
    assert docker("ps", "--all", "--quiet", *_of(finished)) == ""


def test_the_report_names_the_image_that_a_stage_ran_in(
    finished: Host, stage_images: dict[str, str]
) -> None:
    (report,) = finished.workspace.glob("runs/*/report.html")
    page = report.read_text(encoding="utf-8")
    for image in ("labeler", "trainer", "gguf"):  # merging is in the last one's one pass
        image_id = docker("image", "inspect", "--format", "{{.Id}}", stage_images[image])
        assert image_id.removeprefix("sha256:") in page


def test_nothing_is_done_twice(finished: Host) -> None:
    started = seen.started_at(finished)
    done = finished.driver("run")
    assert done.returncode == 0, done.stderr
    assert "Nothing has changed" in done.stdout
    assert seen.started_at(finished) == started


def test_a_backend_that_lacks_a_value_is_refused_unless_that_is_accepted(
    finished: Host, tmp_path: Path
) -> None:
    """Its code does. Another number of items has the verification run again, and little else."""
    code = checkout.lay_out(tmp_path / "checkout")
    checkout.change(code, checkout.ENUMS, '    MEDIUM = "medium"\n', "")
    host = replace(finished, changed={"backend": {"repository": str(code)}})
    before, started, runs = seen.state(host), seen.started_at(host), _runs(host)
    refused = host.driver("run", "verify.items=2")
    assert refused.returncode == TaskDrifted.exit_code, refused.stdout + refused.stderr
    assert "enum Priority does not know medium" in refused.stderr
    assert (seen.state(host), seen.started_at(host), _runs(host)) == (before, started, runs)

    done = host.driver("run --accept-drift", "verify.items=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(host.result("verify").metrics["items"]) == 2
    [run] = _runs(host) - runs
    report = (host.workspace / "runs" / run / "report.html").read_text(encoding="utf-8")
    for told in (report, host.driver("status").stdout):
        assert "(--accept-drift)" in told
        assert "enum Priority does not know medium" in told


def test_a_stage_that_fails_brings_the_backend_back(finished: Host) -> None:
    """A row over the limit ends the training; the service must not notice more than the window."""
    done = finished.driver("run", "train.max_length=64")
    assert done.returncode == 25, done.stdout + done.stderr
    assert "max_length" in done.stderr
    assert finished.backend.healthy()
    assert not (finished.workspace / "window.json").exists()
    assert seen.live(finished) == finished.result("deploy").metrics["digest"]


def _runs(host: Host) -> set[str]:
    return {each.name for each in (host.workspace / "runs").iterdir()}


def _of(host: Host) -> tuple[str, str]:
    return "--filter", f"label=retrain.workspace={host.workspace.resolve()}"


def _time(stamp: str) -> float:
    """Return Docker's time with nanoseconds in seconds since the epoch."""
    return datetime.fromisoformat(stamp[:26].rstrip("Z")).replace(tzinfo=UTC).timestamp()
