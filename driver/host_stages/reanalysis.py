"""One item's new analysis by the backend, looked at before and after.

The backend never says that an analysis failed: it stores an empty answer, or a fixed text, and
calls that done.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from contracts import files
from contracts.errors import BackendUnavailable
from driver.adapters.backend import Backend, ItemUnavailable
from driver.adapters.items import (
    AnswerStorage,
    analysed,
    analysis_of,
    in_columns,
    unread,
    with_nulls,
)
from tasks import Storage

Row = dict[str, Any]
Pause = Callable[[float], None]

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
    unanswered: bool = False
    """It failed without any answer of the model, which need not be the item's fault."""
    answer: str = ""
    """Digest of what the item holds by it (`answer_digest`); "" where nothing is known to be."""


def reprocess(
    backend: Backend,
    storage: AnswerStorage,
    row: Row,
    timeout_s: float,
    *,
    reviewed: bool = False,
    intend: Callable[[Row | None], None] = lambda _: None,
    pause: Pause = time.sleep,
) -> Seen:
    """Have one item analysed anew, and say what became of it.

    `row` is the item of the snapshot (`id`, and `title` where it is known); `timeout_s` limits the
    wait for the analysis. `reviewed` takes a manually reviewed item too. `intend` is told the
    item's state, None where it cannot be shown, before anything is asked. Raises
    `BackendUnavailable` where the backend itself does not answer.
    """
    try:
        item: Row | None = backend.item(row["id"])
    except ItemUnavailable as error:
        if error.unknown:
            return Seen(Outcome.NOT_THERE)
        item = None  # cannot be shown as it is; a new analysis may well mend it
    if item is not None:
        if item.get("is_manually_reviewed") is True and not reviewed:
            return Seen(Outcome.LEFT_OUT)
        if another_article(row, item):
            return Seen(Outcome.NOT_THERE, "another article has this id")
    before = None if item is None else state_of(item, storage)
    intend(before)
    try:
        backend.reprocess_item(row["id"])
    except ItemUnavailable as error:
        gone = Outcome.NOT_THERE if error.unknown else Outcome.FAILED
        return Seen(gone, f"the backend answers {error.status}", unanswered=not error.unknown)
    pause(_FIRST_PAUSE_S)
    seen = settle(backend, storage, row["id"], before, timeout_s, pause=pause)
    if seen is None:
        reason = f"the analysis did not change within {timeout_s:.0f} s"
        return Seen(Outcome.FAILED, reason, unanswered=True)
    return seen


def settle(
    backend: Backend,
    storage: AnswerStorage,
    item_id: str,
    before: Row | None,
    wait_s: float,
    *,
    pause: Pause = time.sleep,
) -> Seen | None:
    """Say what became of an item that was asked about when its state was `before`.

    Waits for up to `wait_s`, and looks at least once. None: nothing has come of it.
    """
    after = _changed(backend, storage, item_id, before, wait_s, pause)
    return None if after is None else judge(storage, before, after)


def judge(storage: AnswerStorage, before: Row | None, after: Row) -> Seen:
    """Say what a change of an item's state means; `before` is None where it could not be shown."""
    was_reviewed = before is None or before.get("is_manually_reviewed") is True
    if after.get("is_manually_reviewed") is True and not was_reviewed:
        return Seen(Outcome.LEFT_OUT, "a person reviewed it while its analysis was under way")
    problem, unanswered = _hidden_failure(storage, before or {}, after)
    if problem:
        stored = answer_digest(after, storage)  # an empty answer, say, which is ours too
        return Seen(Outcome.FAILED, problem, unanswered=unanswered, answer=stored)
    return Seen(Outcome.PROCESSED, answer=answer_digest(after, storage))


