"""Which rows are worth a look: some of each class, and some whose answers broke a rule."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from contracts import files, stages
from contracts.errors import InputMissing
from tasks.definition import Item, Task

if TYPE_CHECKING:
    from driver.session import Session

_DOUBTFUL = 4
"""One row in this many is one whose answers broke a rule, as far as there are such."""


@dataclass(frozen=True)
class Chosen:
    """A row to look at."""

    item: Item
    stratum: str
    """"" where its label is not one of today's definition."""
    why: str
    """Why it was chosen."""


def choose(session: Session, count: int) -> list[Chosen]:
    """Return the rows to look at: the same ones for the same labels.

    One in four is one whose answers broke a rule, those in quarantine first; the others are taken
    from each class of labels in turn. Within each by a hash of the text, so no order of the file
    plays a part.
    """
    items = _items(session)
    if not items:
        raise InputMissing(
            "there are no items to look at",
            why="no snapshot of this workspace is there",
            todo="`python -m driver stage snapshot` takes one.",
        )
    digest = session.task.item_digest
    order = sorted({digest(item): item for item in items.values()}.items())
    strata, doubtful = _labels(session, items)
    doubted = [
        Chosen(item, strata.get(item.id, ""), doubtful[item.id])
        for _, item in sorted(order, key=lambda pair: doubtful.get(pair[1].id, "~"))
        if item.id in doubtful
    ][: -(-count // _DOUBTFUL)]
    taken = {each.item.id for each in doubted}
    queues: dict[str, deque[Chosen]] = defaultdict(deque)
    for _, item in order:
        if item.id not in taken:
            stratum = strata.get(item.id, "")
            queues[stratum].append(Chosen(item, stratum, stratum or "no label yet"))
    turns = zip_longest(*(queues[name] for name in sorted(queues)))
    rest = [each for turn in turns for each in turn if each is not None]
    return [*doubted, *rest][:count]


def _items(session: Session) -> dict[str, Item]:
    last = session.store.latest(stages.SNAPSHOT.name)
    if last is None:
        return {}
    path = session.workspace / last[1].outputs[stages.ITEMS.name].path
    found = map(session.task.item.model_validate, files.read_jsonl(path))
    control = session.task.chat.control_tokens
    shown = session.task.user_message
    return {item.id: item for item in found if not any(each in shown(item) for each in control)}


def _labels(session: Session, items: Mapping[str, Item]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the class of each label of the last labelling, and why a row is doubtful, by id."""
    last = session.store.latest(stages.LABEL.name)
    if last is None:
        return {}, {}
    at = {name: session.workspace / each.path for name, each in last[1].outputs.items()}
    strata = {}
    for row in files.read_jsonl(at[stages.LABELS.name]):
        if str(row["id"]) in items and (found := _parsed(session.task, row["label"])) is not None:
            strata[str(row["id"])] = session.task.stratum(found)
    doubtful = {
        str(row["id"]): "in quarantine"
        for row in files.read_jsonl(at[stages.QUARANTINE.name])
        if str(row["id"]) in items
    }
    report = json.loads(at[stages.LABEL_REPORT.name].read_text(encoding="utf-8"))
    for row in report.get("look_at", ()):
        refused = [why for why in row.get("why", ()) if "refused" in why or ": " in why]
        if refused and row["id"] in items and row["id"] not in doubtful:
            doubtful[row["id"]] = refused[0]
    return strata, doubtful


def _parsed(task: Task, label: Mapping[str, Any]) -> Any:
    """Return a label of whatever definition, null in what it lacks; None if that is no answer."""
    values = {name: label.get(name) for name in task.output.model_fields}
    try:
        return task.output.model_validate(values)
    except ValueError:
        return None
