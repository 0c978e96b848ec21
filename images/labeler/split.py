"""Divide the labelled items into train, validation and test, with no text on two sides.

Near-duplicates are one group, and a group has one side. What was tested once is tested in every
later run (contracts/test_set.py): a group that holds such an item goes to test, and whatever else
is in it, old training rows included, is left out. A reprint of a tested item that is gone takes
its place. So scores of different runs stay comparable, and no model is asked what it learned.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from contracts import files, test_set
from contracts.entrypoint import StageContext
from contracts.errors import ItemsInvalid, LabelsMissing
from contracts.params import SplitMetrics, SplitParams
from contracts.stages import (
    ITEMS,
    LABELS,
    LEAKAGE_REPORT,
    TEST_SPLIT,
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
)
from contracts.test_set import TestSet
from images.labeler.assignment import LEAST_FOR_ALL, SIDES, Unit, assign
from images.labeler.groups import Groups, near_duplicates
from images.labeler.leakage import pairs_across
from images.labeler.placed import Labelled, Placed
from images.labeler.rows import read_items, read_labels
from images.labeler.shingles import ShingleSets, words_digest
from images.labeler.split_report import report
from images.labeler.standing import with_standings
from tasks import load_task
from tasks.definition import Task

_log = logging.getLogger(__name__)
_SPLITS = {"train": TRAIN_SPLIT, "validation": VALIDATION_SPLIT, "test": TEST_SPLIT}


def work(context: StageContext[SplitParams]) -> SplitMetrics:
    """Write train.jsonl, validation.jsonl, test.jsonl and the leakage report.

    The test set is frozen last, when everything that depends on it is there; a run that is killed
    in between divides the same way when it is repeated.
    """
    task, params = load_task(context.job.task), context.params
    rows = _labelled(context, task)
    context.progress(0, len(rows), "items")
    path = test_set.path_of(context.root, task.name, params.test_set)
    before = TestSet.read(path) if params.test_set else TestSet()
    rows = with_standings(rows, before, params.near_duplicate)
    sets = ShingleSets(row.text for row in rows)
    groups, written = _placed(rows, sets, before, task, params)
    _require_all(groups, before, params)
    for side, artifact in _SPLITS.items():
        files.write_jsonl(context.output(artifact), _rows_of(groups, side, task))
    found = report(groups, written, before, task, params)
    files.write_json(context.output(LEAKAGE_REPORT), found)
    if found["test_set"]["warning"]:
        _log.warning(found["test_set"]["warning"])
    if params.test_set:
        _after(before, groups, rows, sets).write(path)
    context.progress(len(rows), len(rows), "items")
    return SplitMetrics(
        **{side: found["rows"][side] for side in SIDES},
        duplicates=found["left_out"],
        frozen=found["test_set"]["kept"],
        test_set_digest=test_set.digest_of(context.root, task.name, params.test_set),
    )


def _labelled(context: StageContext[SplitParams], task: Task) -> list[Labelled]:
    """Join items and labels by id, in the items' order."""
    items = read_items(context.input(ITEMS), task)
    path = context.input(LABELS)
    labels = read_labels(path, task, items)
    origins = {str(row["id"]): str(row.get("origin", "")) for row in files.read_jsonl(path)}
    return [
        Labelled(
            item=item,
            output=labels[key],
            origin=origins[key],
            text=(text := task.text_of(item)),
            words=words_digest(text),
            time=task.time_of(item),
            draw=hashlib.sha256(f"{context.params.seed}:{key}".encode()).hexdigest(),
        )
        for key, item in items.items()
        if key in labels
    ]


# --- which row goes where ------------------------------------------------------------------------
def _placed(
    rows: Sequence[Labelled],
    sets: ShingleSets,
    before: TestSet,
    task: Task,
    params: SplitParams,
) -> tuple[list[Placed], ShingleSets]:
    """Return the groups with their sides, in the order of their draws, and the kept rows' shingles.

    MinHash may miss a pair in a million. What the exact search then finds on two sides is made one
    group, and all is assigned anew, until nothing is found.
    """
    found = near_duplicates(sets, params.near_duplicate)
    numbers = {row.item.id: number for number, row in enumerate(rows)}
    while True:
        groups = _assigned(_grouped(rows, sets, found, before, params), task, params)
        kept = [(group.side, row) for group in groups for row in group.kept]
        written = ShingleSets(row.text for _, row in kept)
        missed = pairs_across(written, [side for side, _ in kept], params.near_duplicate)
        if not len(missed):
            return groups, written
        number = np.array([numbers[row.item.id] for _, row in kept])
        left, right = number[missed.left], number[missed.right]
        if (found.number[left] == found.number[right]).any():
            raise ItemsInvalid(
                "near-duplicates of one group are on two sides of the split",
                why=", ".join(rows[i].item.id for i in (left[0], right[0])),
                todo="This is a defect of the split stage; please report it with these items.",
            )
        found.join(left, right)


