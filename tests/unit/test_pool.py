"""The pool: every question once, as many at once as a server answers, failures routed around."""

from __future__ import annotations

import dataclasses
import heapq
import random
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import EngineUnavailable
from images.labeler import server as module
from images.labeler.pool import Pool
from images.labeler.server import Gone, Server
from images.labeler.slots import Slots
from serving.engine import Answer

DOWN = EngineUnavailable("nobody is there")


def answer(*, waited_s: float | None = 0.0, seconds: float = 1.0) -> Answer:
    return Answer("x", True, "stop", 1, 1, seconds, waited_s)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)


def everything(pool: Pool[int], count: int) -> dict[int, Answer | EngineUnavailable]:
    found = list(pool.answers(range(count)))
    assert len({question for question, _ in found}) == len(found)
    return dict(found)


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 8, 12])
def test_the_number_of_slots_is_found_out(slots: int) -> None:
    """By a model of a server: n requests at P slots wait the share 1 - P/n of their time."""
    found = Slots(ceiling=64)
    for _ in range(300):
        share = max(0.0, 1 - slots / found.limit)
        found.note(found.begin(0), answer(waited_s=share * 10, seconds=10.0), 10)
    assert found.limit == slots + 1


def test_a_little_overhead_is_no_waiting_and_the_ceiling_holds() -> None:
    found = Slots(ceiling=16)
    for _ in range(100):
        found.note(found.begin(0), answer(waited_s=0.02), 1)
    assert found.limit == 16


def most_at_once(slots: int, batching: float, seed: int) -> list[int]:
    """Return the limits that 400 answers teach, of a server that tells no times.

    It answers `slots` at once, each slower by the share `batching` for each one beside it; lengths
    vary from 100 to 500 tokens.
    """
    found, chance, now = Slots(ceiling=32), random.Random(seed), 0.0  # noqa: S311
    working: list[tuple[float, int, int]] = []
    queue: deque[int] = deque()
    limits = []
    for _ in range(400):
        while len(working) + len(queue) < found.limit:
            queue.append(found.begin(now))
        while queue and len(working) < slots:
            tokens = chance.randint(100, 500)
            took = tokens / 50 * (1 + batching * len(working))
            heapq.heappush(working, (now + took, queue.popleft(), tokens))
        now, number, tokens = heapq.heappop(working)
        found.note(number, Answer("x", True, "stop", 9, tokens, 1.0, None), now)
        limits.append(found.limit)
    return limits


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("slots", [1, 2, 4, 8])
def test_the_number_of_slots_is_found_out_by_the_pace(slots: int, seed: int) -> None:
    """Where no waiting is told: never far too many, and enough for most of the time."""
    limits = most_at_once(slots, 0.0, seed)[100:]
    assert max(limits) <= 4 * slots
    assert statistics.median(limits) >= slots / 2
    assert statistics.mean(min(limit, slots) for limit in limits) >= 0.75 * slots


def test_a_server_that_does_more_at_once_is_given_more() -> None:
    """As those that batch: each request takes longer, and all together less."""
    assert statistics.median(most_at_once(32, 0.05, 1)[200:]) >= 16


def test_requests_from_before_a_change_teach_nothing() -> None:
    found = Slots(ceiling=64)
    early = [found.begin(0) for _ in range(20)]
    found.note(early[0], answer(), 1)
    assert found.limit == 2
    for number in early[1:]:
        found.note(number, answer(waited_s=0.9), 1)
    assert found.limit == 2


def test_as_many_run_at_once_as_the_limit_allows() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def ask(_: int) -> Answer:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return answer()

    assert len(everything(Pool([Server("a", ask, 4)], 0), 60)) == 60
    assert most == 4


def test_questions_put_back_go_first_and_are_answered_too() -> None:
    seen: list[int] = []

    def ask(question: int) -> Answer:
        seen.append(question)
        return answer()

    pool = Pool([Server("a", ask, 1)], 0)
    for question, _ in pool.answers(range(3)):
        if question == 0:
            pool.refuse(10)
    assert seen == [0, 10, 1, 2]


