"""`python -m images.labeler JOB.json`: label, split or evaluate, as the job says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from contracts import entrypoint
from contracts.entrypoint import StageContext
from contracts.stage import Metrics, Stage
from contracts.stages import (
    EVALUATE,
    LABEL,
    SPLIT,
)
from images.labeler import evaluate, label, split

WORKS: dict[Stage, Callable[[StageContext[Any]], Metrics]] = {
    LABEL: label.work,
    SPLIT: split.work,
    EVALUATE: evaluate.work,
}

if __name__ == "__main__":
    sys.exit(entrypoint.main(sys.argv, WORKS))
