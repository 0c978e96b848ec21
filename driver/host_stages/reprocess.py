"""Gives the backend's items the new model's answers, and looks at each of them.

By default item by item: each has its own commit, which shows at once. What the backend never says
is that an analysis failed: it stores an empty answer, or a fixed text, and calls that done. So each
item is read before and after. The backend's bulk call takes the newest 100 by default, shows
nothing before it ends, loses everything when it is stopped, and overwrites reviewed items;
channels.py uses it, where it is asked for, for those channels where it loses nothing.

No item is asked about twice where that can be known: what is about to be asked is written down
first, and after a kill an item whose analysis has changed since is done.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from contracts import files
from contracts.entrypoint import RESULT_FILE, StageContext
from contracts.errors import BackendUnavailable, ReprocessFailed
from contracts.params import (
    ReprocessMetrics,
    ReprocessParams,
)
from contracts.stages import (
    GGUF,
    ITEMS,
)
from driver.adapters.backend import Backend, ModelNotAsked
from driver.adapters.items import has_text, storage_of
from driver.host_stages import channels, reanalysis, same_backend
from driver.host_stages.outage import Outage
from driver.host_stages.outcomes import Asked, Outcomes
from driver.host_stages.reanalysis import Outcome, Row, Seen
from driver.host_stages.record import Record
from driver.host_stages.telling import say
from tasks import Storage, Task, load_task

_FEWEST = 10  # items before a share of failures means anything
_TRIES = 2  # of an item that the model does not answer: Ollama may have been restarted
_NONE = "no model"
_STATUS_S = 5.0  # in which a backend that is well says whom it asks
_MOST_OUTAGES = 5  # at one and the same item, which may be their cause


def work(
    context: StageContext[ReprocessParams],
    backend_url: str,
    alias: str,
    *,
    everything: bool = False,
) -> ReprocessMetrics:
    """Reprocess every item of the snapshot that the backend has and nobody has reviewed.

    With `everything`, for a snapshot of this backend, also what has come in since. Without a
    backend (`backend_url` is "") there is nothing to do. Raises `BackendUnavailable` where the
    backend does not ask `alias`, the deployed model, or stays away, `EngineUnavailable` where its
    engine does, and `ReprocessFailed` where too many items failed.
    """
    if not context.params.enabled or not backend_url:
        off = "reprocess.enabled=false leaves the items as they are"
        skipped = off if backend_url else "no backend, nothing to reprocess"
        return ReprocessMetrics(processed=0, failed=0, left_out=0, skipped=skipped)
    task = load_task(context.job.task)
    storage = storage_of(task)
    backend = Backend(backend_url)
    outage = Outage(backend, context.params.patience_s, partial(_objection, backend, alias))
    outage.ready()
    model = context.job.inputs[GGUF.name].digest
    record = Record.of_model(context.root, context.job.run, model, backend.url)
    found = _look(context, backend, task, outage, everything=everything)
    if not record.begun:
        _tell_if_moved(context, model, backend, found.now)
    again = (context.folder / RESULT_FILE).exists()
    _tell_doubts(record, storage, found, again=again)
    states = _states(found.now, storage)
    record.begin(context.job.run, model, backend.url, states, len(found.rows))
    outcomes = Outcomes(record.folder, again=again)
    reprocessing = _Reprocessing(context, backend, record, outcomes, outage)
    reprocessing.run(found)
    counts = outcomes.count()
    if counts[Outcome.NOT_THERE]:
        say(f"{counts[Outcome.NOT_THERE]} items of the snapshot are not in the backend")
    reprocessing.refuse_failures(counts)
    outcomes.finish(context.job.run)
    record.finished()
    return ReprocessMetrics(
        processed=counts[Outcome.PROCESSED],
        failed=counts[Outcome.FAILED],
        left_out=counts[Outcome.LEFT_OUT],
    )


def check(backend_url: str, alias: str, will_ask: str = "") -> None:
    """Raise `ModelNotAsked` where the items' new analyses would not be the new model's.

    The backend must ask `alias`, now or once its container has been made anew (`will_ask`), and
    its analyses must be switched on.
    """
    if objection := _objection(Backend(backend_url), alias, will_ask):
        raise objection


def another_asked(backend_url: str, alias: str) -> str:
    """Return the model that a backend asks instead of `alias`, "" where it asks that."""
    asked = Backend(backend_url, _STATUS_S).llm_status().model
    return "" if same_model(asked, alias) else asked or _NONE


def same_model(one: str, other: str) -> bool:
    """Return whether both are one name, with or without its tag."""
    return _with_tag(one) == _with_tag(other)


def _objection(backend: Backend, alias: str, will_ask: str = "") -> BackendUnavailable | None:
    asked = will_ask or backend.llm_status().model
    if not same_model(asked, alias):
        what = f"the backend asks {asked or _NONE}, not the deployed model {alias}"
        if will_ask:
            return ModelNotAsked(
                f"{what}, once compose has made it anew",
                why="that is the OLLAMA_MODEL which its compose file comes to with the variables "
                "of backend.compose.environment",
                todo="Write `OLLAMA_MODEL: ${OLLAMA_MODEL}` into the service's environment in the "
                f"compose file, set OLLAMA_MODEL={alias} in backend.compose.environment, and run "
                "again.",
            )
        return ModelNotAsked(
            what,
            why="only OLLAMA_MODEL in its container's environment counts; a model name stored "
            "through its API is never used",
            todo=f"Set OLLAMA_MODEL={alias} in the backend's compose environment and recreate "
            "its container (`docker compose up -d`), then run again; or set it in "
            "backend.compose.environment, with which a run recreates it.",
        )
    if not backend.admin_health().llm_enabled:
        return ModelNotAsked(
            f"the analyses of {backend.url} are switched off",
            why="the backend would say that it started, and then fail every item",
            todo=f"curl -X POST '{backend.url}/api/llm/enable?auto_reprocess=false'",
        )
    return None


def _with_tag(model: str) -> str:
    """Return a model's name as Ollama completes it; a name may hold a registry's port."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


