"""The label stage against a server that misbehaves: each item ends once, under its own name.

The server is a double with real sockets; tests/docker/test_label_ollama.py has a real Ollama.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable, ModelMissing
from contracts.stages import LABEL
from images.labeler import label as label_stage
from images.labeler import server as members
from tests.services.simulated_teacher import Asked, Chat, Fault, Pace, SimulatedTeacher
from tests.services.teacher_faults import BOTH, BROKEN, BUSY, LATE, WHOLE, cases
from tests.unit.labeler_stage import StageRun, label, read_jsonl, write_jsonl

ITEMS = 12
ALWAYS, ONCE = {2, 5}, {0, 7, 9}
"""Items whose every request, and whose first request only, has the fault."""
PARAMS: dict[str, Any] = {
    "teacher": "teacher",
    "min_labelled": 0,
    "concurrency": 4,
    "timeout_s": 30,
    "patience_s": 10,
    "max_attempts": 2,
}


def case(asked: Asked) -> int:
    """Return which item a request is about."""
    found = re.search(r"Fall (\d+)\.", asked.item)
    assert found
    return int(found[1])


def answer(asked: Asked) -> str:
    """Return a valid label that only this item can have."""
    return json.dumps(label("high", tags=[f"Fall {case(asked)}"]), ensure_ascii=False)


class Labelling(StageRun):
    """The stage, labelling by way of the servers that the environment names."""

    def __init__(self, folder: Path, count: int = ITEMS) -> None:
        super().__init__(LABEL, folder)
        self.ids = [f"i{n}" for n in range(count)]
        rows = [
            {"id": key, "title": f"Kürzung {n}", "content": f"Das Land kürzt Mittel, Fall {n}."}
            for n, key in enumerate(self.ids)
        ]
        write_jsonl(folder / "items.jsonl", rows)
        write_jsonl(folder / "reviewed.jsonl", [])

    def label(self, **params: Any) -> set[int]:
        """Label, check that nothing is lost, twice or another's, and return who has a label."""
        self.run(label_stage.work, **{**PARAMS, **params})
        labels, quarantine = (
            read_jsonl(self.out / f"{name}.jsonl") for name in ("labels", "quarantine")
        )
        assert sorted(row["id"] for row in [*labels, *quarantine]) == sorted(self.ids)
        for row in labels:
            assert row["label"]["tags"] == [f"Fall {row['id'][1:]}"]
        return {int(row["id"][1:]) for row in labels}

    def quarantined(self) -> dict[int, dict[str, Any]]:
        """Return the rows of the quarantine."""
        return {int(row["id"][1:]): row for row in read_jsonl(self.out / "quarantine.jsonl")}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def teacher() -> Iterator[SimulatedTeacher]:
    with SimulatedTeacher(answer, slots=4, pace=Pace(first_token_s=0.002)) as server:
        yield server


@pytest.fixture
def stage(tmp_path: Path) -> Labelling:
    return Labelling(tmp_path)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that names the servers to the stage."""
    return lambda *words: monkeypatch.setenv("RETRAIN_TEACHERS", " ".join(words))


def some(fault: Fault) -> Callable[[Asked], Fault | None]:
    def choose(asked: Asked) -> Fault | None:
        number = case(asked)
        faulty = number in ALWAYS or (number in ONCE and not asked.repeated)
        return fault if faulty else None

    return choose


def timeout_s(name: str) -> float:
    return 0.4 if name in LATE else PARAMS["timeout_s"]


def asks_only(
    teacher: SimulatedTeacher, stage: Labelling, missing: set[int], **params: Any
) -> None:
    """Let a healthy server finish, and check that it is asked for what is missing and no more."""
    teacher.fault = lambda _: None
    teacher.reset()
    assert stage.label(**params) == set(range(ITEMS))
    asked = [re.findall(r"Fall (\d+)\.", item) for item in teacher.load.by_item.elements()]
    assert sorted(int(numbers[0]) for numbers in asked) == sorted(missing)


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
    assert 60 <= teacher.load.requests <= 60 + PARAMS["concurrency"]


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


def bad(numbers: set[int], fault: Fault) -> Callable[[Asked], Fault | None]:
    return lambda asked: fault if case(asked) in numbers else None


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
