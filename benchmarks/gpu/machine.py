"""The machine: what it has, and what it lacks for these benchmarks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from contracts.errors import GpuUnavailable, RetrainError, SettingsInvalid
from driver.adapters.gpu import survey

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
_TODO = "docs/how-to/gpu-figures.md says what is needed; `--device cpu` needs no GPU."


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
    try:
        host = survey()
    except ImportError as error:
        raise GpuUnavailable("no GPU can be asked for", why="nvidia-ml-py is missing") from error
    if not host.gpus:
        raise GpuUnavailable("the NVIDIA driver has no GPU")
    first = host.gpus[0]
    import torch

    if not torch.cuda.is_available():
        cuda = torch.version.cuda
        built = f"for CUDA {cuda}" if cuda else "without CUDA"
        raise GpuUnavailable(
            f"PyTorch cannot use the GPU, {first.name}",
            why=f"PyTorch {torch.__version__} was built {built}, the driver speaks up to CUDA "
            + ".".join(map(str, host.cuda)),
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
            todo = f"{error.todo} {_TODO}"
            raise GpuUnavailable(error.what, why=why, todo=todo) from error
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
