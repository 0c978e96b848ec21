"""Takes the items as they are now, so that a run works on rows that nothing changes any more."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contracts import files
from contracts.derived_labels import REVIEW, of_label
from contracts.entrypoint import StageContext
from contracts.errors import ItemsInvalid, SettingsInvalid, without_userinfo
from contracts.label_cache import CACHE_FILE, LabelCache
from contracts.label_definition import LabelDefinition
from contracts.params import (
    SnapshotMetrics,
    SnapshotParams,
)
from contracts.stages import (
    ITEMS,
    REVIEWED,
)
from driver.adapters.backend import Backend
from driver.adapters.items import (
    analysis_of,
    has_text,
    reviewed_answer,
    storage_of,
    stored_answer,
    unread,
)
from driver.host_stages.telling import say
from tasks import InvalidAnswer, Storage, Task, load_task

Row = dict[str, Any]

_ALIASES = ("source_name",)
"""Other names that fields of an item may have."""


@dataclass(frozen=True)
class _Snapshot:
    """The canonical rows of both artifacts, in the order of the source."""

    items: list[Row]
    reviewed: list[Row]

    @property
    def unusable(self) -> int:
        """How many of the reviews are no whole valid label."""
        return sum("unusable" in row for row in self.reviewed)


def work(context: StageContext[SnapshotParams], backend_url: str = "") -> SnapshotMetrics:
    """Write items.jsonl and reviewed.jsonl.

    An item holds the task's input fields only, a reviewed row `id` and `label`; and `unusable`, the
    reason, where the backend's review is no whole valid label, or a file's was one before the task
    was edited: the label stage completes those that lack added fields alone, and asks nobody about
    the others. Raises `ItemsInvalid` for the first row that cannot be used, naming file and line,
    and `BackendUnavailable` where the backend does not give all its items.
    """
    task = load_task(context.job.task)
    snapshot = _take(context.params, task, Path.cwd(), context.root, backend_url)
    items = files.write_jsonl(context.output(ITEMS), snapshot.items)
    reviewed = files.write_jsonl(context.output(REVIEWED), snapshot.reviewed)
    context.progress(items, items, "items")
    unusable = snapshot.unusable
    return SnapshotMetrics(items=items, reviewed=reviewed - unusable, unusable_reviews=unusable)


def check(
    params: SnapshotParams, task_name: str, workspace: Path, backend_url: str = ""
) -> SnapshotMetrics:
    """Raise the first error that `work` would raise; writes nothing."""
    snapshot = _take(params, load_task(task_name), Path.cwd(), workspace, backend_url)
    reviewed, unusable = len(snapshot.reviewed), snapshot.unusable
    return SnapshotMetrics(
        items=len(snapshot.items), reviewed=reviewed - unusable, unusable_reviews=unusable
    )


def source_digest(params: SnapshotParams, task_name: str, cwd: Path, backend_url: str = "") -> str:
    """Return a digest of what the source holds now.

    Of files it covers the contents, not the names. Of the backend it covers what a snapshot
    keeps, so that a new analysis of an item is no change; a review of one is.
    """
    parts: dict[str, Any] = {
        "reviewed": [files.digest_path(path) for path in _matched(params.reviewed, cwd)]
    }
    if params.source == "files":
        parts["items"] = [files.digest_path(path) for path in _matched(params.items, cwd)]
    else:
        task = load_task(task_name)
        storage = storage_of(task)
        parts["items"] = [_kept(item, task, storage) for item in _backend(backend_url).items()]
    return files.digest_text(files.canonical_json(parts))


def _take(
    params: SnapshotParams, task: Task, cwd: Path, workspace: Path, backend_url: str
) -> _Snapshot:
    earlier = _earlier(workspace, task)
    if params.source == "backend":
        taken = _take_backend(task, _backend(backend_url), earlier)
    else:
        taken = _Snapshot(list(_items(task, _matched(params.items, cwd))), [])
    if not taken.items:
        raise ItemsInvalid(
            "there are no items",
            why=f"source {params.source}, items {list(params.items)}",
            todo="Set snapshot.items to JSONL files, or snapshot.source=backend.",
        )
    known = {row["id"] for row in taken.items}
    from_files = list(_reviewed(task, _matched(params.reviewed, cwd), known, earlier))
    # A file is named on purpose, so it wins over what stands in the backend.
    labels = {row["id"]: row for row in [*taken.reviewed, *from_files]}
    return _Snapshot(taken.items, list(labels.values()))


# --- from files ----------------------------------------------------------------------------------
def _matched(patterns: Sequence[str], cwd: Path) -> list[Path]:
    """Return the files that the patterns match, each once however it is named, sorted."""
    found: set[Path] = set()
    for pattern in patterns:
        # pathlib's glob refuses absolute patterns.
        matches = glob.glob(pattern, root_dir=cwd, recursive=True)  # noqa: PTH207
        paths = [cwd / match for match in matches if (cwd / match).is_file()]
        if not paths:
            raise ItemsInvalid(
                f"no file matches {pattern}",
                why=f"looked in {cwd}",
                todo="Correct the path or glob in snapshot.items or snapshot.reviewed.",
            )
        found.update(path.resolve() for path in paths)
    return sorted(found)


def _rows(paths: Iterable[Path]) -> Iterator[tuple[str, Row]]:
    """Yield each row with the place where it stands."""
    for path in paths:
        yield from files.read_placed_jsonl(path)


def _items(task: Task, paths: Iterable[Path]) -> Iterator[Row]:
    places: dict[str, str] = {}
    for place, row in _rows(paths):
        item = _item(task, row, place)
        _refuse_second(item["id"], place, places)
        yield item


def _item(task: Task, row: Row, place: str) -> Row:
    try:
        return task.item.model_validate(row).model_dump(mode="json")
    except ValidationError as error:
        raise ItemsInvalid(
            f"{place} is no item of the task {task.name}", why=_reasons(error)
        ) from error


def _earlier(workspace: Path, task: Task) -> list[LabelDefinition]:
    """Return the definitions of the task that this workspace has labelled under."""
    if not (workspace / CACHE_FILE).is_file():
        return []
    with LabelCache(workspace / CACHE_FILE) as cache:
        return cache.noted_definitions(task.name)


def _reviewed(
    task: Task, paths: Iterable[Path], known: set[str], earlier: Sequence[LabelDefinition]
) -> Iterator[Row]:
    now, places = LabelDefinition.of(task), dict[str, str]()
    for place, row in _rows(paths):
        row_id, label = row.get("id"), row.get("label")
        # The id is a number where a row was exported from the backend, as it is in its items.
        row_id = str(row_id) if isinstance(row_id, int) else row_id
        if not isinstance(row_id, str) or not isinstance(label, dict):
            raise ItemsInvalid(f'{place} is not {{"id": …, "label": {{…}}}}')
        if row_id not in known:
            raise ItemsInvalid(
                f"{place} labels the unknown item {row_id}", why="no item has this id"
            )
        _refuse_second(row_id, place, places)
        try:
            yield {"id": row_id, "label": _label(task, label)}
        except InvalidAnswer as error:
            if of_label(label, now, earlier, REVIEW) is None:
                raise ItemsInvalid(
                    f"{place} is no label of the task {task.name}", why=str(error)
                ) from error
            yield {"id": row_id, "label": label, "unusable": str(error)}


def _label(task: Task, label: Row) -> Row:
    """Return the label as the task writes it; raises `InvalidAnswer`."""
    return task.parse(json.dumps(label)).model_dump(mode="json")


def _refuse_second(row_id: str, place: str, places: dict[str, str]) -> None:
    if row_id in places:
        raise ItemsInvalid(
            f"{place} has the id {row_id} a second time", why=f"it stands in {places[row_id]}"
        )
    places[row_id] = place


def _reasons(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc']) or 'row'}: {each['msg']}"
        for each in error.errors(include_url=False, include_input=False)
    )


# --- from the backend ----------------------------------------------------------------------------
def _backend(url: str) -> Backend:
    if not url:
        raise SettingsInvalid(
            "snapshot.source=backend needs the backend's URL", todo="Set backend.url."
        )
    return Backend(url)


def _kept(item: Row, task: Task, storage: Storage) -> Row:
    """Return what of an item can change a snapshot: the article, and a review's label."""
    reviewed = item.get("is_manually_reviewed") is True
    label = stored_answer(item, storage.edited, storage) if reviewed else {}
    kept = {name: item.get(name) for name in (*task.item.model_fields, *_ALIASES)}
    analysis = analysis_of(item, storage) if reviewed else {}
    return {**kept, "label": label, "analysis": analysis}


