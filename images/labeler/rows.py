"""Items and labels as they lie in files, each row checked where it enters."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from contracts import files
from contracts.derived_labels import REVIEW, Base, of_label
from contracts.errors import ItemsInvalid
from contracts.label_definition import LabelDefinition
from tasks.definition import InvalidAnswer, Item, Task


class Unusable(NamedTuple):
    """A review that is no label of the task: what it holds, as JSON, and why it is none."""

    text: str
    why: str


def read_items(path: Path, task: Task) -> dict[str, Item]:
    """Return the items of a file by id, in the file's order.

    Raises `ItemsInvalid` naming file, line and id for a row that is no item of the task, and for
    an id that comes twice: answers are bound to items by it.
    """
    items: dict[str, Item] = {}
    for number, row in enumerate(files.read_jsonl(path), 1):
        where = f"{path.name}, line {number} (id {row.get('id')!r})"
        try:
            item = task.item.model_validate(row)
        except ValidationError as error:
            raise ItemsInvalid(f"{where} is no item of {task.name}", why=_why(error)) from error
        if item.id in items:
            raise ItemsInvalid(f"{where}: the id comes twice")
        items[item.id] = item
    if not items:
        raise ItemsInvalid(f"{path.name} holds no items")
    return items


def read_labels(
    path: Path, task: Task, items: dict[str, Item], without: Collection[str] = ()
) -> dict[str, BaseModel]:
    """Return the labels of a file of `{"id": …, "label": {…}}` rows, by id.

    The ids `without` are looked at, their labels are not. Raises `ItemsInvalid` for a label that is
    not the task's output, for an id that is not among the items, and for one that comes twice.
    """
    labels: dict[str, BaseModel] = {}
    met: set[str] = set()
    for number, row in enumerate(files.read_jsonl(path), 1):
        key = str(row.get("id"))  # a backend numbers its items
        where = f"{path.name}, line {number} (id {key!r})"
        if key not in items:
            raise ItemsInvalid(f"{where} labels an item that is not there")
        if key in met:
            raise ItemsInvalid(f"{where}: the id comes twice")
        met.add(key)
        if key in without:
            continue
        try:
            labels[key] = task.parse(json.dumps(row.get("label")))
        except InvalidAnswer as error:
            raise ItemsInvalid(f"{where} is no label of {task.name}", why=str(error)) from error
    return labels


def read_reviews(
    path: Path, task: Task, items: dict[str, Item], earlier: Sequence[LabelDefinition] = ()
) -> tuple[dict[str, BaseModel], dict[str, Unusable], dict[str, Base]]:
    """Return the reviewed labels of a file by id, and apart the reviews that are none, and those
    that were whole under an `earlier` definition of the task and lack what only the teacher knows.

    The snapshot says why a review is no label. Raises as `read_labels` does.
    """
    now, unusable, incomplete = LabelDefinition.of(task), dict[str, Unusable](), dict[str, Base]()
    for row in files.read_jsonl(path):
        key, label = str(row.get("id")), row.get("label")
        base = of_label(label, now, earlier, REVIEW) if key in items else None
        if base and key not in incomplete and base.can_stand(now.fields, task.parse):
            incomplete[key] = base
        elif (why := row.get("unusable")) is not None:
            unusable[key] = Unusable(json.dumps(label, ensure_ascii=False), str(why))
    labels = read_labels(path, task, items, without=unusable.keys() | incomplete.keys())
    whole = {key: base for key, base in incomplete.items() if not base.asked}
    labels |= {key: task.parse(base.merged(now.fields, {})) for key, base in whole.items()}
    return labels, unusable, {key: base for key, base in incomplete.items() if base.asked}


def _why(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'row'}: {each['msg']}"
        for each in error.errors(include_url=False, include_input=False)
    )