# --- before --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Found:
    """The items before anything is asked."""

    rows: list[Row]
    """Those to reprocess: `id`, and `title` where an id may be another article's."""
    now: dict[str, Row]
    """Those of them that the backend shows, as it shows them, by id."""
    others: dict[str, Row] | None
    """All else that it lists; None where it cannot list its items."""


def _look(
    context: StageContext[ReprocessParams],
    backend: Backend,
    task: Task,
    outage: Outage,
    *,
    everything: bool,
) -> _Found:
    """Return what there is to do; waits for a backend that is away."""
    known = list(files.read_jsonl(context.input(ITEMS)))
    if everything:  # an id is an item of this backend, whatever its title is by now
        known = [{"id": row["id"]} for row in known]
    by_id = {row["id"]: row for row in known}
    if len(by_id) < len(known):
        say(f"{len(known) - len(by_id)} lines of the snapshot name an item a second time")
    rows = list(by_id.values())
    while True:
        try:
            wanted = partial(has_text, task=task) if everything else None
            listed, shown = reanalysis.look_at(backend, storage_of(task), by_id, wanted)
            break
        except BackendUnavailable as error:
            outage.sit_out(error)
    came = [{"id": item_id} for item_id in shown if item_id not in by_id]
    if came:
        say(f"{len(came)} items have come in since the snapshot, and are reprocessed too")
    by_id |= {row["id"]: row for row in came}
    now = {i: it for i, it in shown.items() if not reanalysis.another_article(by_id[i], it)}
    others = {i: item for i, item in listed.items() if i not in now}
    return _Found([*rows, *came], now, others if listed else None)


def _tell_if_moved(
    context: StageContext[ReprocessParams], model: str, backend: Backend, now: Mapping[str, Row]
) -> None:
    """Say where items hold what a reprocess at another address has left them with."""
    storage = storage_of(load_task(context.job.task))
    if found := Record.leaving(context.root, model, backend.url, now, storage):
        record, left = found
        say(
            f"{left} items hold what this model has left them with at {record.about().backend}, "
            "and are asked about again. If that is the same backend: what they held before is in "
            f"{record.folder}, and `driver reprocess --restore` says how they get it back; "
            "after the next move call `driver reprocess --backend-moved`, which asks none again."
        )


def _tell_doubts(record: Record, storage: Storage, found: _Found, *, again: bool) -> None:
    """Say where items that are to be left alone, being done, are not as they were left.

    Raises `FileUnusable` where what became of them is damaged: that is no interrupted reprocess.
    """
    record.lines()
    if not record.begun or record.due() or (again and record.finish()):  # from the first item
        return
    shown, ids = (found.others or {}) | found.now, {row["id"] for row in found.rows}
    if told := same_backend.doubts(record, storage, shown, ids):
        say(told)


def _states(items: Mapping[str, Row], storage: Storage) -> dict[str, Row]:
    """Return what a new analysis can change of each item, with its id and title."""
    return {
        i: reanalysis.state_of(item, storage)
        | {"id": str(item["id"]), "title": item.get("title") or ""}
        for i, item in items.items()
    }


# --- the loop ------------------------------------------------------------------------------------
@dataclass
class _Task:
    """An item to be done."""

    row: Row
    asked: Asked | None = None
    """A request for it that may still be answered."""
    outages: int = 0


