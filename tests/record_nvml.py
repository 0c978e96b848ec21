"""Records what NVML answers on this host, for tests/unit/recorded: run it where a GPU is.

python -m tests.record_nvml "two RTX 3090, a desktop on the first" >nvml_rtx3090.json
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

LISTS = {
    "compute": "nvmlDeviceGetComputeRunningProcesses",
    "graphics": "nvmlDeviceGetGraphicsRunningProcesses",
    "mps": "nvmlDeviceGetMPSComputeRunningProcesses",
}


def record(origin: str) -> dict[str, Any]:
    """Return every answer that driver/adapters/gpu.py asks for; an error as `{"error": code}`."""
    import pynvml as nvml

    nvml.nvmlInit()
    try:
        return {
            "origin": origin,
            "nvidia_ml_py": importlib.metadata.version("nvidia-ml-py"),
            "driver_version": nvml.nvmlSystemGetDriverVersion(),
            "cuda_driver_version": nvml.nvmlSystemGetCudaDriverVersion(),
            "devices": [
                _device(nvml.nvmlDeviceGetHandleByIndex(index))
                for index in range(nvml.nvmlDeviceGetCount())
            ],
        }
    finally:
        nvml.nvmlShutdown()


def _device(handle: Any) -> dict[str, Any]:
    import pynvml as nvml

    found = _answers(handle)
    found["mig_mode"] = _asked(lambda: list(nvml.nvmlDeviceGetMigMode(handle)))
    if found["mig_mode"] == [1, 1]:
        found["mig"] = [
            _asked(partial(_instance, handle, number))
            for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
        ]
    return found


def _instance(handle: Any, number: int) -> dict[str, Any]:
    import pynvml as nvml

    return _answers(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))


def _answers(handle: Any) -> dict[str, Any]:
    import pynvml as nvml

    def memory() -> dict[str, int]:
        found = nvml.nvmlDeviceGetMemoryInfo(handle)
        return {name: int(getattr(found, name)) for name in ("total", "free", "used")}

    answers = {
        "uuid": nvml.nvmlDeviceGetUUID(handle),
        "name": nvml.nvmlDeviceGetName(handle),
        "memory": _asked(memory),
    }
    for name, function in LISTS.items():
        answers[name] = _asked(partial(_listed, getattr(nvml, function), handle))
    return answers


def _listed(ask: Callable[[Any], list[Any]], handle: Any) -> list[dict[str, int | None]]:
    return [_process(found) for found in ask(handle)]


def _process(found: Any) -> dict[str, int | None]:
    """Return an nvmlProcessInfo_t; None stands for NVML_VALUE_NOT_AVAILABLE."""
    names = ("pid", "usedGpuMemory", "gpuInstanceId", "computeInstanceId")
    return {name: getattr(found, name) for name in names}


def _asked(ask: Callable[[], Any]) -> Any:
    import pynvml as nvml

    try:
        return ask()
    except nvml.NVMLError as error:
        return {"error": error.value}


if __name__ == "__main__":
    what = " ".join(sys.argv[1:]) or "unnamed host"
    when = datetime.now(UTC).date().isoformat()
    json.dump(record(f"recorded on {when}: {what}"), sys.stdout, indent=2)
