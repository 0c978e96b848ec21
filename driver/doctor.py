"""`driver doctor`: what this host lacks, and the command that mends each. Changes nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from contracts import files, stages
from contracts.errors import GpuUnavailable, RetrainError, StageFailed, without_userinfo
from driver import disk, forecast, lease, preflight
from driver.adapters import gpu
from driver.pipeline import stages_for
from driver.report.console import WrittenConsole
from driver.session import Session

_MIN_MEMORY_GB = 24
"""An estimate: loading 14B file by file and converting it, with room for the system. The merge
itself streams (docs/reference/merge.md)."""


@dataclass(frozen=True)
class Finding:
    """One question's answer: `ok` True or False, or None where it does not apply."""

    name: str
    ok: bool | None
    text: str
    mend: str = ""


def show(session: Session) -> int:
    """Print a table of findings; return 0, or 1 when something is lacking."""
    console = WrittenConsole(highlight=False, soft_wrap=True)
    table = Table("", "what", "found")
    findings = [_ask(name, question, session) for name, question in _QUESTIONS.items()]
    marks = {True: "[green]ok[/green]", False: "[red]lacks[/red]", None: "[dim]–[/dim]"}
    for finding in findings:
        table.add_row(marks[finding.ok], finding.name, escape(finding.text))
    console.print(table)
    for finding in findings:
        if finding.mend:  # outside the table, which would cut a command that is to be copied
            console.print(f"{finding.name}: {escape(finding.mend)}")
    lacking = sum(finding.ok is False for finding in findings)
    console.print(
        f"{lacking} of {len(findings)} to mend before `python -m driver run`."
        if lacking
        else "This host has what a run needs."
    )
    session.close()
    return 1 if lacking else 0


def _ask(name: str, question: Callable[[Session], Finding], session: Session) -> Finding:
    """Return the answer; an error of ours is an answer as well."""
    try:
        return question(session)
    except OSError as error:
        return Finding(name, ok=False, text=str(error))
    except RetrainError as error:
        text = f"{error.what}: {error.why}" if error.why else error.what
        return Finding(name, ok=False, text=text, mend=error.todo)


def _gpu(session: Session) -> Finding:
    if session.settings.train.device == "cpu":
        return Finding("GPU", ok=None, text="train.device=cpu asks for none")
    if not preflight.gpu_is_here(session):
        return Finding("GPU", ok=None, text="it is on the Docker engine's host: ask there")
    try:
        host = gpu.survey()
    except GpuUnavailable:
        return Finding("GPU", ok=None, text="not known without the driver")
    chosen = lease.devices(session, host)
    text = ", ".join(f"{each.index}: {each.name}, {each.total_mib} MiB" for each in chosen)
    held = "; ".join(str(holder) for holder in lease.holders(session).of(chosen))
    return Finding("GPU", ok=True, text=f"{text}; held by {held}" if held else text)


def _training(session: Session) -> Finding:
    """Say what the training will take; whether that is there is known on the GPU's host only."""
    found = forecast.forecast(session)
    if found is None:
        return Finding("Training", ok=None, text="this base's memory cannot be estimated")
    text = found.text().removeprefix("train: ")
    fits = None if found.device is None else found.memory.total <= found.device.usable_mib
    mend = "--set train.micro_batch_size=null, so that it is chosen" if fits is False else ""
    return Finding("Training", ok=fits, text=text, mend=mend)


def _driver(session: Session) -> Finding:
    if session.settings.train.device == "cpu" or not preflight.gpu_is_here(session):
        return Finding("NVIDIA driver", ok=None, text="no GPU of this host is asked for")
    host = gpu.survey()
    text = f"{host.driver}, CUDA {host.cuda[0]}.{host.cuda[1]}"
    warning = gpu.check_driver(host, session.runner.cuda(stages.TRAIN))
    return Finding("NVIDIA driver", ok=True, text=f"{text}; {warning}" if warning else text)


def _docker(session: Session) -> Finding:
    if session.settings.runner == "process":
        return Finding("Docker engine", ok=None, text="runner=process needs none")
    from driver.adapters.containers import connect

    version = connect().version()
    return Finding(
        "Docker engine", ok=True, text=f"{version['Version']}, API {version['ApiVersion']}"
    )


def _toolkit(session: Session) -> Finding:
    name = "NVIDIA container toolkit"
    if session.settings.runner == "process" or session.settings.train.device == "cpu":
        return Finding(name, ok=None, text="no container asks for a GPU")
    from driver.adapters.containers import connect

    info = connect().info()
    if "nvidia" in info.get("Runtimes", {}) or info.get("CDISpecDirs"):
        return Finding(name, ok=True, text="the engine knows it")
    return Finding(
        name,
        ok=False,
        text="the engine has no runtime nvidia",
        mend="install nvidia-container-toolkit; sudo nvidia-ctk runtime configure "
        "--runtime=docker; sudo systemctl restart docker",
    )


