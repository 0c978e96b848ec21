"""Ask many questions of several servers at once, as many of each as it really answers at once.

Nothing tells how many requests an Ollama answers in parallel, so it is found out: its answers say
how long the model worked, and what is left of a request's time was spent waiting. A server that
fails is left alone for a while and tried again, its questions go to the others, and no question
is lost or answered twice.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from contracts.errors import EngineUnavailable, RetrainError
from serving.engine import Answer

Question = TypeVar("Question")
Ask = Callable[[Question], Answer]

_log = logging.getLogger(__name__)

_TRIES = 2
"""Requests without an answer, after which the fault is taken to be the question's."""
_FAILURES_IN_A_ROW = 3
"""Requests without an answer, after which a server is left alone."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_NO_WAITING = 0.05
"""Share of a request's time; below it lie measuring and the network."""


class Gone(Exception):
    """A server answers nothing at all for now; `error` says why."""

    def __init__(self, error: RetrainError) -> None:
        super().__init__(error.what)
        self.error = error


class Slots:
    """How many requests a server gets at once: one more than it answers, so that none idles.

    With n requests under way at a server that answers P < n of them at once, the share 1 - P/n of
    their time is waiting, so what they waited tells P. The limit is doubled until they wait.
    """

    def __init__(self, ceiling: int) -> None:
        self.limit = 1
        self._ceiling = ceiling
        self.begun = 0
        self._begun_before = 0
        """Requests from before the limit was changed, which say nothing about it."""
        self._times: list[tuple[float, float]] = []
        """(waited, in all) in seconds, of as many answers as the limit: one round."""

    def begin(self) -> int:
        """Count a request and return its number."""
        self.begun += 1
        return self.begun

    def note(self, number: int, answer: Answer) -> None:
        """Learn from the answer to a request."""
        if answer.waited_s is None:  # nothing will be found out: the ceiling is all there is
            self.limit = self._ceiling
        elif number > self._begun_before:
            self._times.append((answer.waited_s, answer.seconds))
            if len(self._times) >= self.limit:
                self._change()

    def _change(self) -> None:
        waited, whole = (sum(times) for times in zip(*self._times, strict=True))
        share = waited / whole if whole else 0.0
        answered = max(1, round(self.limit * (1 - share)))
        wanted = 2 * self.limit if share < _NO_WAITING else answered + 1
        if (limit := min(self._ceiling, wanted)) != self.limit:
            self.limit, self._begun_before = limit, self.begun
        self._times.clear()


@dataclass
class Server(Generic[Question]):
    """One server of the pool. `ask` raises `Gone` if the server is to blame for no answer."""

    name: str
    ask: Ask[Question]
    ceiling: int
    answered: int = 0
    slots: Slots = field(init=False)
    in_flight: int = 0
    alone: bool = False
    """Whether what is in flight must stay the only one."""
    failures: int = 0
    """In a row; those of requests that were under way together count as one."""
    back_at: float = 0.0
    """When it is tried again, by time.monotonic()."""
    _counted: int = 0
    """Requests up to this number were under way when a failure was counted."""

    def __post_init__(self) -> None:
        self.slots = Slots(self.ceiling)

    def room(self, now: float) -> int:
        """Return how many more questions it may get; one only, to try, after a failure."""
        if now < self.back_at or self.alone:
            return 0
        return (1 if self.failures else self.slots.limit) - self.in_flight

    def fail(self, number: int, error: RetrainError, *, gone: bool) -> None:
        """Count a request without an answer, and leave the server alone if there are too many.

        One fault of the server takes all that is under way with it: it is left alone for one
        pause, not for one that doubled with each of them.
        """
        if number > self._counted:
            self.failures, self._counted = self.failures + 1, self.slots.begun
        elif not gone or self.back_at:
            return
        if gone or self.failures >= _FAILURES_IN_A_ROW:
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self.failures, 16))
            self.back_at = time.monotonic() + pause_s
            _log.warning("%s is tried again in %g s: %s", self.name, pause_s, error.what)

    def succeed(self, number: int, answer: Answer) -> None:
        """Count an answer; a server that gave one is whole again."""
        self.slots.note(number, answer)
        self.answered += 1
        self.failures, self.back_at, self._counted = 0, 0.0, 0


@dataclass(frozen=True)
class _Flight(Generic[Question]):
    """A request under way."""

    question: Question
    server: Server[Question]
    number: int
    tries: int