class _Reprocessing:
    """The work on all items: threads that ask, and one that keeps what has become of each."""

    def __init__(
        self,
        context: StageContext[ReprocessParams],
        backend: Backend,
        record: Record,
        outcomes: Outcomes,
        outage: Outage,
    ) -> None:
        self._context = context
        self._params = context.params
        self._backend = backend
        self._storage = storage_of(load_task(context.job.task))
        self._record = record
        self._outcomes = outcomes
        self._outage = outage
        self._here: Counter[Outcome] = Counter()
        """Of this start: what went well before proves nothing now."""
        self._total = 0

    def run(self, found: _Found) -> None:
        """Bring every item to its outcome."""
        self._total = len(found.rows)
        self._progress()
        if self._params.mode == "channel":
            bulk = channels.Bulk(
                self._backend,
                self._storage,
                self._outcomes,
                self._params,
                self._outage,
                lambda came: self._record.add(_states(came, self._storage)),
            )
            for item_id, outcome in bulk.run(found.now, found.others):
                self._keep(item_id, outcome)
        known, asked = self._outcomes.by_id, self._outcomes.asked
        left = [_Task(row, asked.get(row["id"])) for row in found.rows if row["id"] not in known]
        # What may still be answered comes last: until then nobody has to wait for it.
        queue = deque(sorted(left, key=lambda task: task.asked is not None))
        with self._threads() as threads:
            under_way: dict[Future[Seen | None], _Task] = {}
            while queue or under_way:
                while queue and len(under_way) < self._params.concurrency:
                    task = queue.popleft()
                    under_way[threads.submit(self._attend, task)] = task
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    task = under_way.pop(future)
                    if seen := future.result():
                        self._keep(task.row["id"], seen)
                    else:
                        queue.append(task)

    @contextmanager
    def _threads(self) -> Iterator[ThreadPoolExecutor]:
        """Give threads that stop waiting when the work ends, in whatever way."""
        with ThreadPoolExecutor(self._params.concurrency) as threads:
            try:
                yield threads
            finally:
                self._outage.stop()

    def _keep(self, item_id: str, seen: Seen) -> None:
        """Keep an outcome; raise `ReprocessFailed` where too many have failed by now."""
        self._outcomes.add(item_id, seen)
        self._here[seen.outcome] += 1
        if seen.outcome is Outcome.FAILED:
            say(f"item {item_id} failed: {seen.reason}")
        self._progress()
        if self._here[Outcome.PROCESSED] + self._here[Outcome.FAILED] >= _FEWEST:
            self.refuse_failures(self._here)

    def _progress(self) -> None:
        failed = self._outcomes.count()[Outcome.FAILED]
        self._context.progress(len(self._outcomes.by_id), self._total, "items", failed=failed)

    def refuse_failures(self, counts: Counter[Outcome]) -> None:
        """Raise `ReprocessFailed` where the share of failed items passes the limit."""
        failed, tried = counts[Outcome.FAILED], counts[Outcome.FAILED] + counts[Outcome.PROCESSED]
        if not failed or failed <= self._params.max_error_share * tried:
            return
        seen = self._outcomes.by_id.values()
        reasons = Counter(each.reason for each in seen if each.outcome is Outcome.FAILED)
        raise ReprocessFailed(
            f"{failed} of {tried} items failed",
            why="; ".join(f"{count} times: {reason}" for reason, count in reasons.most_common(3)),
            todo="See `driver reprocess --status`, and the backend's log. The next run tries the "
            "failed items again and leaves the finished ones alone.",
        )

    # --- in a thread -----------------------------------------------------------------------------
    def _attend(self, task: _Task) -> Seen | None:
        """Return what became of an item; None: an outage came between, so it has to wait."""
        try:
            return self._settled(task) or self._asked(task)
        except BackendUnavailable as error:
            task.outages += 1
            if task.outages > _MOST_OUTAGES:
                return Seen(Outcome.FAILED, "the backend went away each time it was asked about")
            self._outage.sit_out(error)
            return None

    def _settled(self, task: _Task) -> Seen | None:
        """Return what has come of a request before; None: there was none, or nothing good."""
        if task.asked is None:
            return None
        wait_s = min(max(task.asked.until - time.time(), 0), self._longest_wait_s())
        seen = reanalysis.settle(
            self._backend,
            self._storage,
            task.row["id"],
            task.asked.before,
            wait_s,
            pause=self._outage.pause,
        )
        task.asked = None
        return None if seen is None or seen.outcome is Outcome.FAILED else seen

    def _longest_wait_s(self) -> float:
        """Return how far ahead the end of a wait can lie, unless the clock was changed."""
        return max(self._params.timeout_s, self._params.bulk_timeout_s)

    def _asked(self, task: _Task) -> Seen | None:
        """Ask for an item's analysis, once more where the model has not answered."""
        for _ in range(_TRIES):
            seen = reanalysis.reprocess(
                self._backend,
                self._storage,
                task.row,
                self._params.timeout_s,
                reviewed=self._params.reviewed,
                intend=partial(self._intend, task),
                pause=self._outage.pause,
            )
            task.asked = None
            if not seen.unanswered:
                return seen
            if self._outage.sit_out_engine() and task.outages < _MOST_OUTAGES:
                task.outages += 1
                return None
        return seen

    def _intend(self, task: _Task, before: Row | None) -> None:
        task.asked = Asked(before, time.time() + self._params.timeout_s)
        self._outcomes.intend({task.row["id"]: before}, self._params.timeout_s)