def test_a_server_that_is_gone_loses_nothing_and_comes_back() -> None:
    asked: Counter[str] = Counter()
    down = threading.Event()
    down.set()

    def healthy(_: int) -> Answer:
        time.sleep(0.01)
        return answer()

    def broken(question: int) -> Answer:
        asked["broken"] += 1
        if asked["broken"] > 3:
            return answer()
        raise Gone(DOWN)

    servers = [Server("healthy", healthy, 1), Server("broken", broken, 4)]
    found = everything(Pool(servers, 30), 60)
    assert all(isinstance(each, Answer) for each in found.values())
    assert len(found) == 60
    assert servers[1].answered > 0
    assert servers[0].answered + servers[1].answered == 60


def test_one_bad_question_fails_alone_after_a_second_try() -> None:
    asked: Counter[int] = Counter()

    def ask(question: int) -> Answer:
        asked[question] += 1
        if question == 3:
            raise DOWN
        return answer()

    found = everything(Pool([Server("a", ask, 2)], 30), 9)
    assert [q for q, each in found.items() if isinstance(each, EngineUnavailable)] == [3]
    assert asked[3] == 2
    assert asked.total() == 9 + 1 + 1, "one that was answered is the witness of the second failure"


def test_what_had_no_answer_is_asked_again_last_and_alone() -> None:
    running, lock = 0, threading.Lock()
    asked: list[int] = []
    beside: dict[int, int] = {}

    def ask(question: int) -> Answer:
        nonlocal running
        with lock:
            running += 1
            beside[question] = running
            asked.append(question)
        time.sleep(0.01)
        with lock:
            running -= 1
            first = asked.count(question) == 1
        if question in {2, 3, 8} and first:
            raise DOWN
        return answer()

    servers = [Server("a", ask, 4)]
    found = everything(Pool(servers, 30), 20)
    assert all(isinstance(each, Answer) for each in found.values())
    assert sorted(asked[-3:]) == [2, 3, 8]
    assert [beside[question] for question in asked[-3:]] == [1, 1, 1]


@pytest.mark.parametrize("error", [Gone(DOWN), DOWN], ids=["gone", "refuses"])
def test_when_no_server_answers_any_more_it_ends(error: Exception) -> None:
    asked: Counter[int] = Counter()

    def ask(question: int) -> Answer:
        asked[question] += 1
        if asked.total() <= 5:
            return answer()
        raise error

    answered = []
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match="nobody is there"):
        answered += [
            question for question, _ in Pool([Server("a", ask, 1)], 0.05).answers(range(99))
        ]
    assert set(range(5)) <= {*answered, *asked}
    assert sum(asked.values()) < 30
    assert time.monotonic() - started > 0.05


def test_a_restart_within_the_patience_is_waited_for() -> None:
    back_at = time.monotonic() + 0.15

    def ask(_: int) -> Answer:
        if time.monotonic() < back_at:
            raise Gone(DOWN)
        return answer()

    found = everything(Pool([Server("a", ask, 3)], 30), 7)
    assert all(isinstance(each, Answer) for each in found.values())


def test_a_fault_that_takes_all_requests_with_it_counts_once() -> None:
    server = Server[int]("a", lambda _: answer(), 8)
    numbers = [server.begin() for _ in range(8)]
    for number in numbers:
        server.fail(number, DOWN, gone=True)
    assert server.failures == 1
    assert 0 < server.back_at - time.monotonic() <= 0.02
    server.fail(server.begin(), DOWN, gone=True)
    assert server.failures == 2


def test_failures_between_answers_are_not_in_a_row() -> None:
    server = Server[int]("a", lambda _: answer(), 8)
    numbers = [server.begin() for _ in range(8)]
    for number in numbers:
        server.fail(number, DOWN, gone=False)
        server.succeed()
    assert (server.failures, server.back_at) == (0, 0)


def test_an_error_of_ours_is_not_taken_for_the_servers() -> None:
    def ask(_: int) -> Answer:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        everything(Pool([Server("a", ask, 1)], 30), 2)


def test_a_question_that_was_sent_each_time_is_to_blame_if_the_server_goes() -> None:
    asked: list[int] = []

    def ask(question: int) -> Answer:
        asked.append(question)
        if question == 3:
            raise Gone(DOWN, sent=True)
        return answer()

    found = everything(Pool([Server("a", ask, 2)], 30), 9)
    assert [q for q, each in found.items() if isinstance(each, EngineUnavailable)] == [3]
    assert asked.count(3) == 3
    assert asked[-1] != 3, "a witness has the last word"


