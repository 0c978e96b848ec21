"""The line that a benchmark prints for each figure."""

from __future__ import annotations

import json
from typing import Any


def compared(
    name: str, ours: float, other: float, unit: str, *, more: bool = False, digits: int = 2
) -> dict[str, Any]:
    """Return both figures and their ratio, above 1 where ours is better; `more` is better, or less.

    The ratio is None where there is nothing to divide by.
    """
    over, under = (ours, other) if more else (other, ours)
    return {
        "name": name,
        "ours": round(ours, digits),
        "other": round(other, digits),
        "ratio": round(over / under, 2) if under else None,
        "unit": unit,
    }


def show(name: str, ours: float, other: float, unit: str, **how: Any) -> None:
    """Print `compared`."""
    print(json.dumps(compared(name, ours, other, unit, **how)), flush=True)
