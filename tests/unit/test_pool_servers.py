"""Several servers in a pool: what one fails is answered by another, whatever else they do."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import EngineUnavailable
from images.labeler import server as module
from images.labeler.pool import Pool
from images.labeler.server import Gone, Server
from serving.engine import Answer
from tests.unit.pool_answers import DOWN, answer, short_pauses

__all__ = ["short_pauses"]

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
