"""Which CUDA an installed PyTorch is built for, without the seconds that its import takes."""

from __future__ import annotations

SCRIPT = """
import importlib.util, pathlib, runpy
spec = importlib.util.find_spec("torch")
version = pathlib.Path(spec.origin).with_name("version.py")
print(runpy.run_path(str(version))["cuda"] or "")
"""
"""For `python -c`, where the PyTorch is: in this environment, or in an image."""


def parse(output: str) -> tuple[int, int] | None:
    """Return the version that the script has printed; None for a PyTorch without CUDA."""
    numbers = output.strip().split(".")
    return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else None
