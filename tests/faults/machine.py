"""What the fault tests do to a host, and what has to hold afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from contracts import files
from contracts.entrypoint import RESULT_FILE
from contracts.stage import Result
from driver import locks
from driver.store import Run
from driver.window_record import RECORD_FILE
from tests.docker.engine import docker
from tests.e2e.host import Host

RECOVERY_S = 60
"""`driver recover` restores the service within a minute."""


class Driver:
    """A driver at work, as a process of its own; what it says goes to a file."""

    def __init__(self, host: Host, command: str, *overrides: str, **environ: str) -> None:
        self.output = host.folder / "driver.log"
        with self.output.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                host.command(command, *overrides),
                cwd=files.ROOT,
                env={**host.environ, **environ},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
            )

    def kill(self) -> None:
        """Send SIGKILL to the driver alone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the driver alone."""
        os.kill(self.process.pid, number)

    def ended_within(self, seconds: float) -> bool:
        """Wait, and return whether it ended by itself."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def said(self) -> str:
        """Return all that it said."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout_s: float = 600) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            raise


@contextmanager
def at_work(host: Host, command: str, *overrides: str, **environ: str) -> Iterator[Driver]:
    """Start a driver; whatever happens in the test, it does not outlive it."""
    driver = Driver(host, command, *overrides, **environ)
    try:
        yield driver
    finally:
        driver.kill()


def wait_for(driver: Driver, found: Callable[[], Any], timeout_s: float = 300) -> Any:
    """Return the first true value of `found`, while a driver is at work."""
    deadline = time.monotonic() + timeout_s
    while not (value := found()):
        assert driver.process.poll() is None, driver.said()
        assert time.monotonic() < deadline, driver.said()
        time.sleep(0.05)
    return value


def stage_container(host: Host, stage: str) -> str:
    """Return the id of a stage's running container, "" while there is none."""
    of = f"label=retrain.workspace={host.workspace.resolve()}"
    return docker("ps", "--quiet", "--filter", of, "--filter", f"label=retrain.stage={stage}")


def progress_of(host: Host, stage: str) -> float:
    """Return how far a stage of the last run says that it is."""
    run = Run.last(host.workspace)
    done = 0.0
    if run is not None and (events := run.folder / "events.jsonl").exists():
        for line in events.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                event = json.loads(line)
                if event["stage"] == stage:
                    done = event.get("done", 0)
    return done


def at_step(host: Host, driver: Driver, step: int) -> str:
    """Return the id of the training's container once that many steps are done.

    The container comes first: before it, the last run is the one before this.
    """
    container: str = wait_for(driver, lambda: stage_container(host, "train"))
    wait_for(driver, lambda: progress_of(host, "train") >= step)
    return container


def is_running(container: str) -> bool:
    """Return whether a container runs."""
    return docker("inspect", "--format={{.State.Running}}", container) == "true"


def require_service(host: Host) -> None:
    """Fail unless the service is as it was before, and nothing of a run is left."""
    assert is_running(host.container)
    assert host.backend.healthy()
    assert not (host.workspace / RECORD_FILE).exists()
    assert not locks.is_held(host.workspace)
    for label in ("workspace", "probe"):
        of = f"label=retrain.{label}={host.workspace.resolve()}"
        assert docker("ps", "--all", "--quiet", "--filter", of) == ""


def published(host: Host) -> dict[tuple[str, str, str], str]:
    """Return the digest of every published artifact by (stage, fingerprint, name).

    Fails for one that is not what its result says.
    """
    found = {}
    for path in sorted((host.workspace / "store").glob(f"*/*/{RESULT_FILE}")):
        result = Result.model_validate_json(path.read_text(encoding="utf-8"))
        for name, output in result.outputs.items():
            digest = files.digest_path(host.workspace / output.path)
            assert digest == output.digest, f"{output.path} is broken"
            found[result.stage, result.fingerprint, name] = digest
    return found


def recover(host: Host) -> float:
    """Call `driver recover` and return the seconds until the service was back."""
    started = time.monotonic()
    done = host.driver("recover")
    took = time.monotonic() - started
    assert done.returncode == 0, done.stdout + done.stderr
    assert took < RECOVERY_S
    require_service(host)
    return took


def merged_model(teacher: Path) -> Path:
    """Return the merged model of a trained teacher: a base that knows the items already."""
    (folder,) = teacher.glob("store/merge/*/out/merged")
    return folder
