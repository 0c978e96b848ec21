"""The pool: every question once, as many at once as a server answers, failures told apart."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from contracts.errors import EngineUnavailable
from images.labeler.pool import Pool
from images.labeler.server import Gone, Server
from serving.engine import Answer
from tests.unit.pool_answers import DOWN, answer, short_pauses

__all__ = ["short_pauses"]


def everything(pool: Pool[int], count: int) -> dict[int, Answer | EngineUnavailable]:
    found = list(pool.answers(range(count)))
    assert len({question for question, _ in found}) == len(found)
    return dict(found)


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
