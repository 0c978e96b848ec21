"""Rendered Python files as modules of this process."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def taken(folder: Path, name: str) -> ModuleType:
    """Import the file of that name, without its ending."""
    spec = importlib.util.spec_from_file_location(f"{folder.name}_{name}", folder / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
