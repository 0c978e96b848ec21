"""How many questions a server answers at once is found out by what it tells, or by its pace."""

from __future__ import annotations

import heapq
import random
import statistics
from collections import deque

import pytest

from images.labeler.slots import Slots
from serving.engine import Answer
from tests.unit.pool_answers import answer


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
