"""Whatever happens to a stage, its engine or the backend: the service comes back, or it is said
why not, and what is to be done.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from contracts import files
from contracts.errors import (
    BackendUnavailable,
    DiskFull,
    EngineUnavailable,
    Interrupted,
    OutOfMemory,
    WorkspaceBusy,
)
from driver.store import Run
from driver.window_record import RECORD_FILE
from tests.docker.engine import docker
from tests.e2e.host import Host
from tests.faults.machine import (
    at_step,
    at_work,
    is_running,
    published,
    recover,
    require_service,
    stage_container,
    wait_for,
)
from tests.faults.tally import Tally

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LONG = ("train.max_steps=400", "train.eval_steps=4")
"""A training that is still at work when the fault comes."""


@pytest.fixture
def ready(host: Host) -> Iterator[Host]:
    """Return the host after a whole run, with the service up; and see that it is up at the end."""
    done = host.driver("run")
    assert done.returncode == 0, done.stdout + done.stderr
    require_service(host)
    before = published(host)
    yield host
    require_service(host)
    after = published(host)
    assert {key: after[key] for key in before} == before, "what was published stays as it is"


@pytest.fixture(autouse=True)
def counted(tally: Tally, request: pytest.FixtureRequest) -> Iterator[None]:
    """Count the fault if the test passes."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        tally.survived("faults of a stage, an engine or the service")


def logged(host: Host, stage: str) -> str:
    """Return the log of a stage in the last run."""
    run = Run.last(host.workspace)
    assert run is not None
    return run.log(stage).read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_in_order(ready: Host, number: signal.Signals) -> None:
    with at_work(ready, "stage train", *LONG, f"train.seed={number.value}") as driver:
        wait_for(driver, lambda: stage_container(ready, "train"))
        assert not is_running(ready.container)
        driver.signal(number)
        assert driver.wait(60) == Interrupted.exit_code, driver.said()
    assert "bringing the service back" in driver.said()


def test_a_second_signal_ends_it_at_once_and_recover_mends(ready: Host, tally: Tally) -> None:
    with at_work(ready, "stage train", *LONG, "train.seed=101") as driver:
        wait_for(driver, lambda: stage_container(ready, "train"))
        driver.signal(signal.SIGINT)
        wait_for(driver, lambda: "ending in order" in driver.said())  # signals do not queue
        driver.signal(signal.SIGINT)
        assert driver.wait(10) == Interrupted.exit_code, driver.said()
    assert "driver recover" in driver.said()
    tally.recovered(recover(ready))


def test_a_killed_stage_goes_on_from_its_checkpoint(ready: Host) -> None:
    with at_work(ready, "stage train", "train.max_steps=80", "train.seed=102") as driver:
        docker("kill", at_step(ready, driver, 6))
        assert driver.wait() == 0, driver.said()
    assert "was killed (exit 137)" in driver.said()
    assert "again in 0.5 s" in driver.said()
    began, went_on = re.findall(r"from step (\d+)", logged(ready, "train"))
    assert (began, int(went_on) > 0) == ("0", True)


def test_a_paused_stage_is_stopped_for_its_silence(ready: Host) -> None:
    """The limit is longer than any start: what loads its libraries is silent, too."""
    limits = ("limits.silence_s=40", "retry.stages={train: 1}")
    with at_work(ready, "stage train", "train.max_steps=80", "train.seed=103", *limits) as driver:
        docker("pause", at_step(ready, driver, 4))
        assert driver.wait() == 0, driver.said()
    assert "it said nothing for 40 s; its container was paused" in driver.said()


def test_a_stage_that_runs_out_of_memory_says_so_and_is_not_tried_again(ready: Host) -> None:
    with at_work(ready, "stage train", "train.seed=104", TRAINER_MEMORY="120m") as driver:
        assert driver.wait() == OutOfMemory.exit_code, driver.said()
    said = " ".join(driver.said().split())
    assert "it reached its container's limit of 0.1 GiB" in said
    assert "Raise TRAINER_MEMORY" in said
    assert "again in" not in said


def test_a_container_that_somebody_removes_is_made_again(ready: Host) -> None:
    with at_work(ready, "stage train", "train.max_steps=80", "train.seed=105") as driver:
        docker("rm", "--force", at_step(ready, driver, 4))
        assert driver.wait() == 0, driver.said()


