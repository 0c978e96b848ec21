"""The GPUs as NVML sees them: what is there, how much of it is free, and who holds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.errors import GpuUnavailable

_MIB = 1 << 20
_BRANCHES = {11: 450, 12: 525, 13: 580}
"""Oldest driver branch for each CUDA major version, by which all of its minor versions run
(NVIDIA, CUDA Compatibility, "Minor Version Compatibility", table 1)."""
_MENDS = {
    9: "Load it (`sudo modprobe nvidia`); `nvidia-smi` must work.",  # DRIVER_NOT_LOADED
    15: "Look at `journalctl -k` for its Xid error, and reboot.",  # GPU_IS_LOST
    18: "Reboot: the driver was updated, and the kernel still runs the old one.",  # MISMATCH
}
"""What to do, by NVML's error code (nvmlReturn_t)."""
_INSTALL = "Install the driver (`nvidia-smi` must work), or set train.device=cpu."


@dataclass(frozen=True)
class Process:
    """A process that has something open on a GPU. `mib` is None where the driver does not tell."""

    pid: int
    mib: int | None


@dataclass(frozen=True)
class Gpu:
    """A GPU, or one instance of a GPU that is divided (MIG). Memory in MiB."""

    index: str
    """`0`; an instance is `0:1`, as the NVIDIA container toolkit counts them."""
    uuid: str
    name: str
    total_mib: int
    free_mib: int
    processes: tuple[Process, ...]
    unlisted: str = ""
    """Why there may be more processes than listed; "" where there are not."""


@dataclass(frozen=True)
class Host:
    """The driver of this host, the newest CUDA that it speaks, and its GPUs."""

    driver: str
    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


def survey() -> Host:
    """Return what is here now; `GpuUnavailable` without an NVIDIA driver or without a GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        todo = _MENDS.get(getattr(error, "value", 0), _INSTALL)
        raise GpuUnavailable(
            "this host has no working NVIDIA driver", why=str(error), todo=todo
        ) from error
    try:
        cuda = pynvml.nvmlSystemGetCudaDriverVersion()  # 12080 is 12.8
        host = Host(
            driver=str(pynvml.nvmlSystemGetDriverVersion()),
            cuda=(cuda // 1000, cuda % 1000 // 10),
            gpus=tuple(gpu for i in range(pynvml.nvmlDeviceGetCount()) for gpu in _read(i)),
        )
    except pynvml.NVMLError as error:
        todo = _MENDS.get(getattr(error, "value", 0), "")
        raise GpuUnavailable(
            "the NVIDIA driver does not answer", why=str(error), todo=todo
        ) from error
    finally:
        pynvml.nvmlShutdown()
    if not host.gpus:
        raise GpuUnavailable(f"the NVIDIA driver {host.driver} sees no GPU")
    return host


def _read(index: int) -> Iterator[Gpu]:
    """Yield a GPU, or its instances: of a divided one only root may read the whole."""
    import pynvml as nvml

    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    instances = list(_instances(handle))
    if not instances:
        yield _gpu(str(index), handle)
    for number, instance in enumerate(instances):
        yield _gpu(f"{index}:{number}", instance)


def _instances(handle: Any) -> Iterator[Any]:
    import pynvml as nvml

    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # not supported: all but the data centre's cards
        return
    if current != nvml.NVML_DEVICE_MIG_ENABLE:
        return
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError_NotFound:
            continue  # numbers have gaps where an instance was removed


def _gpu(index: str, handle: Any) -> Gpu:
    import pynvml as nvml

    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    processes, unlisted = _processes(handle)
    return Gpu(
        index=index,
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        name=str(nvml.nvmlDeviceGetName(handle)),
        total_mib=memory.total // _MIB,
        free_mib=memory.free // _MIB,
        processes=processes,
        unlisted=unlisted,
    )


def _processes(handle: Any) -> tuple[tuple[Process, ...], str]:
    """Return who has something open, largest first, and why there may be more.

    Programs that compute, that draw, and that compute through MPS are in three lists; one process
    can be in several, with the same memory.
    """
    import pynvml as nvml

    found: dict[int, int | None] = {}
    unlisted = ""
    for ask in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
        nvml.nvmlDeviceGetMPSComputeRunningProcesses,
    ):
        try:
            listed = ask(handle)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
            continue
        except nvml.NVMLError as error:  # no permission, or the list grew while it was read
            unlisted = str(error)
            continue
        for process in listed:
            mib = None if process.usedGpuMemory is None else process.usedGpuMemory // _MIB
            known = found.get(process.pid)
            found[process.pid] = mib if known is None else max(known, mib or 0)
    processes = [Process(pid, mib) for pid, mib in found.items()]
    return tuple(sorted(processes, key=lambda each: (-(each.mib or 0), each.pid))), unlisted


def choose(host: Host, names: Sequence[str], count: int | None) -> tuple[Gpu, ...]:
    """Return the GPUs of these indices or UUIDs; without names the first `count`, None for all.

    Docker gives a container that asks for a number of GPUs the first ones (moby,
    `countToDevices`). The index of a divided GPU stands for all of its instances. Raises
    `GpuUnavailable` for one that is not here.
    """
    wanted = names or [str(number) for number in range(count or 0)]
    if not wanted:
        return host.gpus
    chosen: dict[str, Gpu] = {}
    for name in wanted:
        found = [gpu for gpu in host.gpus if _is_called(gpu, name)]
        if not found:
            here = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in host.gpus)
            raise GpuUnavailable(
                f"this host has no GPU {name}",
                why=f"it has {here}",
                todo="Correct gpu.devices, or the devices of the trainer in compose.retrain.yml.",
            )
        chosen |= {gpu.uuid: gpu for gpu in found}
    return tuple(chosen.values())


def _is_called(gpu: Gpu, name: str) -> bool:
    return name in {gpu.uuid, gpu.index, gpu.index.split(":")[0]}


def check_driver(host: Host, cuda: tuple[int, int] | None) -> str:
    """Hold the driver to the CUDA that training was built for; return a warning, or "".

    Raises `GpuUnavailable` for a driver of an older major version. Within one major version
    programs run on older drivers, but for what these have to compile themselves (PTX).
    """
    if cuda is None:
        raise GpuUnavailable(
            "the trainer's PyTorch is built without CUDA",
            todo="Build its image on a base with CUDA (TRAINER_BASE_IMAGE), or install such a "
            "PyTorch; or set train.device=cpu.",
        )
    needed, spoken = (".".join(map(str, version)) for version in (cuda, host.cuda))
    if host.cuda[0] < cuda[0]:
        branch = _BRANCHES.get(cuda[0])
        raise GpuUnavailable(
            f"the NVIDIA driver {host.driver} is too old for the trainer",
            why=f"it speaks CUDA {spoken}, and the trainer's PyTorch is built for {needed}",
            todo=f"Install a driver of branch {branch} or newer."
            if branch
            else f"Install a driver for CUDA {needed}.",
        )
    if host.cuda < cuda:
        return (
            f"the NVIDIA driver {host.driver} speaks CUDA {spoken}, and the trainer's PyTorch is "
            f"built for {needed}: it runs, except for kernels that the driver has to compile; if "
            "training fails with an unsupported PTX version, update the driver"
        )
    return ""
