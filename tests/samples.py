"""Which sample under examples/ is a task's: its demo.yaml says so, as the Makefile reads it."""

from __future__ import annotations

from pathlib import Path

import yaml

from contracts.files import ROOT


def sample_of(task: str) -> Path:
    """Return the folder of a task's sample."""
    demos = sorted((ROOT / "examples").glob("*/demo.yaml"))
    named = {yaml.safe_load(each.read_text(encoding="utf-8"))["task"]: each for each in demos}
    return named[task].parent