def _take_backend(task: Task, backend: Backend, earlier: Sequence[LabelDefinition]) -> _Snapshot:
    listed = backend.items()
    usable = [item for item in listed if has_text(item, task)]
    if len(usable) < len(listed):
        say(f"{len(listed) - len(usable)} items without a text left out")
    shown = without_userinfo(backend.url)
    items = [_item(task, item, f"{shown}/api/items/{item['id']}") for item in usable]
    return _Snapshot(items, _reviewed_there(task, usable, earlier))


def _reviewed_there(task: Task, items: list[Row], earlier: Sequence[LabelDefinition]) -> list[Row]:
    """Return the labels of manually reviewed items; one that cannot be learned says why.

    A review in the backend can be partial, and stands beside an analysis that may have failed. What
    a person has looked at is still theirs to mend, never the teacher's.
    """
    reviewed = [item for item in items if item.get("is_manually_reviewed") is True]
    rows = [_review(task, item, earlier) for item in reviewed]
    lines = [f"  item {row['id']}: {row['unusable']}" for row in rows if "unusable" in row]
    if lines:
        say(
            f"{len(lines)} reviewed items are no valid label, and go to the quarantine, but for "
            "those that only lack fields which were added since:",
            *lines,
        )
    return rows


def _review(task: Task, item: Row, earlier: Sequence[LabelDefinition]) -> Row:
    storage = storage_of(task)
    answer = reviewed_answer(item, task.output.model_fields, storage)
    unasked = _unasked(item, answer, analysis_of(item, storage), earlier)
    answer = {name: value for name, value in answer.items() if name not in unasked}
    row = {"id": str(item["id"]), "label": answer}
    if unread(answer, storage):
        return {**row, "unusable": "it holds the text of a failed analysis"}
    try:
        return {**row, "label": _label(task, answer)}
    except InvalidAnswer as error:
        return {**row, "unusable": str(error)}


def _unasked(
    item: Row, answer: Row, analysis: Row, earlier: Sequence[LabelDefinition]
) -> frozenset[str]:
    """Return the fields that were added since a review: the definition it may have been made under
    has all others, and a migration has left their columns NULL.

    Where the item's analysis has the field, it was asked for, and NULL is an answer.
    """
    empty = {n for n in answer if n not in analysis and n in item and item[n] is None}
    added = [
        answer.keys() - each.fields.keys() for each in earlier if each.fields.keys() < answer.keys()
    ]
    return frozenset(max((each for each in added if each <= empty), key=len, default=()))
