"""Starts a stage again after a failure that may pass, and never after one that would repeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from contracts.errors import RetrainError

T = TypeVar("T")


def retried(
    attempt: Callable[[], T],
    times: int,
    pause_s: float,
    tell: Callable[[RetrainError, float], None],
) -> T:
    """Return what `attempt` returns; call it again up to `times` times while failures may pass.

    The pause doubles each time; `tell` is called before it with the failure and its length.
    """
    for number in range(times):
        try:
            return attempt()
        except RetrainError as error:
            if not error.passing:
                raise
            pause = pause_s * 2**number
            tell(error, pause)
            time.sleep(pause)
    return attempt()