def test_a_question_is_not_to_blame_for_a_server_that_was_gone_before() -> None:
    """It is sent once; then it waits for the server in vain, alone, as often as it takes."""
    asked: Counter[int] = Counter()

    def ask(question: int) -> Answer:
        asked[question] += 1
        if question == 3 and asked[3] < 6:
            raise Gone(DOWN, sent=asked[3] == 1)
        return answer()

    found = everything(Pool([Server("a", ask, 1)], 30), 5)
    assert all(isinstance(each, Answer) for each in found.values())


def test_neighbours_that_fail_are_told_from_a_server_that_fails() -> None:
    """By one that was answered before: asked once more, and yielded once."""
    asked: Counter[int] = Counter()

    def ask(question: int) -> Answer:
        asked[question] += 1
        if question >= 20:
            raise DOWN
        return answer()

    found = everything(Pool([Server("a", ask, 1)], 30), 40)
    failed = {q for q, each in found.items() if isinstance(each, EngineUnavailable)}
    assert failed == set(range(20, 40))
    assert {asked[question] for question in failed} <= {2, 3}
    assert asked[19] > 1
    assert asked.total() < 20 + 3 * 20


def test_a_server_that_turns_sick_puts_no_row_of_questions_down_to_themselves() -> None:
    asked: Counter[int] = Counter()
    found: list[tuple[int, Answer | EngineUnavailable]] = []

    def ask(question: int) -> Answer:
        asked[question] += 1
        if asked.total() > 10:
            raise DOWN
        return answer()

    with pytest.raises(EngineUnavailable):
        found.extend(Pool([Server("a", ask, 1)], 0.1).answers(range(20)))
    assert [question for question, _ in found] == list(range(10))
    assert all(isinstance(each, Answer) for _, each in found)


def test_nothing_but_bad_questions_are_told_by_one_that_was_answered_earlier() -> None:
    def ask(question: int) -> Answer:
        if question < 12:
            raise DOWN
        return answer()

    with pytest.raises(EngineUnavailable):
        everything(Pool([Server("a", ask, 2)], 0.05), 12)
    found = everything(Pool([Server("a", ask, 2)], 30, answered=99), 12)
    assert len(found) == 12
    assert all(isinstance(each, EngineUnavailable) for each in found.values())


def crashing(bad: set[int], asked: Counter[int]) -> Callable[[int], Answer]:
    """Return a server that `bad` questions take away for a moment."""
    back_at = 0.0

    def ask(question: int) -> Answer:
        nonlocal back_at
        if time.monotonic() < back_at:
            raise Gone(DOWN)
        asked[question] += 1
        if question in bad:
            back_at = time.monotonic() + 0.03
            raise Gone(DOWN, sent=True)
        return answer()

    return ask


@pytest.mark.parametrize("bad", [set(range(2, 50, 4)), set(range(20))], ids=["some", "all"])
def test_questions_that_each_make_the_server_go_are_given_up_and_it_is_not(bad: set[int]) -> None:
    """However many: after each one, what is answered well takes the server's pauses back."""
    asked: Counter[int] = Counter()
    pool = Pool([Server("a", crashing(bad, asked), 1)], 3, answered=99)
    found = everything(pool, 50 if len(bad) < 20 else 20)
    assert {q for q, each in found.items() if isinstance(each, EngineUnavailable)} == bad
    assert {asked[question] for question in bad} == {3}


# --- several servers -----------------------------------------------------------------------------
Asked = tuple[int, int]
"""(item, attempt) as the label stage asks: an answer of no use is followed by the next attempt."""
USELESS = dataclasses.replace(answer(), text="")


def labelled(
    servers: list[Server[Asked]], count: int, *, attempts: int = 3, patience_s: float = 30
) -> dict[int, bool]:
    """Ask as the label stage does; return which items, each once, got a good answer."""
    pool = Pool(servers, patience_s, is_good=lambda _, reply: bool(reply.text))
    found: list[tuple[int, bool]] = []
    for (item, attempt), reply in pool.answers((item, 0) for item in range(count)):
        is_good = isinstance(reply, Answer) and bool(reply.text)
        is_over = isinstance(reply, EngineUnavailable) or attempt + 1 == attempts or is_good
        if isinstance(reply, Answer) and not is_good:
            pool.refuse(None if is_over else (item, attempt + 1))
        if is_over:
            found.append((item, is_good))
    assert sorted(item for item, _ in found) == list(range(count))
    return dict(found)


