"""Gives the backend's items the new model's answers, one by one, and looks at each of them.

The backend has a bulk call too, which is of no use here: it takes the newest 100 by default, shows
nothing before it ends, loses everything when it is stopped, and overwrites reviewed items. One
item has its own commit. What the backend never says is that an analysis failed: it stores no
priority, or a fixed text, and calls that done. So each item is read before and after.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import BackendUnavailable, ReprocessFailed
from contracts.params import (
    ReprocessMetrics,
    ReprocessParams,
)
from contracts.stages import (
    ITEMS,
)
from driver.adapters.backend import (
    EDITED_FIELDS,
    FALLBACK_TEXT,
    Backend,
    ItemUnavailable,
    analysis_of,
)

Row = dict[str, Any]

_FEWEST = 10  # items before a share of failures means anything
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
class _Seen:
    """What became of one item, and why."""

    outcome: Outcome
    reason: str = ""


class _Outcomes:
    """The file outcomes.jsonl: a line for each item as soon as it is known.

    A killed run goes on behind its last line, and tries again what failed. A finished run leaves
    a last line that says so: asked for once more, it starts from the first item.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.by_id: dict[str, _Seen] = {}
        lines = list(self._whole_lines())
        if lines and "finished" in lines[-1]:
            path.replace(path.with_name("outcomes.previous.jsonl"))
            return
        for line in lines:
            self.by_id[line["id"]] = _Seen(Outcome(line["outcome"]), line["reason"])
        self.by_id = {i: seen for i, seen in self.by_id.items() if seen.outcome != Outcome.FAILED}

    def add(self, item_id: str, seen: _Seen) -> None:
        """Keep what became of an item."""
        self.by_id[item_id] = seen
        self._append({"id": item_id, "outcome": seen.outcome.value, "reason": seen.reason})

    def finish(self) -> None:
        """Say that every item has its outcome."""
        self._append({"finished": True})

    def count(self) -> Counter[Outcome]:
        """Return how many items there are of each outcome."""
        return Counter(seen.outcome for seen in self.by_id.values())

    def _append(self, line: Row) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _whole_lines(self) -> Iterator[Row]:
        """Yield the lines, and cut off one that a kill left half written."""
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)
        for line in content[:whole].splitlines():
            yield json.loads(line)


def work(context: StageContext[ReprocessParams], backend_url: str, alias: str) -> ReprocessMetrics:
    """Reprocess every item of the snapshot that the backend has and nobody has reviewed.

    Without a backend (`backend_url` is "") there is nothing to do. Raises `BackendUnavailable`
    where the backend does not ask `alias`, the deployed model, and `ReprocessFailed` where too
    many items failed.
    """
    if not context.params.enabled or not backend_url:
        return ReprocessMetrics(processed=0, failed=0, left_out=0)
    check(backend_url, alias)
    backend = Backend(backend_url)
    context.work.mkdir(parents=True, exist_ok=True)
    outcomes = _Outcomes(context.work / "outcomes.jsonl")
    _reprocess_all(context, backend, outcomes)
    counts = outcomes.count()
    if counts[Outcome.NOT_THERE]:
        _say(f"{counts[Outcome.NOT_THERE]} items of the snapshot are not in the backend")
    _refuse_failures(context, outcomes, counts)
    outcomes.finish()
    return ReprocessMetrics(
        processed=counts[Outcome.PROCESSED],
        failed=counts[Outcome.FAILED],
        left_out=counts[Outcome.LEFT_OUT],
    )


def check(backend_url: str, alias: str, will_ask: str = "") -> None:
    """Raise `BackendUnavailable` where the items' new analyses would not be the new model's.

    The backend must ask `alias`, now or once its container has been made anew (`will_ask`), and
    its analyses must be switched on.
    """
    backend = Backend(backend_url)
    asked = backend.llm_status().model
    if _with_tag(alias) not in {_with_tag(asked), _with_tag(will_ask)}:
        raise BackendUnavailable(
            f"the backend asks {asked}, not the deployed model {alias}",
            why="only OLLAMA_MODEL in its container's environment counts; a model name stored "
            "through its API is never used",
            todo=f"Set OLLAMA_MODEL={alias} in the backend's compose environment and recreate "
            "its container (`docker compose up -d`), then run again; or set it in "
            "backend.compose.environment, with which a run recreates it.",
        )
    if not backend.admin_health().llm_enabled:
        raise BackendUnavailable(
            f"the analyses of {backend.url} are switched off",
            why="the backend would say that it started, and then fail every item",
            todo=f"curl -X POST '{backend.url}/api/llm/enable?auto_reprocess=false'",
        )


def _with_tag(model: str) -> str:
    """Return a model's name as Ollama completes it; a name may hold a registry's port."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _reprocess_all(
    context: StageContext[ReprocessParams], backend: Backend, outcomes: _Outcomes
) -> None:
    rows = list(files.read_jsonl(context.input(ITEMS)))
    here: Counter[Outcome] = Counter()  # of this start: what went well before proves nothing now
    for row in rows:
        if row["id"] in outcomes.by_id:
            continue
        seen = _reprocess(backend, row, context.params.timeout_s)
        outcomes.add(row["id"], seen)
        here[seen.outcome] += 1
        if seen.outcome is Outcome.FAILED:
            _say(f"item {row['id']} failed: {seen.reason}")
        counts = outcomes.count()
        context.progress(len(outcomes.by_id), len(rows), "items", failed=counts[Outcome.FAILED])
        if here[Outcome.PROCESSED] + here[Outcome.FAILED] >= _FEWEST:
            _refuse_failures(context, outcomes, here)


def _refuse_failures(
    context: StageContext[ReprocessParams], outcomes: _Outcomes, counts: Counter[Outcome]
) -> None:
    failed, tried = counts[Outcome.FAILED], counts[Outcome.FAILED] + counts[Outcome.PROCESSED]
    if not failed or failed <= context.params.max_error_share * tried:
        return
    reasons = Counter(s.reason for s in outcomes.by_id.values() if s.outcome is Outcome.FAILED)
    raise ReprocessFailed(
        f"{failed} of {tried} items failed",
        why="; ".join(f"{count} times: {reason}" for reason, count in reasons.most_common(3)),
        todo=f"Read {context.work / 'outcomes.jsonl'} and the backend's log. The next run tries "
        "the failed items again and leaves the finished ones alone.",
    )


# --- one item ------------------------------------------------------------------------------------
def _reprocess(backend: Backend, row: Row, timeout_s: float) -> _Seen:
    try:
        before: Row | None = backend.item(row["id"])
    except ItemUnavailable as error:
        if error.unknown:
            return _Seen(Outcome.NOT_THERE)
        before = None  # cannot be shown as it is; a new analysis may well mend it
    if before is not None:
        if before.get("is_manually_reviewed") is True:
            return _Seen(Outcome.LEFT_OUT)
        if "title" in row and (before.get("title") or "") != row["title"]:
            return _Seen(Outcome.NOT_THERE, "another article has this id")
    try:
        backend.reprocess_item(row["id"])
    except ItemUnavailable as error:
        gone = Outcome.NOT_THERE if error.unknown else Outcome.FAILED
        return _Seen(gone, f"the backend answers {error.status}")
    after = _changed(backend, row["id"], before, timeout_s)
    if after is None:
        return _Seen(Outcome.FAILED, f"the analysis did not change within {timeout_s:.0f} s")
    problem = _hidden_failure(before or {}, after)
    return _Seen(Outcome.FAILED, problem) if problem else _Seen(Outcome.PROCESSED)


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


def _say(line: str) -> None:
    print(line, file=sys.stderr)