@contextmanager
def following(host: Host, stage: str) -> Iterator[subprocess.Popen[str]]:
    """Run `driver logs -f` of a stage beside."""
    with subprocess.Popen(
        host.command(f"logs {stage} -f"),
        cwd=files.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_surviving_stage_is_gone_on_with_while_the_service_stays_away(ready: Host) -> None:
    """It is paused until the second driver has met it: by itself it could end before."""
    settings = ("train.max_steps=60", "train.seed=106")
    with at_work(ready, "stage train", *settings) as driver:
        container = at_step(ready, driver, 4)
        docker("pause", container)
        driver.kill()
    assert is_running(container)
    stopped = docker("inspect", "--format={{.State.FinishedAt}}", ready.container)
    with following(ready, "train") as follower:
        assert follower.stderr is not None
        assert "has died; waiting" in follower.stderr.readline()
        with at_work(ready, "stage train", *settings) as driver:
            wait_for(driver, lambda: "this run goes on with both" in driver.said())
            docker("unpause", container)
            assert driver.wait() == 0, driver.said()
        shown, told = follower.communicate(timeout=60)
    assert follower.returncode == 0
    whole = logged(ready, "train").splitlines()
    assert shown.splitlines()[-len(whole) :] == whole
    assert re.fullmatch(r"-- run \S+ takes it up: .*\n-- run \S+ has ended\n", told)
    assert docker("inspect", "--format={{.State.FinishedAt}}", ready.container) == stopped
    assert logged(ready, "train").count(" rows, 60 steps, from step 0") == 1, (
        "its log, once and whole"
    )


def test_a_stage_of_other_settings_is_dropped(ready: Host) -> None:
    with at_work(ready, "stage train", *LONG, "train.seed=107") as driver:
        wait_for(driver, lambda: stage_container(ready, "train"))
        driver.kill()
    left = stage_container(ready, "train")
    with at_work(ready, "run") as driver:
        assert driver.wait() == 0, driver.said()
    assert left not in docker("ps", "--all", "--quiet")


def test_the_backend_that_somebody_starts_meanwhile_is_stopped_again(ready: Host) -> None:
    with at_work(ready, "stage train", "train.max_steps=80", "train.seed=108") as driver:
        container = at_step(ready, driver, 4)
        docker("start", ready.container)
        docker("kill", container)
        wait_for(driver, lambda: not is_running(ready.container))
        assert driver.wait() == 0, driver.said()


def test_a_second_run_is_refused_and_told_who_holds_it(ready: Host) -> None:
    with at_work(ready, "stage train", *LONG, "train.seed=109") as driver:
        wait_for(driver, lambda: stage_container(ready, "train"))
        same = ready.driver("run")
        assert same.returncode == WorkspaceBusy.exit_code
        assert f"pid {driver.process.pid}" in same.stderr
        elsewhere = ready.driver("run", f"workspace={ready.folder / 'elsewhere'}")
        assert elsewhere.returncode == WorkspaceBusy.exit_code
        assert str(ready.workspace) in elsewhere.stderr
        driver.signal(signal.SIGINT)
        driver.wait()


def test_ollama_stops_answering(ready: Host) -> None:
    ollama = docker("ps", "--quiet", "--filter", f"publish={ready.ollama.rpartition(':')[2]}")
    few = "evaluate.limit=3"
    short = (few, "evaluate.patience_s=2", "evaluate.timeout_s=4", "retry.times=0")
    docker("pause", ollama)
    try:
        refused = ready.driver("stage evaluate", *short)
    finally:
        docker("unpause", ollama)
    assert refused.returncode == EngineUnavailable.exit_code, refused.stdout + refused.stderr
    assert ready.driver("stage evaluate", few).returncode == 0  # in its own time


def test_the_backend_does_not_come_up(ready: Host, tally: Tally) -> None:
    """Its port is taken when it is to be started; the record stays until it is back."""
    port = int(ready.backend.url.rpartition(":")[2])
    patience = "backend.healthy_timeout_s=6"
    with at_work(ready, "stage train", "train.seed=110", patience) as driver:
        wait_for(driver, lambda: stage_container(ready, "train"))
        with socket.create_server(("127.0.0.1", port)):
            exit_code = driver.wait()
    assert exit_code == BackendUnavailable.exit_code, driver.said()
    assert "did not become healthy within 6 s" in " ".join(driver.said().split())
    assert (ready.workspace / RECORD_FILE).exists()
    tally.recovered(recover(ready))


def test_a_full_disk_is_named_and_freed_space_is_enough_to_go_on(ready: Host) -> None:
    """A file system of its own, too small for the merged model."""
    small = ready.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(small)], check=True)
    try:
        there = (f"workspace={small}", "min_free_gb=0", "train.seed=111")
        (small / "ballast").write_bytes(bytes(24 << 20))
        full = ready.driver("run", *there)
        assert full.returncode == DiskFull.exit_code, full.stdout + full.stderr
        assert ready.backend.healthy()
        (small / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=400m", str(small)], check=True)
        done = ready.driver("run", *there)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_the_backend_stays_up_beside_the_labelling_with_its_llm_off(
    ready: Host, tally: Tally
) -> None:
    settings = ("window.policy=label_beside", "label.temperature=0.2")
    with at_work(ready, "stage label", *settings) as driver:
        wait_for(driver, lambda: stage_container(ready, "label"))
        assert is_running(ready.container)
        assert ready.backend.admin_health().llm_enabled is False
        driver.kill()
    assert ready.backend.admin_health().llm_enabled is False
    tally.recovered(recover(ready))
    assert ready.backend.admin_health().llm_enabled is True
    done = ready.driver("stage label", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ready.backend.admin_health().llm_enabled is True


def test_the_window_can_be_as_wide_as_the_run(ready: Host) -> None:
    with at_work(ready, "stage split", "window.policy=run", "split.seed=112") as driver:
        wait_for(driver, lambda: stage_container(ready, "split"))
        assert not is_running(ready.container)
        assert driver.wait() == 0, driver.said()