class Scripted:
    """A server that does what it is told, in so long; counts what it is asked."""

    def __init__(
        self, name: str, does: Callable[[Asked, int], Answer | Exception], seconds: float
    ) -> None:
        self.requests = 0
        self._does, self._seconds, self._lock = does, seconds, threading.Lock()
        self.server = Server[Asked](name, self._ask, 4)

    def _ask(self, asked: Asked) -> Answer:
        with self._lock:
            self.requests += 1
            number = self.requests
        time.sleep(self._seconds)
        found = self._does(asked, number)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.mark.parametrize(
    "does", [DOWN, USELESS, Gone(DOWN, sent=True)], ids=["500", "empty", "503"]
)
@pytest.mark.parametrize("sick", [1, 2])
def test_what_quick_sick_servers_fail_is_answered_by_the_slow_healthy_one(
    does: Answer | Exception, sick: int
) -> None:
    slow = Scripted("slow", lambda *_: answer(), 0.01)
    quick = [Scripted(f"sick {n}", lambda *_: does, 0.0005) for n in range(sick)]
    assert all(labelled([each.server for each in (*quick, slow)], 60).values())
    assert sum(each.requests for each in quick) < 60


def test_one_that_never_gave_a_good_answer_is_tried_with_one_question_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 60)
    slow = Scripted("slow", lambda *_: answer(), 0.005)
    quick = Scripted("sick", lambda *_: USELESS, 0.0005)
    assert all(labelled([quick.server, slow.server], 60, attempts=2).values())
    assert quick.requests <= 5 + 4, "until it is behind, and what was under way then"


@pytest.mark.parametrize("first", [3, 30], ids=["before it is behind", "later"])
def test_while_the_only_good_one_rests_the_useless_one_uses_up_nothing(first: int) -> None:
    """Neither the attempts of all that is left, nor a few of them at every pause."""
    back_at = 0.0

    def rests(_: Asked, number: int) -> Answer | Exception:
        nonlocal back_at
        if number == first:
            back_at = time.monotonic() + 0.5
        return Gone(DOWN, sent=True) if time.monotonic() < back_at else answer()

    attempts = Counter[Asked]()

    def useless(asked: Asked, _: int) -> Answer:
        attempts[asked] += 1
        return USELESS

    good, bad = Scripted("good", rests, 0.01), Scripted("bad", useless, 0.0005)
    assert all(labelled([bad.server, good.server], 60).values())
    assert sum(1 for asked in attempts if asked[1] > 0) <= 2


def test_what_had_no_good_answer_goes_to_a_server_that_gives_some() -> None:
    """And not from one useless server to the next, until its attempts are used up."""
    known = threading.Event()
    again: list[Asked] = []

    def useful(*_: object) -> Answer:
        known.set()
        return answer()

    def useless(asked: Asked, _: int) -> Answer:
        if asked[1]:
            again.append(asked)
        known.wait()
        time.sleep(0.05)
        return USELESS

    good = Scripted("good", useful, 0.002)
    bad = [Scripted(f"bad {n}", useless, 0.0) for n in range(4)]
    assert all(labelled([good.server, *(each.server for each in bad)], 60).values())
    assert not again


def test_a_server_that_turns_sick_and_recovers_is_used_again() -> None:
    other = Scripted("other", lambda *_: answer(), 0.004)
    turns = Scripted("turns", lambda _, n: DOWN if 5 <= n < 12 else answer(), 0.001)
    assert all(labelled([turns.server, other.server], 120).values())
    assert turns.server.answered > 20


def test_an_item_is_given_up_only_where_every_server_that_works_has_failed_it() -> None:
    seen: set[str] = set()

    def fails(name: str) -> Callable[[Asked, int], Answer | Exception]:
        def does(asked: Asked, _: int) -> Answer | Exception:
            if asked[0] == 3:
                seen.add(name)
                return DOWN
            return answer()

        return does

    servers = [Scripted(name, fails(name), 0.001).server for name in "abc"]
    found = labelled(servers, 30)
    assert [item for item, is_good in found.items() if not is_good] == [3]
    assert seen == {"a", "b", "c"}


