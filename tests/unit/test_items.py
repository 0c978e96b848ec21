"""What an item of the backend holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts.errors import SettingsInvalid
from driver.adapters.items import (
    analysed,
    analysis_of,
    has_text,
    reviewed_answer,
    storage_of,
    stored_answer,
    with_analysis,
)
from tasks import Column, Storage, load_task

TASK = load_task("liga_relevance")


def test_stored_answer() -> None:
    item: dict[str, Any] = {
        "summary": None,
        "priority": "none",
        "assigned_aks": [],
        "metadata": {"llm_analysis": {"summary": "alt", "tags": ["a"], "relevant": False}},
    }
    fields = ("summary", "priority", "assigned_aks", "tags", "relevant", "reasoning")
    assert stored_answer(item, fields, storage_of(TASK)) == {
        "summary": None,
        "priority": None,
        "assigned_aks": [],
        "tags": ["a"],
        "relevant": False,
    }


def test_has_text() -> None:
    assert has_text({"title": None, "content": "x"}, TASK)
    assert not has_text({"title": " ", "content": None}, TASK)


STORAGE = Storage(
    table="messages",
    columns={"a": Column(null="-"), "b": Column(edited=True, left_over=True)},
    analysis=("found",),
    textless={"c": 0},
    fallback="failed",
)


def test_an_analysis_in_a_column_of_its_own() -> None:
    item = {"a": "-", "b": "kept", "found": {"c": 0, "b": None}}
    assert analysis_of(item, STORAGE) == {"c": 0, "b": None}
    assert analysed(item, STORAGE) == {"a": "-", "b": "kept", "found": {"c": 0, "b": None}}
    assert stored_answer(item, "abc", STORAGE) == {"a": None, "b": "kept", "c": 0}
    assert reviewed_answer(item, "abc", STORAGE) == {"a": None, "b": None, "c": 0}
    failed = {**item, "b": "failed"}
    assert reviewed_answer(failed, "abc", STORAGE)["b"] == "failed"


@pytest.mark.parametrize(
    ("item", "analysis", "column"),
    [
        (
            {"m": {"x": 1, "deep": {"y": 2, "old": {}}}},
            {"c": 1},
            {"x": 1, "deep": {"y": 2, "old": {"c": 1}}},
        ),
        ({"m": {"x": 1, "deep": {"old": {"c": 1}}}}, {}, {"x": 1}),
        ({"m": None}, {"c": 1}, {"deep": {"old": {"c": 1}}}),
    ],
)
def test_an_analysis_is_put_back_where_it_was(
    item: dict[str, Any], analysis: dict[str, Any], column: dict[str, Any]
) -> None:
    nested = replace(STORAGE, analysis=("m", "deep", "old"))
    assert with_analysis(item, analysis, nested) == column


def test_a_task_that_no_backend_keeps_is_refused_by_name() -> None:
    with pytest.raises(SettingsInvalid, match="support_messages"):
        storage_of(load_task("support_messages"))
