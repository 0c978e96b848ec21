"""A DOUBLE of nvidia-ml-py: it stands in for an NVIDIA driver and gives the answers of a file.

The files in `recorded/` say where their answers are from. Errors are the real module's.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml

from tests.record_nvml import LISTS

RECORDED = Path(__file__).with_name("recorded")


def recording(name: str) -> dict[str, Any]:
    """Return a recording by the name of its card: rtx3090, h100."""
    text = (RECORDED / f"nvml_{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


class RecordedNvml(ModuleType):
    """The module as driver/adapters/gpu.py calls it. A handle is the device's own answers."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__("pynvml")
        self._answers = answers
        self.open = 0
        """How often it was initialised and not shut down again."""
        for asked, function in LISTS.items():
            setattr(self, function, self._processes(asked))

    def __getattr__(self, name: str) -> Any:
        """Give the real module's errors and constants."""
        if not name.startswith(("NVMLError", "NVML_")):
            raise AttributeError(name)
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return str(_answer(self._answers["driver_version"]))

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return int(_answer(self._answers["cuda_driver_version"]))

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._answers["devices"])

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return _answer(self._answers["devices"][index])

    def nvmlDeviceGetUUID(self, handle: Any) -> str:  # noqa: N802
        return str(_answer(handle["uuid"]))

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        return str(_answer(handle["name"]))

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        return SimpleNamespace(**_answer(handle["memory"]))

    def nvmlDeviceGetMigMode(self, handle: Any) -> Any:  # noqa: N802
        return _answer(handle["mig_mode"])

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:  # noqa: N802
        return len(handle["mig"])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any:  # noqa: N802
        return _answer(handle["mig"][index])

    @staticmethod
    def _processes(asked: str) -> Any:
        def ask(handle: Any) -> list[Any]:
            return [SimpleNamespace(**process) for process in _answer(handle[asked])]

        return ask


def _answer(recorded: Any) -> Any:
    """Return a recorded answer, or raise the recorded error."""
    if isinstance(recorded, dict) and set(recorded) == {"error"}:
        raise pynvml.NVMLError(recorded["error"])
    return recorded