def test_an_answer_of_no_use_is_followed_by_another_server() -> None:
    names: list[str] = []

    def doubtful(name: str) -> Callable[[Asked, int], Answer | Exception]:
        def does(asked: Asked, _: int) -> Answer | Exception:
            if asked[0] == 3:
                names.append(name)
                return USELESS
            return answer()

        return does

    servers = [Scripted(name, doubtful(name), 0.002).server for name in "ab"]
    assert not labelled(servers, 30, attempts=2)[3]
    assert sorted(names) == ["a", "b"]


def test_servers_that_all_give_answers_of_no_use_do_not_rest() -> None:
    servers = [Scripted(name, lambda *_: USELESS, 0.001) for name in "ab"]
    assert not any(labelled([each.server for each in servers], 40, attempts=2).values())
    assert all(each.server.in_use for each in servers)


def test_nothing_is_given_up_where_nothing_was_ever_answered() -> None:
    dead = [Scripted(name, lambda *_: DOWN, 0.0).server for name in "ab"]
    with pytest.raises(EngineUnavailable, match="nobody"):
        labelled(dead, 2, patience_s=0.05)


def test_a_server_that_answers_its_probe_uselessly_is_no_witness() -> None:
    """It turns sick half way, and all that it still answers is of no use."""
    known: set[Asked] = set()

    def does(asked: Asked, number: int) -> Answer | Exception:
        if number <= 10:
            known.add(asked)
            return answer()
        return USELESS if asked in known else DOWN

    with pytest.raises(EngineUnavailable):
        labelled([Scripted("a", does, 0.0).server], 16, patience_s=0.05)


def test_a_probe_that_hangs_holds_up_nothing() -> None:
    """Its server is not needed for the rest, so nobody waits for it."""
    let_go = threading.Event()
    known: set[Asked] = set()

    def works(asked: Asked, _: int) -> Answer:
        known.add(asked)
        return answer()

    def hangs(asked: Asked, _: int) -> Answer | Exception:
        if asked in known:
            let_go.wait(60)
        return DOWN

    servers = [Scripted("hangs", hangs, 0.0), Scripted("works", works, 0.02)]
    assert all(labelled([each.server for each in servers], 20).values())
    assert servers[0].server.in_flight == 1, "it hangs still"
    let_go.set()


MODES: dict[str, Callable[[Asked, int], Answer | Exception]] = {
    "well": lambda *_: answer(),
    "refuses": lambda *_: DOWN,
    "useless": lambda *_: USELESS,
    "away": lambda *_: Gone(DOWN),
    "busy": lambda *_: Gone(DOWN, sent=True),
    "turns sick": lambda _, n: answer() if n < 9 else DOWN,
    "turns useless": lambda _, n: answer() if n < 9 else USELESS,
    "recovers": lambda _, n: DOWN if n < 9 else answer(),
    "restarts": lambda _, n: Gone(DOWN, sent=n == 5) if 5 <= n < 9 else answer(),
    "every third": lambda _, n: DOWN if n % 3 == 0 else answer(),
}


@settings(max_examples=60, deadline=None)
@given(
    modes=st.lists(st.sampled_from(sorted(MODES)), max_size=3),
    paces=st.lists(st.sampled_from([0.0, 0.001, 0.004]), min_size=4, max_size=4),
    bad=st.sets(st.integers(0, 29), max_size=8),
    fault=st.sampled_from([DOWN, Gone(DOWN, sent=True)]),
)
def test_each_item_ends_once_and_none_is_lost_that_one_server_answers(
    modes: list[str], paces: list[float], bad: set[int], fault: Exception
) -> None:
    """Whatever the other servers do; all that are well refuse `bad` items, or go with them.

    While the one that is well is away, as it is after each that makes it go, the others may be all
    there is: then an item can be lost to them, but each still ends, and once.
    """

    def but_the_bad(mode: str) -> Callable[[Asked, int], Answer | Exception]:
        def does(asked: Asked, number: int) -> Answer | Exception:
            found = MODES[mode](asked, number)
            return fault if asked[0] in bad and found is not USELESS else found

        return does

    servers = [
        Scripted(f"{n} {mode}", but_the_bad(mode), pace).server
        for n, (mode, pace) in enumerate(zip(["well", *modes], paces, strict=False))
    ]
    found = labelled(servers, 30, attempts=len(servers) + 1)
    lost = {item for item, is_good in found.items() if not is_good}
    assert bad == lost if fault is DOWN else bad <= lost
