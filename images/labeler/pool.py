"""Ask many questions of several servers at once, as many of each as it really answers at once.

Nothing tells how many requests an Ollama answers in parallel, so it is found out: its answers say
how long the model worked, and what is left of a request's time was spent waiting. A server that
fails is left alone for a while and tried again, its questions go to the others, and no question
is lost or answered twice.

Whose fault it is when there is no answer, the server does not say. So a question that was sent in
vain is asked again after the others, in the end alone; and if several have failed in a row, one
that was answered before is asked once more: if it is answered again, the server is well.
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

_TRIES, _TRIES_IF_GONE = 2, 3
"""Requests without an answer, after which the fault is taken to be the question's; one more where
the server was gone, since that may have had another cause."""
_SUSPICIOUS = 5
"""Questions that fail with no answer in between, after which it may well be the servers' fault."""
_FAILURES_IN_A_ROW = 3
"""Requests without an answer, after which a server is left alone."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_NO_WAITING = 0.05
"""Share of a request's time; below it lie measuring and the network."""


class Gone(Exception):
    """A server answers nothing at all for now; `error` says why.

    `sent`: it was there until the question came, which may be why it is gone.
    """

    def __init__(self, error: RetrainError, *, sent: bool = False) -> None:
        super().__init__(error.what)
        self.error = error
        self.sent = sent


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
        pause, not for one that doubled with each of them. The pauses of a server that is there all
        the time do not grow, since the questions may be to blame.
        """
        if number > self._counted:
            self.failures, self._counted = self.failures + 1, self.slots.begun
        elif not gone or self.back_at:
            return
        if gone or self.failures >= _FAILURES_IN_A_ROW:
            doublings = min(self.failures, 16) if gone else 0
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**doublings)
            self.back_at = time.monotonic() + pause_s
            _log.warning("%s is tried again in %g s: %s", self.name, pause_s, error.what)

    def succeed(self, number: int, answer: Answer) -> None:
        """Count an answer; a server that gave one is whole again."""
        self.slots.note(number, answer)
        self.answered += 1
        self.forgive()

    def forgive(self) -> None:
        """Take back what was counted against it."""
        self.failures, self.back_at, self._counted = 0, 0.0, 0


@dataclass
class _Case(Generic[Question]):
    """A question, and how it has fared."""

    question: Question
    tries: int = 0
    """Requests that were sent and had no answer."""
    counted_at: int = -1
    """How many answers there were when it last counted as a failure."""


@dataclass(frozen=True)
class _Flight(Generic[Question]):
    """A request under way."""

    case: _Case[Question]
    server: Server[Question]
    number: int
    is_probe: bool


class Pool(Generic[Question]):
    """The servers, and the questions that wait for one.

    Iterate over `answers`; the loop's body may `put` more questions, which go first. Everything
    but `ask` runs in the thread of that loop, so it can write what it learns without a lock.
    `answered` is a question that had an answer in an earlier run, if there is one.
    """

    def __init__(
        self,
        servers: Sequence[Server[Question]],
        patience_s: float,
        *,
        answered: Question | None = None,
    ) -> None:
        self._servers = servers
        self._patience_s = patience_s
        self._waiting: deque[_Case[Question]] = deque()
        self._again: deque[_Case[Question]] = deque()
        """What was under way when a server went: most likely only one of them is to blame."""
        self._doubted: deque[_Case[Question]] = deque()
        """What may be to blame. A question can crash the model and fail all that is under way
        with it, so these are asked again last, each alone at its server."""
        self._flying: dict[Future[Answer], _Flight[Question]] = {}
        self._answers = 0
        self._answered = answered
        """The last question with an answer, to be asked again where the servers are in doubt."""
        self._failed = 0
        """How many questions have failed since the last answer."""
        self._in_doubt_since: float | None = None
        """When they became so many that it may be the servers' fault: not before, as a few
        requests that time out can take longer than the patience."""
        self._gone_since: float | None = None
        """Since when no server was seen: when one first was found gone."""
        self._why: RetrainError | None = None

    def put(self, question: Question) -> None:
        """Ask this before what is waiting."""
        self._waiting.appendleft(_Case(question))

    def answers(
        self, questions: Iterable[Question]
    ) -> Iterator[tuple[Question, Answer | EngineUnavailable]]:
        """Yield each question once, with its answer, or with why nobody could answer it.

        A new question is sent only after the loop has dealt with the last answer, so what a kill
        loses is what is in flight. Raises `EngineUnavailable` or `ModelMissing` when for
        `patience_s` no server was there, or none answered any of several questions; answers that
        are still in flight are yielded first.
        """
        source = iter(questions)
        with ThreadPoolExecutor(sum(server.ceiling for server in self._servers)) as threads:
            while self._more(source):
                if not self._hopeless():
                    self._send(source, threads)
                elif not self._flying:
                    break
                yield from self._arrived()
        if (self._waiting or self._again or self._doubted) and self._why:
            raise self._why

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return len(self._flying)

    def _more(self, source: Iterator[Question]) -> bool:
        """Return whether anything is left to ask or to wait for."""
        if not self._waiting:
            self._waiting.extend(_Case(question) for question in islice(source, 1))
        return bool(self._waiting or self._again or self._doubted or self._flying)

    def _send(self, source: Iterator[Question], threads: ThreadPoolExecutor) -> None:
        """Give every server what it has room for, the emptiest first."""
        now = time.monotonic()
        while self._more(source):
            server = max(self._servers, key=lambda each: each.room(now))
            if server.room(now) <= 0:
                return
            if self._in_doubt_since and self._answered is not None:
                if not any(flight.is_probe for flight in self._flying.values()):
                    self._start(_Case(self._answered), server, threads, is_probe=True)
                return
            if self._waiting or self._again:
                self._start((self._waiting or self._again).popleft(), server, threads)
                continue
            idle = [s for s in self._servers if not s.in_flight and s.room(now) > 0]
            if not idle or not self._doubted:
                return
            server = min(idle, key=lambda each: each.failures)
            server.alone = True
            self._start(self._doubted.popleft(), server, threads)

    def _start(
        self,
        case: _Case[Question],
        server: Server[Question],
        threads: ThreadPoolExecutor,
        *,
        is_probe: bool = False,
    ) -> None:
        server.in_flight += 1
        flight = _Flight(case, server, server.slots.begin(), is_probe)
        self._flying[threads.submit(server.ask, case.question)] = flight

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
                self._note_answer(flight, future.result())
                if not flight.is_probe:
                    yield flight.case.question, future.result()
            elif isinstance(error, Gone | EngineUnavailable):
                self._note_failure(flight, error)
                if not flight.is_probe and (why := self._blame(flight, error)):
                    yield flight.case.question, why
            else:
                raise error

    def _note_answer(self, flight: _Flight[Question], answer: Answer) -> None:
        flight.server.succeed(flight.number, answer)
        self._answers += 1
        self._answered = flight.case.question
        self._failed, self._in_doubt_since, self._gone_since = 0, None, None

    def _note_failure(self, flight: _Flight[Question], error: Gone | EngineUnavailable) -> None:
        """Count a request without an answer against its server, and its question if it was sent."""
        now, case = time.monotonic(), flight.case
        self._why = error.error if isinstance(error, Gone) else error
        flight.server.fail(flight.number, self._why, gone=isinstance(error, Gone))
        if isinstance(error, Gone) and not error.sent:
            self._gone_since = self._gone_since or now
            return
        self._gone_since = None
        case.tries += 1
        if case.counted_at < self._answers and not flight.is_probe:
            case.counted_at = self._answers
            self._failed += 1
            if self._failed == _SUSPICIOUS:
                self._in_doubt_since = now

    def _blame(
        self, flight: _Flight[Question], error: Gone | EngineUnavailable
    ) -> EngineUnavailable | None:
        """Return why a question gets no answer, if it is to blame; else let it wait."""
        case = flight.case
        if isinstance(error, Gone) and not error.sent:
            (self._doubted if case.tries else self._waiting).appendleft(case)
            return None
        why = error.error if isinstance(error, Gone) else error
        tries = _TRIES_IF_GONE if isinstance(error, Gone) else _TRIES
        if case.tries >= tries and not self._in_doubt_since and isinstance(why, EngineUnavailable):
            flight.server.forgive()
            return why
        first_gone = isinstance(error, Gone) and case.tries == 1
        (self._again if first_gone else self._doubted).append(case)
        return None

    def _hopeless(self) -> bool:
        """Return whether every server fails, and has for so long that none will come back."""
        if not all(server.failures for server in self._servers):
            return False
        since = self._in_doubt_since or self._gone_since
        return since is not None and time.monotonic() - since >= self._patience_s
