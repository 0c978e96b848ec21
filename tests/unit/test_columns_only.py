"""Tasks whose answer fields have columns, all or some, of which nobody can edit some."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from contracts import files
from driver.adapters.items import storage_of
from driver.host_stages import reanalysis
from driver.host_stages.reanalysis import Outcome, Row
from driver.restoration import Standing, _difference
from tasks import Column, Storage, load_task


class Output(BaseModel):
    category: str
    score: float


class Partly(BaseModel):
    category: str
    note: str


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


def test_what_an_older_driver_has_left_is_given_back() -> None:
    """Its digests are of what people can edit, and it kept no other columns."""
    state = {**reanalysis.state_of(BEFORE, STORAGE), "id": "1", "title": ""}
    del state["score"]
    now = {**BEFORE, "category": "b", "score": 0.7, "processed_at": "2"}
    left = files.digest_text(files.canonical_json({"category": "b", "analysis": {}}))
    found = _difference(STORAGE, state, now, left)
    assert (found.standing, found.before) == (Standing.DIFFERS, {"category": "a"})
    edited_since = {**now, "category": "c"}
    assert _difference(STORAGE, state, edited_since, left).standing is Standing.CHANGED


@pytest.mark.parametrize("older", [{}, {"note": "before"}])
@pytest.mark.parametrize("answered", [("category",), ("category", "note"), ()])
@pytest.mark.parametrize(
    ("category", "analysis", "outcome"),
    [
        ("a", None, Outcome.FAILED),
        ("a", {}, Outcome.FAILED),
        ("b", {}, Outcome.FAILED),
        ("a", {"note": None}, Outcome.FAILED),
        ("a", {"error": "cut off"}, Outcome.FAILED),
        ("a", {"note": "new"}, Outcome.PROCESSED),
    ],
)
def test_where_only_some_fields_have_columns_those_are_no_answer(
    older: Row, answered: tuple[str, ...], category: str, analysis: Row | None, outcome: Outcome
) -> None:
    """Where nothing came of it the backend keeps no analysis, and the column as it was."""
    assert _judged(older, answered, category, analysis) is outcome


def test_nulls_beside_a_new_column_are_an_answer_where_the_task_says_so() -> None:
    assert _judged({"note": "before"}, ("category",), "b", {"note": None}) is Outcome.PROCESSED
    assert _judged({"note": "before"}, (), "b", {"note": None}) is Outcome.FAILED


def _judged(older: Row, answered: tuple[str, ...], category: str, analysis: Row | None) -> Outcome:
    storage = Storage(table="t", columns={"category": Column(edited=True)}, answered=answered)
    kept = storage_of(replace(load_task("liga_relevance"), output=Partly, storage=storage))
    item = {"id": "1", "category": "a", "processed_at": "1", "metadata": {"llm_analysis": older}}
    changed = {"category": category, "metadata": {"llm_analysis": analysis}, "processed_at": "2"}
    return reanalysis.judge(kept, reanalysis.state_of(item, kept), {**item, **changed}).outcome
