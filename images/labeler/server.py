"""A server of the pool: how much it gets, when it rests, and when it is tried again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from contracts.errors import RetrainError
from images.labeler.slots import Slots
from serving.engine import Answer

Question = TypeVar("Question")
Ask = Callable[[Question], Answer]

_log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 3
"""Requests without an answer, after which a server rests."""
USELESS_IN_A_ROW = 5
"""Answers of no use, after which a server that never gave a good one is behind the others."""
USELESS = "its answers are of no use"
_OUTDONE = 3
"""Questions, in a row, that it failed and another one answered: after them it rests."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0


class Gone(Exception):
    """A server answers nothing at all for now; `error` says why.

    `sent`: it was there until the question came, which may be why it is gone.
    """

    def __init__(self, error: RetrainError, *, sent: bool = False) -> None:
        super().__init__(error.what)
        self.error = error
        self.sent = sent


@dataclass(eq=False)
class Server(Generic[Question]):
    """One server. `ask` raises `Gone` if the server is to blame for no answer.

    What is counted against it is in a row: a good answer takes it all back.
    """

    name: str
    ask: Ask[Question]
    ceiling: int
    answered: int = 0
    """Good answers."""
    slots: Slots = field(init=False)
    in_flight: int = 0
    alone: bool = False
    """Whether what is in flight must stay the only one."""
    failures: int = 0
    """Requests without an answer; those that were under way together count as one."""
    misses: int = 0
    """Those of the failures that are no question's fault."""
    useless: int = 0
    """Answers of no use."""
    back_at: float = 0.0
    """When it is tried again, by time.monotonic(); 0 where it does not rest."""
    sick_since: float | None = None
    _outdone: int = 0
    """Questions that it failed, or answered uselessly, and that another server answered well."""
    _counted: int = 0
    """Requests up to this number were under way when a failure was counted."""
    _rested: int = 0
    """Requests up to this number are what it has rested for."""

    def __post_init__(self) -> None:
        self.slots = Slots(self.ceiling)

    @property
    def in_use(self) -> bool:
        """Whether it counts: it is not known to be the one to blame."""
        is_open = self.suspect and not self.misses and self._outdone < _OUTDONE
        return not self.back_at or is_open

    @property
    def suspect(self) -> bool:
        """Whether it failed question after question, so that it may be the one to blame."""
        return self.failures - self.misses >= FAILURES_IN_A_ROW

    def room(self, now: float) -> int:
        """Return how many more questions it may get; one only, to try, after a failure."""
        if now < self.back_at or self.alone:
            return 0
        return (1 if self.failures or self.back_at else self.slots.limit) - self.in_flight

    def begin(self) -> int:
        """Count a request that is sent; return its number."""
        self.in_flight += 1
        return self.slots.begin(time.monotonic())

    def fail(self, number: int, error: RetrainError, *, gone: bool, is_probe: bool = False) -> None:
        """Count a request without an answer, and let the server rest if there are too many.

        One fault of the server takes all that is under way with it: it rests for one pause, not for
        one that doubled with each of them. Pauses grow where no question can be to blame.
        """
        if number > self._counted:
            self.failures, self._counted = self.failures + 1, self.slots.begun
            self.misses += gone or is_probe
        elif not gone or self.back_at:
            return
        elif not self.misses:  # others failed with it, but now it shows whose fault it was
            self.misses = 1
        if self.misses or self.failures >= FAILURES_IN_A_ROW:
            self.sick_since = self.sick_since or time.monotonic()
            self.rest(error.what)

    def succeed(self) -> None:
        """Count a good answer; a server that gave one is whole again."""
        self.answered += 1
        self.failures = self.misses = self.useless = self._outdone = self._counted = 0
        self.back_at, self.sick_since = 0.0, None

    def disappoint(self) -> None:
        """Count an answer of no use."""
        self.useless += 1
        self.failures = self.misses = self._counted = 0
        self.back_at, self.sick_since = 0.0, None
        if self._outdone >= _OUTDONE:
            self.rest(USELESS)

    def outdo(self, number: int) -> None:
        """Count a question that it had no good answer to (request `number`), and another had."""
        if number > self._rested:
            self._outdone += 1
            if self._outdone >= _OUTDONE:
                self.rest("others answer what it does not")

    def rest(self, why: str) -> None:
        """Leave it alone for a while."""
        doublings = min(16, self.misses + max(0, self._outdone - _OUTDONE))
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**doublings)
        self.back_at, self._rested = time.monotonic() + pause_s, self.slots.begun
        _log.warning("%s is tried again in %g s: %s", self.name, pause_s, why)
