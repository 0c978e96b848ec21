"""What the servers of the pool's tests say, and pauses after it that a test can wait for."""

from __future__ import annotations

import pytest

from contracts.errors import EngineUnavailable
from images.labeler import server
from serving.engine import Answer

DOWN = EngineUnavailable("nobody is there")


def answer(*, waited_s: float | None = 0.0, seconds: float = 1.0) -> Answer:
    """Return a good answer that took so long, and waited for a slot so much of it."""
    return Answer("x", True, "stop", 1, 1, seconds, waited_s)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server that failed be tried again at once."""
    monkeypatch.setattr(server, "_FIRST_PAUSE_S", 0.01)
