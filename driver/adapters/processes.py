"""Processes of this host as /proc has them: who a process id is, and how one is ended."""

from __future__ import annotations

import os
import re
import select
import signal
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_HOST_PIDS = "pid:[4026531836]"
"""The first PID namespace of a kernel (PROC_PID_INIT_INO, include/linux/proc_ns.h)."""
_CONTAINER_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_SHOWN = 160
"""Characters of a command line that are shown."""


@dataclass(frozen=True)
class HostProcess:
    """A process, and the ids of the containers around it, the outermost first."""

    pid: int
    command: str
    container_ids: tuple[str, ...]
    started: str
    """In clock ticks since the boot: with the pid, it names one process for good."""


def find(pid: int, proc: Path = _PROC) -> HostProcess | None:
    """Return a process by the id that the NVIDIA driver has for it; None if it cannot be seen.

    The driver may have the host's ids where we have others, in a container of our own: there a
    process counts as the one that is meant only if it has the GPU's device files open.
    """
    folder = proc / str(pid)
    try:
        if (proc / "self/ns/pid").readlink().name != _HOST_PIDS and not _uses_gpu(folder):
            return None
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        name = (folder / "comm").read_text(encoding="utf-8", errors="replace")
        # The name in field 2 may hold anything; field 22 is the start (proc_pid_stat(5)).
        stat = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return HostProcess(
            pid=pid,
            command=command.strip()[:_SHOWN] or f"[{name.strip()}]",
            container_ids=container_ids((folder / "cgroup").read_text(encoding="utf-8")),
            started=stat.split()[19],
        )
    except (OSError, IndexError):
        return None  # gone, or hidden from us (hidepid)


def container_ids(cgroup: str) -> tuple[str, ...]:
    """Return the container ids in a text of /proc/PID/cgroup, the outermost first.

    Docker, containerd, CRI-O and Podman all put the id of 64 hex digits into the path, under
    cgroup v1 (`12:devices:/docker/ID`) and v2 (`0::/system.slice/docker-ID.scope`) alike. A
    container within a container has several.
    """
    paths = [line.split(":", 2)[2] for line in cgroup.splitlines() if line.count(":") > 1]
    found: list[list[str]] = [_CONTAINER_ID.findall(path) for path in paths]
    found.sort(key=len)
    return tuple(dict.fromkeys(found[-1])) if found else ()


def _uses_gpu(folder: Path) -> bool:
    return any(
        link.is_symlink() and str(link.readlink()).startswith("/dev/nvidia")
        for link in (folder / "fd").iterdir()
    )


def end(process: HostProcess, grace_s: float, proc: Path = _PROC) -> bool:
    """End a process, by SIGTERM and after `grace_s` by SIGKILL; return whether it is gone.

    Never another one that has got its id meanwhile. Raises PermissionError.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        now = find(process.pid, proc)
        if now is None or now.started != process.started:
            return True
        for how in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(descriptor, how)
            if select.select([descriptor], [], [], grace_s)[0]:
                return True
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
    return False
