"""The GPU as NVML sees it: what is there, how much of it is free, and who holds it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import GpuUnavailable

_MIB = 1 << 20
_POLL_S = 0.5


@dataclass(frozen=True)
class Gpu:
    """One device. Memory in MiB; `holders` are (pid, command, MiB)."""

    index: int
    name: str
    driver: str
    total_mib: int
    used_mib: int
    holders: tuple[tuple[int, str, int], ...]

    @property
    def free_mib(self) -> int:
        """Memory that a new process could have."""
        return self.total_mib - self.used_mib


def devices() -> list[Gpu]:
    """Return the host's GPUs; `GpuUnavailable` without an NVIDIA driver or without a device."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise GpuUnavailable(
            "this host has no working NVIDIA driver",
            why=str(error),
            todo="Install the driver (`nvidia-smi` must work), or set train.device=cpu.",
        ) from error
    try:
        found = [_read(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise GpuUnavailable("the NVIDIA driver does not answer", why=str(error)) from error
    finally:
        pynvml.nvmlShutdown()
    if not found:
        raise GpuUnavailable("the NVIDIA driver sees no GPU")
    return found


def _read(index: int) -> Gpu:
    import pynvml as nvml

    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        driver=str(nvml.nvmlSystemGetDriverVersion()),
        total_mib=memory.total // _MIB,
        used_mib=memory.used // _MIB,
        holders=tuple(
            (process.pid, _command(process.pid), (process.usedGpuMemory or 0) // _MIB)
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        ),
    )


def _command(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "?"  # of another user, or gone already
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()[:120]


def wait_free(needed_mib: int, timeout_s: float) -> Gpu:
    """Wait until the first GPU has `needed_mib` free and return it.

    Raises `GpuUnavailable` naming who holds the memory. Unloading a model takes 0.5 to 1.5 s
    until the driver shows it (measured with Ollama).
    """
    deadline = time.monotonic() + timeout_s
    while True:
        gpu = devices()[0]
        if gpu.free_mib >= needed_mib:
            return gpu
        if time.monotonic() > deadline:
            held = "; ".join(f"pid {pid} ({mib} MiB): {cmd}" for pid, cmd, mib in gpu.holders)
            raise GpuUnavailable(
                f"the GPU has {gpu.free_mib} MiB free, {needed_mib} MiB are needed",
                why=f"held by {held or 'processes of other users or containers'}",
                todo="Stop what holds it, then run again.",
            )
        time.sleep(_POLL_S)
