"""One item's new analysis by the backend, looked at before and after.

The backend never says that an analysis failed: it stores no priority, or a fixed text, and calls
that done.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from driver.adapters.backend import (
    EDITED_FIELDS,
    FALLBACK_TEXT,
    Backend,
    ItemUnavailable,
    analysis_of,
)

Row = dict[str, Any]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_NOT_OURS = {"published_at", "created_at", "fetched_at", "read_at"}


class Outcome(StrEnum):
    """What became of an item."""

    PROCESSED = "processed"
    FAILED = "failed"
    LEFT_OUT = "left_out"
    """Manually reviewed: the backend would overwrite the review."""
    NOT_THERE = "not_there"
    """The backend has no such item: deleted since, or the items came from files of another one."""


@dataclass(frozen=True)
class Seen:
    """What became of one item, and why."""

    outcome: Outcome
    reason: str = ""


def reprocess(backend: Backend, row: Row, timeout_s: float) -> Seen:
    """Have one item analysed anew, and say what became of it.

    `row` is the item of the snapshot (`id`, and `title` where it is known); `timeout_s` limits the
    wait for the analysis. Raises `BackendUnavailable` where the backend itself does not answer.
    """
    try:
        before: Row | None = backend.item(row["id"])
    except ItemUnavailable as error:
        if error.unknown:
            return Seen(Outcome.NOT_THERE)
        before = None  # cannot be shown as it is; a new analysis may well mend it
    if before is not None:
        if before.get("is_manually_reviewed") is True:
            return Seen(Outcome.LEFT_OUT)
        if "title" in row and (before.get("title") or "") != row["title"]:
            return Seen(Outcome.NOT_THERE, "another article has this id")
    try:
        backend.reprocess_item(row["id"])
    except ItemUnavailable as error:
        gone = Outcome.NOT_THERE if error.unknown else Outcome.FAILED
        return Seen(gone, f"the backend answers {error.status}")
    after = _changed(backend, row["id"], before, timeout_s)
    if after is None:
        return Seen(Outcome.FAILED, f"the analysis did not change within {timeout_s:.0f} s")
    problem = _hidden_failure(before or {}, after)
    return Seen(Outcome.FAILED, problem) if problem else Seen(Outcome.PROCESSED)


def _changed(backend: Backend, item_id: str, before: Row | None, timeout_s: float) -> Row | None:
    """Return the item once its analysis differs from `before`; None on time-out."""
    marker = None if before is None else _marker(before)
    deadline, pause = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    while time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
        try:
            after = backend.item(item_id)
        except ItemUnavailable:
            continue  # it may be readable again when the analysis is stored
        if _marker(after) != marker:
            return after
    return None


def _marker(item: Row) -> Row:
    """Return what a new analysis can change: the answer, and every time but those of the news.

    Which of the times the backend keeps is not certain, so each that looks like one counts.
    """
    times = {n: v for n, v in item.items() if n.endswith("_at") and n not in _NOT_OURS}
    return {**times, **{n: item.get(n) for n in EDITED_FIELDS}, "analysis": analysis_of(item)}


def _hidden_failure(before: Row, after: Row) -> str:
    """Return why the item has no real answer although the backend calls it done; "" if it has."""
    analysis = analysis_of(after)
    if all(analysis.get(name) is None for name in ("relevant", "relevance_score", "reasoning")):
        return "no analysis is stored"
    if analysis == analysis_of(before):
        return "the stored analysis is still the old one"
    if FALLBACK_TEXT in json.dumps(analysis, ensure_ascii=False):
        return f"the model's answer could not be read ({FALLBACK_TEXT})"
    # An old fallback stays where a new answer has no text, as that of an irrelevant article.
    fresh = [
        n for n in EDITED_FIELDS if after.get(n) != before.get(n) or not analysis.get("reasoning")
    ]
    if any(after.get(name) == FALLBACK_TEXT for name in fresh):
        return f"the model's answer could not be read ({FALLBACK_TEXT})"
    return ""
