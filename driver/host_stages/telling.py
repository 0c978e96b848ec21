"""Text for people from the stages that the driver runs itself."""

from __future__ import annotations

import sys


def say(*lines: str) -> None:
    """Tell people; on stderr, as a stage in a container does."""
    print(*lines, sep="\n", file=sys.stderr)
