"""The label stage before servers that misbehave, and what it has to keep to whatever they do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.stages import LABEL
from images.labeler import label as label_stage
from images.labeler import server
from tests.services.simulated_teacher import Asked, Pace, SimulatedTeacher
from tests.unit.labeler_stage import StageRun, label, read_jsonl, write_jsonl

ITEMS = 12
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
    monkeypatch.setattr(server, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def teacher() -> Iterator[SimulatedTeacher]:
    with SimulatedTeacher(answer, slots=4, pace=Pace(first_token_s=0.002)) as started:
        yield started


@pytest.fixture
def stage(tmp_path: Path) -> Labelling:
    return Labelling(tmp_path)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that names the servers to the stage."""
    return lambda *words: monkeypatch.setenv("RETRAIN_TEACHERS", " ".join(words))


def asks_only(
    teacher: SimulatedTeacher, stage: Labelling, missing: set[int], **params: Any
) -> None:
    """Let a healthy server finish, and check that it is asked for what is missing and no more."""
    teacher.fault = lambda _: None
    teacher.reset()
    assert stage.label(**params) == set(range(ITEMS))
    asked = [re.findall(r"Fall (\d+)\.", item) for item in teacher.load.by_item.elements()]
    assert sorted(int(numbers[0]) for numbers in asked) == sorted(missing)