def _images(session: Session) -> Finding:
    if session.settings.runner == "process":
        return Finding("Stage images", ok=None, text="runner=process needs none")
    session.runner.check(stages_for(session.settings))
    return Finding("Stage images", ok=True, text="all that a run needs are built")


def _packages(session: Session) -> Finding:
    if session.settings.runner == "docker":
        return Finding("Python packages", ok=None, text="the images hold them")
    session.runner.check(stages_for(session.settings))
    return Finding("Python packages", ok=True, text="all that the stages import")


def _converter(session: Session) -> Finding:
    name = "llama.cpp converter"
    if session.settings.runner == "docker":
        return Finding(name, ok=None, text="the gguf image holds it")
    return Finding(name, ok=True, text=", ".join(preflight.find_tools(session.settings)))


def _engine(session: Session) -> Finding:
    engine = session.engine
    return Finding("Serving engine", ok=True, text=f"{engine.name} {engine.version()}")


def _teacher(session: Session) -> Finding:
    if session.settings.snapshot.reviewed and session.settings.engine == "llamacpp":
        return Finding("Teacher model", ok=None, text="asked only for items without a review")
    with preflight.connected_teachers(session) as servers:
        for each in servers:  # a run gets on with one of them, but all are meant to be there
            each.model()
    found = ", ".join(f"{each.tag} on {each.address}" for each in servers)
    return Finding("Teacher model", ok=True, text=found)


def _base(session: Session) -> Finding:
    from driver.host_stages import fetch

    params = session.settings.fetch
    fetch.check(params)
    text = params.path or f"{params.model} at {params.revision[:8]}, fetched by the first run"
    return Finding("Base model", ok=True, text=text)


def _baseline(session: Session) -> Finding:
    preflight.check_scores(session)
    name = session.settings.evaluate.baseline
    if not name:
        text = "no base model is named to compare with"
        return Finding("Evaluation", ok=None, text=text, mend=preflight.NO_BASELINE)
    preflight.check_bases(session, [stages.EVALUATE], session.engine.models())
    return Finding("Evaluation", ok=True, text=f"compares with {name}")


def _disk(session: Session) -> Finding:
    wanted = stages_for(session.settings)
    disk.check_disk(session, wanted)
    disk.check_engine_disk(session, wanted)
    folder = disk.existing(session.workspace)
    if not os.access(folder, os.W_OK):
        mend = f"sudo chown -R $USER {folder}, or set workspace"
        return Finding("Disk", ok=False, text=f"{folder} cannot be written to", mend=mend)
    free, needed = disk.free_gb(session.workspace), disk.written_gb(session, wanted)
    return Finding("Disk", ok=True, text=f"{free:.0f} GB free, {needed:.1f} GB needed")


def _memory(session: Session) -> Finding:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    total_gb = int(lines[0].split()[1]) * 1024 / 1e9
    needed_gb: float = _MIN_MEMORY_GB
    if session.settings.fetch.path and Path(session.settings.fetch.path).is_dir():
        needed_gb = 4 + 0.7 * files.size_of(Path(session.settings.fetch.path)) / 1e9
    ok = total_gb >= needed_gb
    mend = "" if ok else "add memory, or swap, for loading and converting the base model"
    return Finding("Memory", ok=ok, text=f"{total_gb:.0f} GB, {needed_gb:.0f} GB needed", mend=mend)


def _backend(session: Session) -> Finding:
    if session.settings.backend is None:
        return Finding("Backend", ok=None, text="none is set")
    preflight.check_backend(session)
    preflight.check_asked(session, [stages.RESTORE, stages.VERIFY, stages.REPROCESS])
    return Finding("Backend", ok=True, text=without_userinfo(session.settings.backend.url))


def _compose(session: Session) -> Finding:
    if session.settings.runner == "process":
        return Finding("Docker Compose", ok=None, text="only to build the images")
    try:
        done = subprocess.run(
            ["docker", "compose", "version", "--short"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise StageFailed(
            "docker compose does not run",
            why=str(error),
            todo="install the package docker-compose-plugin (or docker-compose-v2)",
        ) from error
    return Finding("Docker Compose", ok=True, text=done.stdout.strip())


_QUESTIONS: dict[str, Callable[[Session], Finding]] = {
    "NVIDIA driver": _driver,
    "GPU": _gpu,
    "Training": _training,
    "Docker engine": _docker,
    "Docker Compose": _compose,
    "NVIDIA container toolkit": _toolkit,
    "Stage images": _images,
    "Python packages": _packages,
    "llama.cpp converter": _converter,
    "Serving engine": _engine,
    "Teacher model": _teacher,
    "Base model": _base,
    "Evaluation": _baseline,
    "Disk": _disk,
    "Memory": _memory,
    "Backend": _backend,
}