def _grouped(
    rows: Sequence[Labelled],
    sets: ShingleSets,
    found: Groups,
    before: TestSet,
    params: SplitParams,
) -> Iterator[Placed]:
    """Yield the groups, not assigned yet: of each the rows that are kept, and the others.

    A reviewed label is kept before a teacher's, with a split by time the oldest row before others;
    but frozen rows, one of each text, before any.
    """
    for members in found.members():
        if params.by == "time":
            members.sort(key=lambda i: (rows[i].time is None, rows[i].time))
        members.sort(key=lambda i: rows[i].origin != "reviewed")
        frozen = _frozen(members, rows, before)
        trainable = [i for i in members if rows[i].trainable]
        kept = frozen or trainable[:1]
        yield Placed(
            kept=[rows[i] for i in kept],
            left_out=[rows[i] for i in members if i not in kept],
            frozen=bool(frozen),
            distinct=[rows[i] for i in _distinct(trainable, sets)],
        )


def _frozen(members: Sequence[int], rows: Sequence[Labelled], before: TestSet) -> list[int]:
    """Return the members that are tested: of a text that several have, one.

    It is one whose id was tested, so that a repeated run, which knows more ids, keeps the same.
    Where none was tested, the first reprint is, if nothing of the group was trained on.
    """
    kinds = {i: rows[i].standing.kind for i in members}
    tested = [i for i in members if kinds[i] == "tested"]
    if not tested and {"seen", "barred"}.isdisjoint(kinds.values()):
        return [i for i in members if kinds[i] == "reprint"][:1]
    tested.sort(key=lambda i: rows[i].item.id not in before.tested)
    chosen: dict[str, int] = {}
    for i in tested:
        chosen.setdefault(rows[i].words, i)
    return [i for i in members if i in chosen.values()]


def _distinct(members: Sequence[int], sets: ShingleSets) -> Iterator[int]:
    """Yield one member for each set of shingles."""
    met = set()
    for i in members:
        words = sets.packed(i) if len(members) > 1 else b""
        if words not in met:
            met.add(words)
            yield i


def _assigned(groups: Iterator[Placed], task: Task, params: SplitParams) -> list[Placed]:
    every = sorted(groups, key=lambda group: group.draw)
    placed = [group for group in every if group.kept]
    units = [
        Unit(
            facets=group.facets(task),
            draw=group.draw,
            frozen=group.frozen,
            seen=any(row.standing.kind in {"seen", "barred"} for row in group.members),
            time=group.time,
        )
        for group in placed
    ]
    for group, side in zip(placed, assign(units, params), strict=True):
        group.side = side
        if side == "train" and params.train_on == "all":
            group.keep_distinct()
    return every


def _require_all(groups: Sequence[Placed], before: TestSet, params: SplitParams) -> None:
    groups = [group for group in groups if group.kept]
    empty = [side for side in SIDES if all(group.side != side for group in groups)]
    if not empty:
        return
    why = f"a class is split from {LEAST_FOR_ALL} items on, and none has that many"
    if params.by == "time":
        dated = sum(group.time is not None for group in groups)
        why = f"what has no date is trained on, and {dated} have one"
    if before.tested:
        why += "; what an earlier run has trained on is not tested"
    raise LabelsMissing(
        f"{len(groups)} distinct labelled items leave nothing for {' and '.join(empty)}",
        why=why,
        todo="Add items, look into quarantine.jsonl for the labels that were refused, or start "
        "another test set: split.test_set=NAME.",
    )


def _after(
    before: TestSet, groups: Sequence[Placed], rows: Sequence[Labelled], sets: ShingleSets
) -> TestSet:
    """Return the test set with this run's rows; what was left out beside a test row is neither.

    But a row left out that was seen before is so still, and its text may not be known yet.
    """
    tested = [row for group in groups if group.side == "test" for row in group.kept]
    seen = [
        row
        for group in groups
        for row in group.members
        if row.trainable and (group.side != "test" or row.item.id in before.seen)
    ]
    reprints = [row for row in tested if row.standing.kind == "reprint"]
    after = before.with_more(
        {row.item.id: row.words for row in tested},
        {row.item.id: row.words for row in seen},
        ((row.item.id, text) for row in reprints for text in row.standing.reprints),
    )
    new = {row.words: i for i, row in enumerate(rows) if row.words not in before.shingles}
    return after.with_shingles({words: sets.packed(i) for words, i in new.items()})


# --- what is written -----------------------------------------------------------------------------
def _rows_of(groups: Sequence[Placed], side: str, task: Task) -> Iterator[dict[str, Any]]:
    """Yield a split's rows. Their order is as good as random: the first are a fair sample."""
    for group in groups:
        for row in group.kept if group.side == side else ():
            yield {
                "id": row.item.id,
                "messages": task.training_messages(row.item, row.output),
                "stratum": task.stratum(row.output),
                "origin": row.origin,
                "label": json.loads(row.output.model_dump_json()),
                # The label rules judge a model's answers too, and need the article for it.
                **({"item": row.item.model_dump(mode="json")} if side == "test" else {}),
            }
