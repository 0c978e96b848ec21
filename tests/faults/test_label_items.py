"""The label stage where single items are the fault: they alone end in the quarantine.

The server is a double with real sockets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable
from tests.faults.labelling import (
    ITEMS,
    Labelling,
    asks_only,
    case,
    short_pauses,
    stage,
    teacher,
    use,
)
from tests.services.simulated_teacher import Asked, Chat, Fault, Pace, SimulatedTeacher
from tests.services.teacher_faults import BOTH, BROKEN, BUSY

__all__ = ["short_pauses", "stage", "teacher", "use"]


def bad(numbers: set[int], fault: Fault) -> Callable[[Asked], Fault | None]:
    return lambda asked: fault if case(asked) in numbers else None


@pytest.mark.parametrize("protocol", BOTH)
def test_an_item_that_crashes_the_model_takes_no_other_with_it(
    tmp_path: Path, teacher: SimulatedTeacher, use: Callable[..., None], protocol: str
) -> None:
    """All that is under way fails with it, each time that it is asked."""
    stage = Labelling(tmp_path, count=60)
    use(teacher.word(protocol))
    teacher.pace = Pace(first_token_s=0.02)
    crashes = 0

    def fault(asked: Asked) -> Fault:
        before = crashes

        def crash(chat: Chat, good: dict[str, Any]) -> None:
            nonlocal crashes
            crashes += case(asked) in {20, 40}
            if crashes > before:
                chat.reply(500, {"error": "the runner has terminated"})
            else:
                chat.reply(200, good)

        return crash

    teacher.fault = fault
    assert stage.label() == set(range(60)) - {20, 40}
    assert stage.quarantined().keys() == {20, 40}
    assert crashes == 4


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("name", BUSY)
@pytest.mark.parametrize("numbers", [{4}, {2, 5, 6}, {ITEMS - 2, ITEMS - 1}], ids=str)
def test_items_to_which_a_server_always_says_that_it_is_busy(
    stage: Labelling,
    teacher: SimulatedTeacher,
    use: Callable[..., None],
    name: str,
    protocol: str,
    numbers: set[int],
) -> None:
    use(teacher.word(protocol))
    teacher.fault = bad(numbers, BUSY[name][0])
    assert stage.label() == set(range(ITEMS)) - numbers
    for row in stage.quarantined().values():
        assert "refused" in row["failure"]
    asks_only(teacher, stage, numbers)


@pytest.mark.parametrize("protocol", BOTH)
def test_nothing_but_an_item_to_which_a_server_always_says_that_it_is_busy(
    tmp_path: Path, teacher: SimulatedTeacher, use: Callable[..., None], protocol: str
) -> None:
    """As in the next start, which asks for the quarantine only: with one answered before it."""
    stage = Labelling(tmp_path, count=2)
    use(teacher.word(protocol))
    teacher.fault = bad({0}, BUSY["502"][0])
    for _ in range(2):
        assert stage.label() == {1}
        assert stage.quarantined().keys() == {0}


def test_an_item_that_fails_where_nothing_was_ever_answered_is_not_to_blame(
    tmp_path: Path, teacher: SimulatedTeacher, use: Callable[..., None]
) -> None:
    stage = Labelling(tmp_path, count=1)
    use(teacher.word("ollama"))
    teacher.fault = bad({0}, BROKEN["500"][0])
    with pytest.raises(EngineUnavailable, match="refused"):
        stage.label(patience_s=0.1)
    assert not (stage.out / "quarantine.jsonl").exists()


@pytest.mark.parametrize("protocol", BOTH)
def test_an_item_that_makes_the_server_go_and_come_back(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], protocol: str
) -> None:
    use(teacher.word(protocol))
    restarts: list[threading.Thread] = []

    def crash(chat: Chat, _: dict[str, Any]) -> None:
        def restart() -> None:
            teacher.stop()
            time.sleep(0.2)
            teacher.start()

        restarts.append(threading.Thread(target=restart))
        restarts[-1].start()
        time.sleep(0.1)
        chat.sever()

    teacher.fault = bad({4}, crash)
    assert stage.label() == set(range(ITEMS)) - {4}
    assert stage.quarantined()[4]["failure"]
    for each in restarts:
        each.join()
    asks_only(teacher, stage, {4})


@pytest.mark.parametrize("numbers", [{1, 2}, {1, 2, 3, 4, 5, 6}, {10, 11}], ids=str)
def test_items_that_time_out_later_than_the_patience(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], numbers: set[int]
) -> None:
    use(teacher.word("ollama"))
    teacher.fault = bad(numbers, BROKEN["slow"][0])
    limits = {"timeout_s": 0.3, "patience_s": 0.1, "concurrency": 1}
    assert stage.label(**limits) == set(range(ITEMS)) - numbers
    assert all("in time" in row["failure"] for row in stage.quarantined().values())


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("first", [5, 28], ids=["amid", "last"])
def test_neighbours_that_are_refused_do_not_end_it(
    tmp_path: Path, teacher: SimulatedTeacher, use: Callable[..., None], protocol: str, first: int
) -> None:
    """The pauses of a server that is there do not grow: 24 that doubled would take days."""
    stage = Labelling(tmp_path, count=40)
    numbers = set(range(first, first + 12))
    use(teacher.word(protocol))
    teacher.fault = bad(numbers, BROKEN["400"][0])
    assert stage.label(patience_s=2, min_labelled=0.5) == set(range(40)) - numbers
    assert all("refused" in row["failure"] for row in stage.quarantined().values())
    assert stage.label(patience_s=2, min_labelled=0.5) == set(range(40)) - numbers
