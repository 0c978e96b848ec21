"""What an item of the backend holds."""

from __future__ import annotations

from typing import Any

from driver.adapters.items import has_text, storage_of, stored_answer
from tasks import load_task


def test_stored_answer() -> None:
    item: dict[str, Any] = {
        "summary": None,
        "priority": "none",
        "assigned_aks": [],
        "metadata": {"llm_analysis": {"summary": "alt", "tags": ["a"], "relevant": False}},
    }
    fields = ("summary", "priority", "assigned_aks", "tags", "relevant", "reasoning")
    assert stored_answer(item, fields, storage_of(load_task("liga_relevance"))) == {
        "summary": None,
        "priority": None,
        "assigned_aks": [],
        "tags": ["a"],
        "relevant": False,
    }


def test_has_text() -> None:
    assert has_text({"title": None, "content": "x"})
    assert not has_text({"title": " ", "content": None})
