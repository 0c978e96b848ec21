"""Runs a stage as a process of this machine: `python -m images.IMAGE JOB`."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from contracts import files
from contracts.converter import find_converter
from contracts.errors import StageFailed
from contracts.orphans import die_with
from contracts.stage import Stage
from driver.runners import torch_cuda
from driver.runners.outcome import Emit, Limits, Listener, failure
from driver.runners.watchdog import Watchdog

_NEEDS = {
    "labeler": ("requests",),
    "trainer": ("torch", "transformers", "trl", "peft", "datasets"),
    "merger": ("torch", "transformers", "peft"),
    "gguf": ("torch", "transformers", "safetensors"),
}
"""Packages that a stage imports, checked before anything is started."""
_STOP_GRACE_S = 10


class ProcessRunner:
    """The runner for a machine without containers: the demo, tests, a plain venv."""

    def check(self, stages: Sequence[Stage]) -> None:
        """Raise `StageFailed` that names what is not installed, llama.cpp's converter included."""
        images = {stage.image for stage in stages if stage.image}
        packages = {package for image in images for package in _NEEDS[image]}
        missing = sorted(p for p in packages if importlib.util.find_spec(p) is None)
        if missing:
            raise StageFailed(
                f"not installed: {', '.join(missing)}",
                why="runner=process runs the stages in this Python environment",
                todo="Install the extra: pip install -e '.[local]', or set runner=docker.",
            )
        if "gguf" in images:
            find_converter()

    def cuda(self, stage: Stage) -> tuple[int, int] | None:
        """Return the CUDA that this environment's PyTorch is built for; None for a CPU's."""
        command = [sys.executable, "-c", torch_cuda.SCRIPT]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except subprocess.CalledProcessError as error:
            raise StageFailed(f"{stage.name} needs PyTorch", why=error.stderr[-300:]) from error
        return torch_cuda.parse(done.stdout)

    def survives(self, stage: Stage, fingerprint: str) -> bool:  # noqa: ARG002
        """Return False: a stage's process dies with its driver."""
        return False

    def collect(self, stage: Stage, job: Path, log: Path, emit: Emit) -> None:
        """Do nothing: a process does not outlive its driver."""

    def run(
        self,
        stage: Stage,
        job: Path,
        log: Path,
        emit: Emit,
        environ: Mapping[str, str],
        limits: Limits,
    ) -> None:
        """Run the stage; on any exception here, the process is stopped first."""
        command = [sys.executable, "-m", f"images.{stage.image}", str(job.resolve())]
        env = {**os.environ, **environ, "PYTHONPATH": _python_path(), "PYTHONUNBUFFERED": "1"}
        with (
            log.open("a", encoding="utf-8") as output,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=output,
                env=env,
                text=True,
                start_new_session=True,
                preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509  # two system calls
            ) as process,
        ):
            watchdog = Watchdog(stage, limits, log, partial(_kill, process))
            listener = Listener(stage, watchdog.listening(emit), output)
            try:
                assert process.stdout is not None  # noqa: S101  # PIPE was asked for
                with watchdog.watching():
                    for line in process.stdout:
                        listener.line(line)
                    exit_code = process.wait()
            except BaseException:
                _stop(process)
                raise
        if exit_code:
            raise failure(stage, exit_code, listener.told, log)


def _python_path() -> str:
    """Put the checkout first, so that a stage runs the code its fingerprint was made from."""
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(files.ROOT), *([inherited] if inherited else [])])


def _kill(process: subprocess.Popen[str]) -> str:
    """Kill a stage that hangs, with its children; nothing explains it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return ""


def _stop(process: subprocess.Popen[str]) -> None:
    """End the stage with its children: it leads a process group of its own."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(_STOP_GRACE_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        return