class Pool(Generic[Question]):
    """The servers, and the questions that wait for one.

    Iterate over `answers`; the loop's body may `put` more questions, which go first. Everything
    but `ask` runs in the thread of that loop, so it can write what it learns without a lock.
    """

    def __init__(self, servers: Sequence[Server[Question]], patience_s: float) -> None:
        self._servers = servers
        self._patience_s = patience_s
        self._waiting: deque[Question] = deque()
        self._doubted: deque[tuple[Question, int]] = deque()
        """What had no answer, and how often. A question can crash the model and fail all that is
        under way with it, so these are asked again last, each alone at its server."""
        self._flying: dict[Future[Answer], _Flight[Question]] = {}
        self._failing_since: float | None = None
        """When the first request failed since the last answer."""
        self._why: RetrainError | None = None

    def put(self, question: Question) -> None:
        """Ask this before what is waiting."""
        self._waiting.appendleft(question)

    def answers(
        self, questions: Iterable[Question]
    ) -> Iterator[tuple[Question, Answer | EngineUnavailable]]:
        """Yield each question once, with its answer, or with why nobody could answer it.

        A new question is sent only after the loop has dealt with the last answer, so what a kill
        loses is what is in flight. Raises `EngineUnavailable` or `ModelMissing` when no server has
        answered anything for `patience_s`; answers that are still in flight are yielded first.
        """
        source = iter(questions)
        with ThreadPoolExecutor(sum(server.ceiling for server in self._servers)) as threads:
            while self._more(source):
                if not self._hopeless():
                    self._send(source, threads)
                elif not self._flying:
                    break
                yield from self._arrived()
        if (self._waiting or self._doubted) and self._why:
            raise self._why

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return len(self._flying)

    def _more(self, source: Iterator[Question]) -> bool:
        """Return whether anything is left to ask or to wait for."""
        if not self._waiting:
            self._waiting.extend(islice(source, 1))
        return bool(self._waiting or self._doubted or self._flying)

    def _send(self, source: Iterator[Question], threads: ThreadPoolExecutor) -> None:
        """Give every server what it has room for, the emptiest first."""
        now = time.monotonic()
        while self._more(source):
            server = max(self._servers, key=lambda each: each.room(now))
            if server.room(now) <= 0:
                return
            tries = 0
            if self._waiting:
                question = self._waiting.popleft()
            else:
                idle = [s for s in self._servers if not s.in_flight and s.room(now) > 0]
                if not idle or not self._doubted:
                    return
                server = idle[0]
                server.alone = True
                question, tries = self._doubted.popleft()
            server.in_flight += 1
            flight = _Flight(question, server, server.slots.begin(), tries + 1)
            self._flying[threads.submit(server.ask, question)] = flight

    def _arrived(self) -> Iterator[tuple[Question, Answer | EngineUnavailable]]:
        """Wait for answers, or until a server may be tried again; yield what is decided."""
        now = time.monotonic()
        pause_s = min((s.back_at - now for s in self._servers if s.back_at > now), default=None)
        if not self._flying:
            time.sleep(pause_s or 0)
            return
        done, _ = wait(self._flying, timeout=pause_s, return_when=FIRST_COMPLETED)
        for future in done:
            flight = self._flying.pop(future)
            flight.server.in_flight -= 1
            flight.server.alone = False
            error = future.exception()
            if error is None:
                self._failing_since = None
                flight.server.succeed(flight.number, future.result())
                yield flight.question, future.result()
            elif isinstance(error, Gone):
                self._note(flight, error.error, gone=True)
                self._put_back(flight)
            elif isinstance(error, EngineUnavailable):
                self._note(flight, error, gone=False)
                if flight.tries < _TRIES:
                    self._doubted.append((flight.question, flight.tries))
                else:
                    yield flight.question, error
            else:
                raise error

    def _put_back(self, flight: _Flight[Question]) -> None:
        """Let a question that was asked in vain wait as before."""
        if flight.tries > 1:
            self._doubted.appendleft((flight.question, flight.tries - 1))
        else:
            self._waiting.appendleft(flight.question)

    def _note(self, flight: _Flight[Question], why: RetrainError, *, gone: bool) -> None:
        flight.server.fail(flight.number, why, gone=gone)
        self._why = why
        self._failing_since = self._failing_since or time.monotonic()

    def _hopeless(self) -> bool:
        """Return whether every server fails, and has for so long that none will come back."""
        if self._failing_since is None or not all(server.failures for server in self._servers):
            return False
        return time.monotonic() - self._failing_since >= self._patience_s
