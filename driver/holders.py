"""Who holds a GPU: processes, by the container they are in; and the end of those that may end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from contracts.errors import BackendUnavailable, DockerUnavailable, GpuUnavailable
from driver.adapters import processes
from driver.adapters.processes import HostProcess
from driver.settings import GpuSettings

if TYPE_CHECKING:  # the Docker SDK takes 0.2 s to import
    from driver.adapters.containers import ContainerHost, ContainerState
    from driver.adapters.gpu import Gpu
    from driver.window import Window

_OURS = "retrain.workspace"
"""The label of every stage container (driver/runners/leftovers.py): the run's own business."""


@dataclass(frozen=True)
class Holder:
    """A process that holds memory of a GPU, as far as it can be known."""

    pid: int
    mib: int | None
    process: HostProcess | None
    """None where this host's /proc has no such process that we could see."""
    container: ContainerState | None
    """The container around it, if the engine knows it."""

    def __str__(self) -> str:
        memory = "memory unknown" if self.mib is None else f"{self.mib} MiB"
        if self.process is None:
            seen = "ended just now, or of another PID namespace"
        else:
            seen = self.process.command
        text = f"pid {self.pid} ({memory}): {seen}"
        if self.container:
            return f"{text}, in container {self.container.name} ({self.container.image})"
        if self.process and self.process.container_ids:
            return f"{text}, in a container {self.process.container_ids[-1][:12]} of another engine"
        return text


class Holders:
    """Names who holds a GPU, and stops what the settings allow."""

    def __init__(
        self,
        settings: GpuSettings,
        window: Window,
        engine: Callable[[], ContainerHost],
        find: Callable[[int], HostProcess | None] = processes.find,
        end: Callable[[HostProcess, float], bool] = processes.end,
    ) -> None:
        """`engine` connects to this host's Docker engine; `DockerUnavailable` where none is."""
        self._settings = settings
        self._window = window
        self._connect = engine
        self._find = find
        self._end = end
        self._engine: ContainerHost | None = None

    def of(self, gpus: Sequence[Gpu]) -> list[Holder]:
        """Return who holds these GPUs, each process once, the largest first."""
        found: dict[int, int | None] = {}
        for process in (process for gpu in gpus for process in gpu.processes):
            known = found.get(process.pid)
            found[process.pid] = process.mib if known is None else known + (process.mib or 0)
        return [self._holder(pid, mib) for pid, mib in found.items() if pid != os.getpid()]

    def _holder(self, pid: int, mib: int | None) -> Holder:
        process = self._find(pid)
        container = self._container(process.container_ids) if process else None
        return Holder(pid, mib, process, container)

    def _container(self, ids: Sequence[str]) -> ContainerState | None:
        """Return the outermost container that this host's engine knows."""
        if not ids:
            return None
        try:
            self._engine = self._engine or self._connect()
            known = next((each for each in ids if self._engine.exists(each)), None)
            return self._engine.state(known) if known else None
        except (DockerUnavailable, BackendUnavailable):  # none here, or removed just now
            return None

    def stop_allowed(self, gpus: Sequence[Gpu]) -> None:
        """Stop what holds these GPUs and may be stopped; what may not is left alone.

        Raises `GpuUnavailable` for one that should have stopped and did not.
        """
        stopped: set[str] = set()
        for holder in self.of(gpus):
            container = holder.container
            if self.may_stop(holder) and container:
                if container.id not in stopped:
                    self._stop(container)
                    stopped.add(container.id)
            elif self.may_kill(holder) and holder.process:
                self._kill(holder, holder.process)

    def may_stop(self, holder: Holder) -> bool:
        """Return whether the holder's container may be stopped, and can be started again."""
        container = holder.container
        return (
            container is not None
            and not _why_not(container)
            and _matches(container.name, self._settings.may_stop)
        )

    def may_kill(self, holder: Holder) -> bool:
        """Return whether the holder is a program outside of containers that may be ended."""
        process = holder.process
        return (
            process is not None
            and not process.container_ids
            and process.pid > 1
            and _matches(process.command, self._settings.may_kill)
        )

    def advice(self, holders: Sequence[Holder]) -> str:
        """Return what a user can do about these holders."""
        containers = {h.container.name: h.container for h in holders if h.container}
        plain = [str(h.pid) for h in holders if h.process and not h.process.container_ids]
        by_hand = [f"`docker stop {' '.join(containers)}`"] if containers else []
        by_hand += [f"`kill {' '.join(plain)}`"] if plain else []
        if not by_hand:
            return "`nvidia-smi` on the host may show more; a crashed program can need a reboot."
        kept = {name: why for name, each in containers.items() if (why := _why_not(each))}
        keys = ["gpu.may_stop"] if len(kept) < len(containers) else []
        keys += ["gpu.may_kill"] if plain else []
        allow = f", or allow that ({', '.join(keys)})" if keys else ""
        text = f"Stop what holds it: {' and '.join(by_hand)}{allow}; then run again."
        return " ".join([text, *(f"No run stops {name}: {why}." for name, why in kept.items())])

    def _stop(self, container: ContainerState) -> None:
        host = self._engine.host if self._engine else ""
        try:
            self._window.stop_other(container, host, self._settings.stop_timeout_s)
        except BackendUnavailable as error:
            raise GpuUnavailable(error.what, why=error.why) from error

    def _kill(self, holder: Holder, process: HostProcess) -> None:
        try:
            gone = self._end(process, self._settings.stop_timeout_s)
        except PermissionError as error:
            raise GpuUnavailable(
                f"a program that holds the GPU cannot be ended: {process.command}",
                why=f"pid {process.pid} is another user's",
                todo=f"`sudo kill {process.pid}`, then run again.",
            ) from error
        how = "was ended, as gpu.may_kill allows; it is not started again"
        self._window.warnings.append(f"{holder} {how if gone else 'does not end, not even killed'}")


def _why_not(container: ContainerState) -> str:
    """Return why a container is never stopped, whatever the settings allow; "" if it may be."""
    if container.removes_itself:
        return "it was made with --rm, and could not be started again"
    if workspace := container.labels.get(_OURS):
        return f"it is a stage of the run in {workspace}"
    return ""


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
