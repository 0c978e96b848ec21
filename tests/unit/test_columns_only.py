"""A task whose answer fields all have columns, some of which nobody can edit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from driver.adapters.items import storage_of
from driver.host_stages import reanalysis
from driver.host_stages.reanalysis import Outcome
from driver.restoration import Standing, _difference
from tasks import Column, Storage, load_task


class Output(BaseModel):
    category: str
    score: float


STORAGE = storage_of(
    replace(
        load_task("liga_relevance"),
        output=Output,
        storage=Storage(
            table="t",
            columns={"category": Column(edited=True), "score": Column()},
            fallback="not available",
        ),
    )
)
BEFORE: dict[str, Any] = {"id": "1", "category": "a", "score": 0.5, "processed_at": "1"}


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        ({"category": "b", "score": 0.7}, Outcome.PROCESSED),
        ({}, Outcome.PROCESSED),  # the same answer again, as its time shows
        ({"category": None, "score": None}, Outcome.FAILED),
        ({"category": "not available"}, Outcome.FAILED),
    ],
)
def test_the_columns_are_the_answer(after: dict[str, Any], outcome: Outcome) -> None:
    before = reanalysis.state_of(BEFORE, STORAGE)
    seen = reanalysis.judge(STORAGE, before, {**BEFORE, "processed_at": "2", **after})
    assert seen.outcome is outcome


def test_a_column_that_nobody_can_edit_is_kept_and_given_back() -> None:
    state = {**reanalysis.state_of(BEFORE, STORAGE), "id": "1", "title": ""}
    now = {**BEFORE, "score": 0.7, "processed_at": "2"}
    found = _difference(STORAGE, state, now, reanalysis.answer_digest(now, STORAGE))
    assert (found.standing, found.before, found.now) == (
        Standing.DIFFERS,
        {"score": 0.5},
        {"score": 0.7},
    )
    del state["score"]  # as an older driver has left it
    found = _difference(STORAGE, state, now, reanalysis.answer_digest(now, STORAGE))
    assert found.standing is Standing.SAME
