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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

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
from driver.adapters.backend import Backend
from driver.host_stages import reanalysis
from driver.host_stages.reanalysis import Outcome, Row, Seen

_FEWEST = 10  # items before a share of failures means anything


class _Outcomes:
    """The file outcomes.jsonl: a line for each item as soon as it is known.

    A killed run goes on behind its last line, and tries again what failed. A finished run leaves
    a last line that says so: asked for once more, it starts from the first item.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.by_id: dict[str, Seen] = {}
        lines = list(self._whole_lines())
        if lines and "finished" in lines[-1]:
            path.replace(path.with_name("outcomes.previous.jsonl"))
            return
        for line in lines:
            self.by_id[line["id"]] = Seen(Outcome(line["outcome"]), line["reason"])
        self.by_id = {i: seen for i, seen in self.by_id.items() if seen.outcome != Outcome.FAILED}

    def add(self, item_id: str, seen: Seen) -> None:
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
        seen = reanalysis.reprocess(backend, row, context.params.timeout_s)
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


def _say(line: str) -> None:
    print(line, file=sys.stderr)
