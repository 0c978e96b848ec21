"""What an item of the backend holds: a text, the model's last analysis, the answer that counts.

Pure: an item is the JSON object that `driver/adapters/backend.py` reads. Where the fields of an
answer stand in it, the task says (tasks/storage.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from contracts.errors import SettingsInvalid
from tasks import Storage, Task


@dataclass(frozen=True)
class AnswerStorage(Storage):
    """Where a backend keeps a task's answers, with what that says of the task's fields."""

    beside: tuple[str, ...] = ()
    """The fields that have no column of their own: they stand in `analysis`."""


def storage_of(task: Task) -> AnswerStorage:
    """Return where the backend keeps the task's answers; raises `SettingsInvalid` if nowhere.

    Where all fields have columns, those are what has to be answered, unless the task says less.
    """
    if task.storage is None:
        raise SettingsInvalid(
            f"the task {task.name} does not say where a backend keeps its answers",
            why=f"tasks/{task.name}/__init__.py gives it no `storage`",
            todo="Give it one (docs/how-to/own-task.md), or leave the backend out: name your files "
            "in snapshot.items, and set snapshot.source=files, reprocess.enabled=false and "
            "verify.items=0.",
        )
    beside = task.storage.analysed(task.output.model_fields)
    answered = task.storage.answered or (() if beside else tuple(task.storage.columns))
    return AnswerStorage(**{**vars(task.storage), "answered": answered}, beside=beside)


def has_text(item: dict[str, Any], task: Task) -> bool:
    """Return whether there is anything in the item to analyse."""
    return any(str(item.get(name) or "").strip() for name in task.text_fields)


def stored_answer(item: dict[str, Any], fields: Iterable[str], storage: Storage) -> dict[str, Any]:
    """Return the answer that an item holds, for as many of `fields` as it has.

    What people edit stands in the item itself and counts, empty or not; the rest stands in the
    analysis that the model gave. Nothing is made up for a missing field.
    """
    analysis = analysis_of(item, storage)
    answer: dict[str, Any] = {}
    for name in fields:
        places = (item, analysis) if name in storage.edited else (analysis, item)
        for place in places:
            if name in place:
                answer[name] = place[name]
                break
    return with_nulls(answer, storage)


def with_nulls(answer: dict[str, Any], storage: Storage) -> dict[str, Any]:
    """Return an answer with null where the backend keeps a word of its own for it."""
    words = {name: column.null for name, column in storage.columns.items() if column.null}
    return {name: None if words.get(name) == value else value for name, value in answer.items()}


def textless(answer: dict[str, Any], storage: Storage) -> bool:
    """Return whether an answer says by its other fields that it has no texts."""
    said = storage.textless
    return bool(said) and all(n in answer and answer[n] == value for n, value in said.items())


def unread(answer: dict[str, Any], storage: Storage) -> bool:
    """Return whether an answer has the text that stands for one that could not be read."""
    return storage.fallback is not None and storage.fallback in answer.values()


def reviewed_answer(
    item: dict[str, Any], fields: Iterable[str], storage: Storage
) -> dict[str, Any]:
    """Return the answer that a person has reviewed: the stored one, without what is left over.

    Where a new answer has no texts, the backend leaves those of an earlier one standing. They are
    none of the review where everything else says that there are none. A field that says otherwise
    is somebody's word, and is not explained away.
    """
    answer = stored_answer(item, fields, storage)
    # The text of a failed analysis is kept: that one has said nothing of its own.
    if textless(answer, storage) and not unread(answer, storage):
        answer |= {name: None for name in storage.left_over if name in answer}
    return answer


def in_columns(item: dict[str, Any], storage: Storage) -> dict[str, Any]:
    """Return the fields of an item's answer that have a column, None for one it has not."""
    return {name: item.get(name) for name in storage.columns}


def analysed(item: dict[str, Any], storage: Storage) -> dict[str, Any]:
    """Return what a new analysis changes of an item, in its own form: what reads an item reads
    this too."""
    value: dict[str, Any] = analysis_of(item, storage)
    for key in reversed(storage.analysis):
        value = {key: value}
    return {**in_columns(item, storage), **value}


def analysis_of(item: dict[str, Any], storage: Storage) -> dict[str, Any]:
    """Return the item's last analysis by the model; empty where there is none."""
    found: Any = item
    for key in storage.analysis:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def with_analysis(item: dict[str, Any], analysis: dict[str, Any], storage: Storage) -> Any:
    """Return what the column of the analysis holds with this one; an empty one is taken out."""
    column, *keys = storage.analysis
    return _put(item.get(column), keys, analysis)


def _put(value: Any, keys: list[str], analysis: dict[str, Any]) -> dict[str, Any]:
    if not keys:
        return analysis
    given = value if isinstance(value, dict) else {}
    inner = _put(given.get(keys[0]), keys[1:], analysis)
    return {n: v for n, v in given.items() if n != keys[0]} | ({keys[0]: inner} if inner else {})
