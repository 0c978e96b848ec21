"""The machine: what it has, and what it lacks for these benchmarks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from contracts.errors import GpuUnavailable, RetrainError, SettingsInvalid

NEEDED = (
    "accelerate",
    "bitsandbytes",
    "dashscope",  # Qwen's vocabulary
    "datasets",
    "peft",
    "pydantic",
    "safetensors",
    "torch",
    "transformers",
    "trl",
)
SHOWN = ("torch", "triton", "transformers", "trl", "peft", "bitsandbytes", "unsloth")
_TODO = "docs/how-to/gpu-figures.md says what is needed; --shape tiny --device cpu needs no GPU."


@dataclass(frozen=True)
class Card:
    """The GPU that is used."""

    uuid: str
    name: str
    driver: str
    total_mib: int
    used_mib: int
    """By others, before anything is started."""


def card() -> Card:
    """Return the first GPU; raise `GpuUnavailable` where there is none that PyTorch can use."""
    if importlib.util.find_spec("pynvml") is None:
        raise GpuUnavailable("NVML cannot be asked: the package nvidia-ml-py is missing")
    from driver.adapters.gpu import survey

    host = survey()
    first = host.gpus[0]
    import torch

    if torch.version.cuda is None:
        raise GpuUnavailable(
            f"PyTorch {torch.__version__} was built without CUDA", why=f"the GPU: {first.name}"
        )
    return Card(
        uuid=first.uuid,
        name=first.name,
        driver=host.driver,
        total_mib=first.total_mib,
        used_mib=first.total_mib - first.free_mib,
    )


def refuse_without(device: str) -> None:
    """Raise one error that names all that is missing for a device."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    packages = f"packages that are missing: {', '.join(missing)}" if missing else ""
    if device == "cuda":
        try:
            if "torch" not in missing:
                card()
        except RetrainError as error:
            why = "; ".join(each for each in (error.why, packages) if each)
            raise GpuUnavailable(error.what, why=why, todo=_TODO) from error
    if missing:
        raise SettingsInvalid(f"this benchmark lacks {packages}", todo=_TODO)


def has_gpu() -> bool:
    """Return whether there is a GPU that PyTorch can use."""
    try:
        card()
    except RetrainError:
        return False
    return True


def memory_of(found: Card) -> Callable[[int], float]:
    """Return a function that says what of the card is taken now, beyond what others had."""
    from driver.adapters.gpu import survey

    def taken(_pid: int) -> float:
        now = next(gpu for gpu in survey().gpus if gpu.uuid == found.uuid)
        return float(now.total_mib - now.free_mib - found.used_mib)

    return taken


def packages() -> dict[str, str]:
    """Return the versions that the figures depend on."""
    known = {}
    for name in SHOWN:
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            known[name] = "-"
    return known
