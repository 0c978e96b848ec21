"""Ask many questions of several servers at once, and find out whose fault it is if one fails.

A server that fails rests for a while and is tried again, its questions go to the others, and no
question is lost or answered twice.

Whose fault a failed request is, the server does not say, so it takes a witness: the failure counts
against the question once the same server has answered another one well since. If nothing else is
left to ask it, or it has failed question after question, it is asked one that was answered well
before, a probe: if it fails that too, it is the server. So it is after a question with which the
server went, before another one that may make it go. A question is given up for failures that count
only, and once every server in use has had one with it; it is asked again after the others and
alone, since it can crash the model and fail all that is under way with it.

An answer can be whole and of no use. What is asked in its place goes to another server first, and
whoever is outdone by the others time and again rests as well. One that never gave a good answer
gets probes only once it is behind the others, also while those rest: it uses up no attempts.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from itertools import islice
from threading import Thread
from typing import Generic

from contracts.errors import EngineUnavailable, RetrainError
from images.labeler.server import USELESS, USELESS_IN_A_ROW, Gone, Question, Server
from serving.engine import Answer

_TRIES, _TRIES_IF_GONE = 2, 3
"""Failures that count, after which the fault is the question's; one more where the server was gone,
since that may have had another cause."""


@dataclass(eq=False)
class _Case(Generic[Question]):
    """A question, and how it has fared."""

    question: Question
    seen: dict[Server[Question], int] = field(default_factory=dict)
    """Servers that had no good answer to it, with the number of the last request there."""
    open_at: set[Server[Question]] = field(default_factory=set)
    """Servers whose last failure with it has had no witness yet."""
    failures: Counter[Server[Question]] = field(default_factory=Counter)
    """Those that count, by server."""
    why: EngineUnavailable | None = None
    """The last failure."""
    tries: int = _TRIES
    under_way: bool = False
    done: bool = False


@dataclass(frozen=True)
class _Flight(Generic[Question]):
    """A request under way."""

    case: _Case[Question]
    server: Server[Question]
    number: int
    is_probe: bool


class Pool(Generic[Question]):
    """The servers, and the questions that wait for one.

    Iterate over `answers`; the loop's body may `refuse` the answer that it was given. Everything
    but `ask` runs in the thread of that loop, so it can write what it learns without a lock.
    `answered` is a question that had a good answer in an earlier run, if there is one; `is_good`
    judges the answer to a probe, which the loop does not see.
    """

    def __init__(
        self,
        servers: Sequence[Server[Question]],
        patience_s: float,
        *,
        answered: Question | None = None,
        is_good: Callable[[Question, Answer], bool] = lambda _question, _answer: True,
    ) -> None:
        self._servers = servers
        self._is_good = is_good
        self._patience_s = patience_s
        self._retries: deque[_Case[Question]] = deque()
        """What had an answer of no use."""
        self._fresh: deque[_Case[Question]] = deque()
        self._again: deque[_Case[Question]] = deque()
        """What was under way when a server went: most likely only one of them is to blame."""
        self._doubted: deque[_Case[Question]] = deque()
        """What may be to blame."""
        self._flying: dict[Future[Answer], _Flight[Question]] = {}
        self._judged: _Flight[Question] | None = None
        """Whose answer the loop's body has before it; None once it is refused."""
        self._witness = answered
        """The last question with a good answer."""
        self._failed: dict[Server[Question], list[_Case[Question]]] = defaultdict(list)
        """What each server has failed since its last good answer."""
        self._why: RetrainError | None = None

    def refuse(self, again: Question | None = None) -> None:
        """Say that the answer just given is of no use; `again` is what to ask in its place."""
        if self._judged is None:
            raise ValueError("there is no answer to refuse")
        flight, self._judged = self._judged, None
        flight.server.disappoint()
        if self._is_behind(flight.server):
            flight.server.rest(USELESS)
        if again is not None:
            seen = {**flight.case.seen, flight.server: flight.number}
            self._retries.append(_Case(again, seen))

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
        while self._more(source):
            if not self._hopeless():
                self._send(source)
            elif not self._flying:
                raise self._why or EngineUnavailable("no server answers")
            yield from self._arrived()

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return len(self._flying)

    def _more(self, source: Iterator[Question]) -> bool:
        """Return whether anything is left to ask, or to wait for."""
        if not self._fresh:
            self._fresh.extend(_Case(question) for question in islice(source, 1))
        waiting = self._retries or self._fresh or self._again or self._doubted
        return bool(waiting) or any(not flight.is_probe for flight in self._flying.values())

    # --- who is asked what ------------------------------------------------------------------------
    def _send(self, source: Iterator[Question]) -> None:
        """Give every server what it has room for, the emptiest first."""
        now = time.monotonic()
        served = set[Server[Question]]()
        while ready := [s for s in self._servers if s not in served and s.room(now) > 0]:
            server = max(ready, key=lambda each: each.room(now))
            if not (self._more(source) and self._serve(server)):
                served.add(server)

    def _serve(self, server: Server[Question]) -> bool:
        """Send a server what it is to get now; return whether there was anything."""
        if self._is_doubtful(server):
            return self._probe(server)
        if case := self._next(server):
            self._start(case, server)
            return True
        return self._owes(server) and self._probe(server)

    def _next(self, server: Server[Question]) -> _Case[Question] | None:
        """Take out of the queues what a server is to get now; None also where a probe is due."""
        case = self._taken(self._retries, server) or self._taken(self._fresh, server)
        if case or (server.misses and self._owes(server) and self._witness is not None):
            return case  # no two in a row that may make a server go
        case = self._taken(self._again, server)
        if case or server.in_flight:
            return case
        case = self._taken(self._doubted, server)
        server.alone = case is not None
        return case

    def _probe(self, server: Server[Question]) -> bool:
        """Ask a server what was answered well before, if it can be; return whether it is."""
        if self._witness is None or server.in_flight:
            return False
        self._start(_Case(self._witness), server, is_probe=True)
        return True

    def _owes(self, server: Server[Question]) -> bool:
        """Return whether a failure of a server has had no witness since."""
        return any(not case.done for case in self._failed[server])

    def _is_doubtful(self, server: Server[Question]) -> bool:
        """Return whether nothing but a probe is to be sent to a server, since it may be to blame,
        or since it went with one question after another."""
        goes_again = server.misses > 1 and self._owes(server)
        return self._witness is not None and (
            server.suspect or goes_again or self._is_behind(server)
        )

    def _is_behind(self, server: Server[Question]) -> bool:
        """Return whether a server's answers were all of no use, and others do better.

        While no better one is in use, one such answer is enough: what rests comes back, and what
        is used up until then does not.
        """
        others = [s for s in self._servers if s is not server and s.useless < USELESS_IN_A_ROW]
        if server.answered or not server.useless:
            return False
        if server.useless >= USELESS_IN_A_ROW and any(each.in_use for each in others):
            return True
        proven = [each for each in others if each.answered]
        return bool(proven) and not any(each.in_use for each in proven)

    def _taken(
        self, queue: deque[_Case[Question]], server: Server[Question]
    ) -> _Case[Question] | None:
        """Take the first case out of a queue that this server may be asked."""
        case = next((each for each in queue if self._suits(each, server)), None)
        if case is not None:
            queue.remove(case)
        return case

    def _suits(self, case: _Case[Question], server: Server[Question]) -> bool:
        """Return whether a server may be asked: first those in use that were not asked before, of
        them first who has given good answers, and none again before a witness has told what its
        last failure was."""
        if server in case.open_at and self._witness is not None:
            return False
        others = self._others(case)
        if server in case.seen:
            return not others
        return not case.seen or server.answered > 0 or not any(each.answered for each in others)

    def _others(self, case: _Case[Question]) -> list[Server[Question]]:
        """Return the servers in use that were not asked yet."""
        return [each for each in self._servers if each.in_use and each not in case.seen]

    def _start(
        self, case: _Case[Question], server: Server[Question], *, is_probe: bool = False
    ) -> None:
        """Ask in a thread that holds up nobody's end: a server that hangs may keep it for long."""
        future = Future[Answer]()

        def ask() -> None:
            try:
                future.set_result(server.ask(case.question))
            except BaseException as error:  # noqa: BLE001  # raised again in the loop
                future.set_exception(error)

        case.under_way = True
        self._flying[future] = _Flight(case, server, server.begin(), is_probe)
        Thread(target=ask, daemon=True).start()

    # --- what has come back -----------------------------------------------------------------------
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
            flight.server.alone = flight.case.under_way = False
            error = future.exception()
            if error is None:
                yield from self._heard(flight, future.result())
            elif isinstance(error, Gone | EngineUnavailable):
                self._note_failure(flight, error)
            else:
                raise error

    def _heard(
        self, flight: _Flight[Question], answer: Answer
    ) -> Iterator[tuple[Question, Answer | EngineUnavailable]]:
        """Yield an answer, and the questions that it is the last witness against."""
        flight.server.slots.note(flight.number, answer, time.monotonic())
        flight.case.done = True
        if flight.is_probe:
            if not self._is_good(flight.case.question, answer):
                self._note_failure(flight, EngineUnavailable(f"{flight.server.name}: {USELESS}"))
                return
        else:
            self._judged = flight
            yield flight.case.question, answer
            if self._judged is None:
                return
            self._judged = None
            for server, number in flight.case.seen.items():
                if server is not flight.server:
                    server.outdo(number)
        flight.server.succeed()
        self._witness = flight.case.question
        for case in self._failed.pop(flight.server, ()):
            case.open_at.discard(flight.server)
            case.failures[flight.server] += not case.done
            if self._is_to_blame(case) and case.why:
                case.done = True
                (self._again if case in self._again else self._doubted).remove(case)
                yield case.question, case.why

    def _is_to_blame(self, case: _Case[Question]) -> bool:
        """Return whether a question has failed often enough, at every server that is in use."""
        if case.done or case.under_way or case.failures.total() < case.tries:
            return False
        return all(each in case.failures for each in self._servers if each.in_use)

    def _note_failure(self, flight: _Flight[Question], error: Gone | EngineUnavailable) -> None:
        """Count a request without an answer against its server, and let its question wait."""
        case, server, gone = flight.case, flight.server, isinstance(error, Gone)
        why = self._why = error.error if isinstance(error, Gone) else error
        server.fail(flight.number, why, gone=gone, is_probe=flight.is_probe)
        if flight.is_probe and gone:  # as it can be after a question that made it go
            return
        if flight.is_probe:  # then nothing that it failed since it last was well tells anything
            for each in self._failed.pop(server, ()):
                each.open_at.discard(server)
            return
        if isinstance(error, Gone) and not error.sent:
            queue = self._retries if case.seen else self._fresh
            (self._doubted if case.why else queue).appendleft(case)
            return
        first_gone = gone and not case.why
        case.seen[server] = flight.number
        case.open_at.add(server)
        case.why = why if isinstance(why, EngineUnavailable) else None
        case.tries = _TRIES_IF_GONE if gone else _TRIES
        self._failed[server].append(case)
        (self._again if first_gone else self._doubted).append(case)

    def _hopeless(self) -> bool:
        """Return whether every server fails, and has for so long that none will come back."""
        since = 0.0
        for server in self._servers:
            to_blame = server.misses or (self._witness is None and server.suspect)
            if not to_blame or server.sick_since is None:
                return False
            since = max(since, server.sick_since)
        return time.monotonic() - since >= self._patience_s
