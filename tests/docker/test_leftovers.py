"""What a killed driver leaves on the engine is found by its labels, and only that is removed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import files
from contracts.entrypoint import RESULT_FILE
from contracts.stage import Result
from contracts.stages import SPLIT, TRAIN
from driver import recover
from driver.adapters.containers import connect
from driver.notes import Notes
from driver.plan import Action, Step
from driver.report.display import Display
from driver.runners.docker import DockerRunner, running_s
from driver.runners.leftovers import LABEL_PROBE, StageContainers
from driver.session import Session
from driver.settings import Settings
from driver.store import Run
from tests.docker.engine import docker
from tests.docker.stage_compose import ROOT
from tests.jobs import job_of

pytestmark = pytest.mark.docker


@pytest.fixture
def made(stage_images: dict[str, str]) -> Iterator[list[str]]:
    """Return a list to put containers' ids in; they are removed at the end."""
    ids: list[str] = []
    yield ids
    for each in ids:
        subprocess.run(["docker", "rm", "--force", each], capture_output=True, check=False)


def create(made: list[str], image: str, labels: dict[str, str]) -> str:
    given = [f"--label={name}={value}" for name, value in labels.items()]
    made.append(docker("create", *given, image))
    return made[-1]


def exists(container: str) -> bool:
    return container[:12] in docker("ps", "--all", "--quiet").split()


def test_stages_and_probes_of_this_workspace_are_removed(
    made: list[str], stage_images: dict[str, str], tmp_path: Path
) -> None:
    image = stage_images["labeler"]
    ours, theirs = StageContainers(tmp_path / "ours"), StageContainers(tmp_path / "theirs")
    dropped = create(made, image, ours.labels(TRAIN, "f1"))
    wanted = create(made, image, ours.labels(TRAIN, "f2"))
    probe = create(made, image, ours.probe_labels())
    others = [create(made, image, theirs.labels(TRAIN, "f1"))]
    others.append(create(made, image, theirs.probe_labels()))
    assert ours.drop(keep=["f2"]) == ["train"]
    assert [exists(each) for each in (dropped, probe)] == [False, False]
    assert all(map(exists, [wanted, *others]))


def test_a_signal_while_an_image_is_looked_into_leaves_no_container(
    stage_images: dict[str, str], tmp_path: Path
) -> None:
    runner = DockerRunner(tmp_path, ROOT / "compose.retrain.yml", gpu=False)
    listed = ("ps", "--quiet", f"--filter=label={LABEL_PROBE}={tmp_path.resolve()}")

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not docker(*listed) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        runner._ask(stage_images["labeler"], ["sleep", "120"])
    interrupter.join()
    assert docker(*listed, "--all") == ""


def test_what_was_never_started_is_no_survivor_and_what_is_paused_is_at_work(
    made: list[str], stage_images: dict[str, str], tmp_path: Path
) -> None:
    """The one would have the stage begin beside the engine's models, the other the service."""
    ours = StageContainers(tmp_path)
    runner = DockerRunner(tmp_path, ROOT / "compose.retrain.yml", gpu=False)
    created = create(made, stage_images["labeler"], ours.labels(TRAIN, "f1"))
    assert not runner.survives(TRAIN, "f1")
    assert ours.at_work() == []
    sleeping = ("--entrypoint=sleep", *labelled(ours, "f1"), stage_images["labeler"], "600")
    made.append(docker("run", "--detach", *sleeping))
    assert runner.survives(TRAIN, "f1")
    docker("pause", made[-1])
    assert runner.survives(TRAIN, "f1")
    assert ours.at_work() == ["train"]
    assert StageContainers(tmp_path / "other").elsewhere() == [str(tmp_path.resolve())]
    assert ours.drop() == ["train", "train"]
    assert not any(map(exists, [created, made[-1]]))


def test_a_stage_of_a_workspace_that_was_moved_since_is_stopped_and_one_of_its_copy_is_not(
    made: list[str], stage_images: dict[str, str], tmp_path: Path
) -> None:
    was, copy, now = tmp_path / "was", tmp_path / "copy", tmp_path / "now"
    Notes(Run.create(was), "").stage("train", state="running")
    shutil.copytree(was, copy)
    sleeping = ("--entrypoint=sleep", *labelled(StageContainers(was), "f1"))
    made.append(docker("run", "--detach", *sleeping, stage_images["labeler"], "600"))
    assert StageContainers(copy).at_work() == []
    assert recover.stop_stages(copy, print) == []
    was.rename(now)
    assert StageContainers(now).at_work() == ["train"]
    assert recover.stop_stages(now, print) == ["train"]
    assert not exists(made[-1])


def test_a_stage_that_is_met_again_has_run_since_its_container_began(
    made: list[str], stage_images: dict[str, str], tmp_path: Path
) -> None:
    """So limits.hours counts from there; one that has ended is collected, however old it is."""
    ours, client = StageContainers(tmp_path), connect()
    sleeping = ("--entrypoint=sleep", *labelled(ours, "f1"), stage_images["labeler"], "600")
    made.append(docker("run", "--detach", *sleeping))
    time.sleep(1.5)
    (container,) = ours.of(TRAIN, "f1")
    assert running_s(container, client) >= 1
    docker("kill", made[-1])
    assert running_s(container, client) == 0


def labelled(ours: StageContainers, fingerprint: str) -> list[str]:
    return [f"--label={name}={value}" for name, value in ours.labels(TRAIN, fingerprint).items()]


def test_kept_containers_are_not_collected_again(
    made: list[str],
    stage_images: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = StageContainers(tmp_path)
    container = create(made, stage_images["labeler"], ours.labels(TRAIN, "f1"))
    monkeypatch.setenv("RETRAIN_KEEP_CONTAINERS", "1")
    assert ours.drop() == ["train"]
    assert exists(container)
    assert ours.of(TRAIN, "f1") == []
    assert ours.drop() == []
    monkeypatch.delenv("RETRAIN_KEEP_CONTAINERS")
    assert ours.drop() == ["train"]
    assert not exists(container)


COUNTS = ("train", "validation", "test", "duplicates", "frozen")


def test_one_that_has_come_to_its_end_since_the_plan_is_put_away_with_its_log(
    made: list[str], stage_images: dict[str, str], tmp_path: Path
) -> None:
    """Its stage is reused then, and nobody runs it."""
    (tmp_path / "items.jsonl").write_text("", encoding="utf-8")
    given = {
        "snapshot": {"items": [str(tmp_path / "items.jsonl")]},
        "fetch": {"path": str(tmp_path)},
    }
    settings = Settings.model_validate({"workspace": tmp_path, "runner": "docker", **given})
    session = Session(settings, Display())
    session.store.prepare(job_of(SPLIT, fingerprint="f1"))
    result = Result(
        stage="split",
        fingerprint="f1",
        outputs={},
        metrics={**dict.fromkeys(COUNTS, 0), "test_set_digest": ""},
        seconds=1,
        finished_at="2026-01-01T12:00:00+00:00",
    )
    files.write_json(session.store.place("split", "f1") / RESULT_FILE, result.model_dump())
    labels = StageContainers(tmp_path).labels(SPLIT, "f1")
    with_labels = [f"--label={name}={value}" for name, value in labels.items()]
    says = ("--entrypoint=echo", *with_labels, stage_images["labeler"], "its last words")
    made.append(docker("run", "--detach", *says))
    docker("wait", made[-1])
    session.begin([])
    session.reuse(Step(session.request(SPLIT), Action.REUSE, "", "f1", {}, result))
    assert not exists(made[-1])
    assert "its last words" in session.run.log("split").read_text(encoding="utf-8")
