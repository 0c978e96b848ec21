"""The label stage against a server that misbehaves: each item ends once, under its own name.

The server is a double with real sockets; tests/docker/test_label_ollama.py has a real Ollama.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable, ModelMissing
from tests.faults.labelling import (
    ITEMS,
    PARAMS,
    Labelling,
    answer,
    asks_only,
    case,
    short_pauses,
    stage,
    teacher,
    use,
)
from tests.services.simulated_teacher import Asked, Chat, Fault, Pace, SimulatedTeacher
from tests.services.teacher_faults import BOTH, BROKEN, BUSY, LATE, WHOLE, cases

__all__ = ["short_pauses", "stage", "teacher", "use"]

ALWAYS, ONCE = {2, 5}, {0, 7, 9}
"""Items whose every request, and whose first request only, has the fault."""


def some(fault: Fault) -> Callable[[Asked], Fault | None]:
    def choose(asked: Asked) -> Fault | None:
        number = case(asked)
        faulty = number in ALWAYS or (number in ONCE and not asked.repeated)
        return fault if faulty else None

    return choose


def timeout_s(name: str) -> float:
    return 0.4 if name in LATE else PARAMS["timeout_s"]


@pytest.mark.parametrize(("name", "protocol"), cases(WHOLE))
def test_answers_of_no_use(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], name: str, protocol: str
) -> None:
    use(teacher.word(protocol))
    teacher.fault = some(WHOLE[name][0])
    assert stage.label() == set(range(ITEMS)) - ALWAYS
    assert stage.quarantined().keys() == ALWAYS
    for row in stage.quarantined().values():
        assert len(row["attempts"]) == 2
        assert all(attempt["broken"] for attempt in row["attempts"])
    asks_only(teacher, stage, ALWAYS, max_attempts=3)


@pytest.mark.parametrize(("name", "protocol"), cases(BROKEN))
def test_requests_without_an_answer(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], name: str, protocol: str
) -> None:
    use(teacher.word(protocol))
    teacher.fault = some(BROKEN[name][0])
    assert stage.label(timeout_s=timeout_s(name)) == set(range(ITEMS)) - ALWAYS
    assert stage.quarantined().keys() == ALWAYS
    assert all(row["failure"] for row in stage.quarantined().values())
    asks_only(teacher, stage, ALWAYS)


@pytest.mark.parametrize(("name", "protocol"), cases(BROKEN | BUSY))
def test_a_server_that_never_answers_well(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], name: str, protocol: str
) -> None:
    use(teacher.word(protocol))
    fault = (BROKEN | BUSY)[name][0]
    teacher.fault = lambda asked: fault if asked.number >= ITEMS // 2 else None
    with pytest.raises(EngineUnavailable) as caught:
        stage.label(patience_s=0.1, timeout_s=timeout_s(name))
    assert caught.value.what
    teacher.fault = lambda _: None
    teacher.reset()
    assert stage.label() == set(range(ITEMS))
    assert teacher.load.requests == ITEMS // 2


@pytest.mark.parametrize(("name", "protocol"), cases(BUSY))
def test_a_busy_server_is_waited_for(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], name: str, protocol: str
) -> None:
    use(teacher.word(protocol))
    fault = BUSY[name][0]
    teacher.fault = lambda asked: fault if 3 <= asked.number < 9 else None
    assert stage.label() == set(range(ITEMS))
    asks_only(teacher, stage, set())


@pytest.mark.parametrize("protocol", BOTH)
def test_a_restart_in_the_middle(
    tmp_path: Path, teacher: SimulatedTeacher, use: Callable[..., None], protocol: str
) -> None:
    stage = Labelling(tmp_path, count=60)
    use(teacher.word(protocol))
    teacher.pace = Pace(first_token_s=0.02)
    restarted = threading.Event()

    def restart() -> None:
        teacher.stop()
        time.sleep(0.3)
        teacher.start()
        restarted.set()

    def fault(asked: Asked) -> None:
        if asked.number == 20:
            threading.Thread(target=restart).start()

    teacher.fault = fault
    assert stage.label() == set(range(60))
    assert restarted.is_set()
    # Again: what was under way, and one answered question, by which the pool sees that it is back.
    assert 60 <= teacher.load.requests <= 60 + PARAMS["concurrency"] + 1
    assert max(teacher.load.by_item.values()) == 2


@pytest.mark.parametrize("protocol", BOTH)
def test_a_server_that_is_gone_for_good_leaves_it_to_the_other(
    tmp_path: Path, teacher: SimulatedTeacher, use: Callable[..., None], protocol: str
) -> None:
    stage = Labelling(tmp_path, count=40)
    with SimulatedTeacher(answer, slots=2, pace=Pace(first_token_s=0.02)) as other:
        use(teacher.word(protocol), other.word("ollama"))
        teacher.fault = lambda asked: (
            threading.Thread(target=teacher.stop).start() if asked.number == 8 else None
        )
        assert stage.label() == set(range(40))
        assert teacher.load.requests + other.load.requests <= 40 + PARAMS["concurrency"]
        assert other.load.answered > 20
    teacher.start()  # so that it can be stopped


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize(
    "name", ["500", "400", "broken-envelope", "close-mid-body", "empty", "503"]
)
def test_a_sick_server_puts_nothing_into_the_quarantine_that_the_other_answers(
    tmp_path: Path, teacher: SimulatedTeacher, use: Callable[..., None], protocol: str, name: str
) -> None:
    """It fails at once what it is asked, so it is always the emptiest; the other is slow."""
    stage = Labelling(tmp_path, count=40)
    with SimulatedTeacher(answer, pace=Pace(first_token_s=0.01)) as slow:
        use(slow.word("ollama"), teacher.word(protocol))
        teacher.fault = lambda _: (WHOLE | BROKEN | BUSY)[name][0]
        assert stage.label() == set(range(40))
        assert teacher.load.requests < 40


@pytest.mark.parametrize("down", BOTH)
def test_a_server_that_is_down_at_the_start_makes_no_other_teacher(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], down: str
) -> None:
    with SimulatedTeacher(answer, slots=2) as other:
        use(other.word("openai"), teacher.word("ollama"))
        assert stage.label(max_attempts=1) == set(range(ITEMS))
        gone = {"openai": other, "ollama": teacher}[down]
        gone.stop()
        teacher.reset()
        other.reset()
        assert stage.label(max_attempts=2) == set(range(ITEMS))
        assert teacher.load.requests + other.load.requests == 0
        gone.start()  # so that it can be stopped


@pytest.mark.parametrize("protocol", BOTH)
def test_a_model_that_vanishes(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], protocol: str
) -> None:
    use(teacher.word(protocol))

    def vanish(chat: Chat, _: dict[str, Any]) -> None:
        teacher.has_model = False
        chat.reply(404, {"error": "no such model"})

    teacher.fault = lambda asked: vanish if asked.number >= ITEMS // 2 else None
    with pytest.raises(ModelMissing):
        stage.label(patience_s=0.1)
    teacher.fault = lambda _: None
    teacher.has_model = True
    teacher.reset()
    assert stage.label() == set(range(ITEMS))
    assert teacher.load.requests == ITEMS // 2


@pytest.mark.parametrize("listed", [{"data": ["teacher"]}, {"data": [{}]}, {"data": 5}], ids=str)
def test_a_list_of_models_in_another_shape_in_mid_run_is_a_server_that_is_gone(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], listed: dict[str, Any]
) -> None:
    use(teacher.word("openai"))

    def fail(chat: Chat, _: dict[str, Any]) -> None:
        teacher.instead = {"/v1/models": listed}
        chat.reply(500, {"error": "scripted"})

    teacher.fault = lambda asked: fail if asked.number == 6 else None
    with pytest.raises(EngineUnavailable, match="another shape"):
        stage.label(patience_s=0.1)
    teacher.instead = {}
    assert stage.label() == set(range(ITEMS))


@pytest.mark.parametrize("protocol", BOTH)
def test_a_server_that_stays_away_puts_nothing_into_the_quarantine(
    stage: Labelling, teacher: SimulatedTeacher, use: Callable[..., None], protocol: str
) -> None:
    use(teacher.word(protocol))
    stopping: list[threading.Thread] = []

    def stop(chat: Chat, _: dict[str, Any]) -> None:
        stopping.append(threading.Thread(target=teacher.stop))
        stopping[-1].start()
        time.sleep(0.1)
        chat.sever()

    teacher.fault = lambda asked: stop if asked.number == 6 else None
    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        stage.label(patience_s=0.5)
    for each in stopping:
        each.join()
    assert not (stage.out / "quarantine.jsonl").exists()
    teacher.start()
    teacher.fault = lambda _: None
    assert stage.label() == set(range(ITEMS))