def look_at(
    backend: Backend,
    storage: Storage,
    ids: Iterable[str],
    also: Callable[[Row], bool] | None = None,
) -> tuple[dict[str, Row], dict[str, Row]]:
    """Return all items that the backend lists, and whole those with these ids, each by id.

    With them those listed ones for which `also` is true. One that the backend cannot show makes
    its whole page fail: nothing is listed then, and the items are read one by one. Raises
    `BackendUnavailable` where the backend itself does not answer.
    """
    try:
        listed = {str(item["id"]): item for item in backend.items()}
    except BackendUnavailable:
        if not backend.healthy():
            raise
        listed = {}
    more = [i for i, item in listed.items() if also and also(item)]
    shown: dict[str, Row] = {}
    needed = (*storage.columns, "is_manually_reviewed", storage.analysis[0])
    for item_id in dict.fromkeys([*ids, *more]):
        item = listed.get(item_id, {})
        whole = all(name in item for name in needed)
        with contextlib.suppress(ItemUnavailable):
            shown[item_id] = item if whole else backend.item(item_id)
    return listed, shown


def another_article(row: Row, item: Row) -> bool:
    """Return whether the backend's item is not the one of the row, although its id is.

    Where the row has no title, as in a task without one, nothing but the id can tell.
    """
    title = row.get("title")
    return title is not None and (item.get("title") or "") != title


def state_of(item: Row, storage: Storage) -> Row:
    """Return what a new analysis can change: the answer, and every time but those of the news.

    Which of the times the backend keeps is not certain, so each that looks like one counts. The
    state has the item's own form, so that what reads an item reads it too.
    """
    times = {n: v for n, v in item.items() if n.endswith("_at") and n not in _NOT_OURS}
    return {
        **times,
        **analysed(item, storage),
        "is_manually_reviewed": item.get("is_manually_reviewed") is True,
    }


def is_as_left(item: Row, storage: Storage, answer: str | None) -> bool:
    """Return whether an item, or its state, holds the answer of a digest (None: of nothing)."""
    return answer in {answer_digest(item, storage, edited=each) for each in (False, True)}


def answer_digest(item: Row, storage: Storage, *, edited: bool = False) -> str:
    """Return a digest of the answer that an item, or its state, holds.

    With `edited` as an older driver has made it: of the columns that people can change alone.
    """
    columns = in_columns(item, storage)
    if edited:
        columns = {name: columns[name] for name in storage.edited}
    answer = {**columns, "analysis": analysis_of(item, storage)}
    return files.digest_text(files.canonical_json(answer))


def _changed(
    backend: Backend,
    storage: Storage,
    item_id: str,
    before: Row | None,
    wait_s: float,
    pause: Pause,
) -> Row | None:
    """Return the item once its state differs from `before`; None on time-out."""
    deadline, pause_s = time.monotonic() + wait_s, _FIRST_PAUSE_S
    while True:
        try:
            after = backend.item(item_id)
        except ItemUnavailable:
            pass  # it may be readable again when the analysis is stored
        else:
            if state_of(after, storage) != before:
                return after
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return None
        pause(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)


def _hidden_failure(storage: AnswerStorage, before: Row, after: Row) -> tuple[str, bool]:
    """Return why the item has no real answer although the backend calls it done; "" if it has.

    With it: whether the model has not answered at all. A task whose fields all have columns has no
    analysis beside them: there the columns are the answer, and may well be the same once more.
    Of any other one they are not: a column can hold what was there before.
    """
    analysis, older = analysis_of(after, storage), analysis_of(before, storage)
    columns, answered = in_columns(after, storage), storage.answered or tuple(analysis)
    answer = with_nulls(columns, storage) | analysis
    # Nulls alone can be an answer, but then the columns show that one has come. Times, or the name
    # of the model, do not: a backend may put them beside the nulls of a failure as well.
    nothing = {*storage.beside}.isdisjoint(analysis) or columns == in_columns(before, storage)
    wiped = nothing and all(analysis.get(name) is None for name in storage.beside)
    if (storage.beside and wiped) or all(answer.get(name) is None for name in answered):
        return "no analysis is stored", True
    if (storage.beside or analysis or older) and analysis == older:
        return "the stored analysis is still the old one", True
    unreadable = f"the model's answer could not be read ({storage.fallback})"
    if storage.fallback and storage.fallback in json.dumps(analysis, ensure_ascii=False):
        return unreadable, False
    # An old fallback stays where a new answer has no text, as that of an irrelevant article.
    whole = all(answer.get(name) not in (None, "") for name in answered)
    fresh = {n: v for n, v in columns.items() if v != before.get(n) or not whole}
    return (unreadable, False) if unread(fresh, storage) else ("", False)
