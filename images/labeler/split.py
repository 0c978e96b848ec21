"""Divide the labelled items into train, validation and test, with no text on two sides.

An item's place is drawn from a hash of the seed and its id, not from its position: within a
stratum the rows are put in the order of their draws, the first go to test, the next to
validation, the rest to training. New items therefore push a test row at the boundary into
validation at most, practically never into training: a model is not asked tomorrow what it learned
today, and scores of different runs stay comparable. A group of duplicates draws once, the lowest
of its members' draws, so that a new copy can only move it towards test.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import ItemsInvalid, LabelsMissing
from contracts.params import (
    SplitMetrics,
    SplitParams,
)
from contracts.stages import (
    ITEMS,
    LABELS,
    LEAKAGE_REPORT,
    TEST_SPLIT,
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
)
from images.labeler.duplicates import groups, shingles, similar_pairs
from images.labeler.rows import read_items, read_labels
from tasks import load_task
from tasks.definition import Item, Task

_SPLITS = {"train": TRAIN_SPLIT, "validation": VALIDATION_SPLIT, "test": TEST_SPLIT}
_LEAST_FOR_ALL = 3
"""Rows from which a stratum is in every split."""
_LOOKED_FROM = 0.3
"""Remaining similarity is looked for from here on; below, texts share phrases, not content."""


@dataclass(frozen=True)
class Labelled:
    """An item with its label, and where it stands."""

    item: Item
    output: BaseModel
    origin: str
    shingles: frozenset[str]
    draw: str
    """Hash of seed and id in hex; the lowest are tested."""


@dataclass(frozen=True)
class Group:
    """Rows that say the same: one is kept, the others are left out."""

    kept: Labelled
    left_out: list[Labelled]
    draw: str


def work(context: StageContext[SplitParams]) -> SplitMetrics:
    """Write train.jsonl, validation.jsonl, test.jsonl and the leakage report."""
    task, params = load_task(context.job.task), context.params
    rows = _labelled(context, task)
    context.progress(0, len(rows), "items")
    distinct = _without_duplicates(rows, params.near_duplicate)
    splits = _assign(distinct, task, params)
    _require_all(splits)
    for name, artifact in _SPLITS.items():
        written = (_row(group.kept, task) for group in splits[name])
        files.write_jsonl(context.output(artifact), written)
    files.write_json(context.output(LEAKAGE_REPORT), _report(splits, task, params))
    context.progress(len(rows), len(rows), "items")
    return SplitMetrics(
        train=len(splits["train"]),
        validation=len(splits["validation"]),
        test=len(splits["test"]),
        duplicates=len(rows) - len(distinct),
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
            shingles=shingles(task.text_of(item)),
            draw=hashlib.sha256(f"{context.params.seed}:{key}".encode()).hexdigest(),
        )
        for key, item in items.items()
        if key in labels
    ]


def _without_duplicates(rows: Sequence[Labelled], near_duplicate: float) -> list[Group]:
    """Return one group for each distinct text; a reviewed label is kept before a teacher's."""
    pairs = similar_pairs([row.shingles for row in rows], near_duplicate)
    found = []
    for members in groups(len(rows), pairs):
        same = sorted((rows[i] for i in members), key=lambda row: row.origin != "reviewed")
        found.append(Group(same[0], same[1:], min(row.draw for row in same)))
    return found


def _assign(distinct: Sequence[Group], task: Task, params: SplitParams) -> dict[str, list[Group]]:
    """Return the groups of each split, in the order of their draws.

    That order is as good as random, so the first rows of a split are a fair sample of it. A
    stratum of fewer than three rows is trained on only.
    """
    strata: dict[str, list[Group]] = defaultdict(list)
    for group in distinct:
        strata[task.stratum(group.kept.output)].append(group)
    splits: dict[str, list[Group]] = {name: [] for name in _SPLITS}
    for stratum in strata.values():
        stratum.sort(key=lambda group: group.draw)
        test, validation = _sizes(len(stratum), params)
        splits["test"] += stratum[:test]
        splits["validation"] += stratum[test : test + validation]
        splits["train"] += stratum[test + validation :]
    for split in splits.values():
        split.sort(key=lambda group: group.draw)
    return splits


def _sizes(rows: int, params: SplitParams) -> tuple[int, int]:
    """Return how many rows of a stratum are tested and validated on, at least one each."""
    if rows < _LEAST_FOR_ALL:
        return 0, 0
    test = max(1, round(rows * params.test))
    validation = max(1, round(rows * params.validation))
    while test + validation >= rows:  # small strata with large shares: training needs one too
        if test >= validation:
            test -= 1
        else:
            validation -= 1
    return test, validation


def _require_all(splits: dict[str, list[Group]]) -> None:
    empty = [name for name, split in splits.items() if not split]
    if empty:
        total = sum(len(split) for split in splits.values())
        raise LabelsMissing(
            f"{total} distinct labelled items leave nothing for {' and '.join(empty)}",
            why=f"a stratum is split from {_LEAST_FOR_ALL} rows on, and none has that many",
            todo="Add items, or look into quarantine.jsonl for the labels that were refused.",
        )


def _row(row: Labelled, task: Task) -> dict[str, Any]:
    return {
        "id": row.item.id,
        "messages": task.training_messages(row.item, row.output),
        "stratum": task.stratum(row.output),
        "origin": row.origin,
        "label": json.loads(row.output.model_dump_json()),
    }


def _report(splits: dict[str, list[Group]], task: Task, params: SplitParams) -> dict[str, Any]:
    """Say what was left out, and how similar rows of different splits still are.

    Raises `ItemsInvalid` if two rows of different splits are duplicates after all: the report is
    also the check of the code above.
    """
    placed = [(name, group.kept) for name, split in splits.items() for group in split]
    looked_from = min(_LOOKED_FROM, params.near_duplicate / 2)
    pairs = similar_pairs([row.shingles for _, row in placed], looked_from)
    across = [(s, i, j) for i, j, s in pairs if placed[i][0] != placed[j][0]]
    closest = max(across, default=None)
    if closest and closest[0] >= params.near_duplicate:
        raise ItemsInvalid(f"near-duplicates on two sides of the split: {closest}")
    counts = {
        name: dict(sorted(Counter(task.stratum(g.kept.output) for g in split).items()))
        for name, split in splits.items()
    }
    return {
        "near_duplicate": params.near_duplicate,
        "strata": counts,
        "left_out": sum(len(g.left_out) for split in splits.values() for g in split),
        "groups": list(_explained(splits, task)),
        "similarity_looked_from": looked_from,
        "max_similarity_across_splits": round(closest[0], 4) if closest else None,
        "most_similar": [{"id": placed[i][1].item.id, "split": placed[i][0]} for i in closest[1:]]
        if closest
        else [],
    }


def _explained(splits: dict[str, list[Group]], task: Task) -> Iterator[dict[str, Any]]:
    """Yield each group of duplicates: what was kept, what was left out, and whether labels fit."""
    for name, split in splits.items():
        for group in split:
            if group.left_out:
                yield {
                    "split": name,
                    "kept": group.kept.item.id,
                    "origin": group.kept.origin,
                    "stratum": task.stratum(group.kept.output),
                    "left_out": [
                        {
                            "id": row.item.id,
                            "why": _why(row, group),
                            "origin": row.origin,
                            "stratum": task.stratum(row.output),
                        }
                        for row in group.left_out
                    ],
                }


def _why(row: Labelled, group: Group) -> str:
    shared = len(row.shingles & group.kept.shingles)
    similarity = shared / len(row.shingles | group.kept.shingles)
    if similarity == 1:
        return "the same words"
    return f"similarity {similarity:.2f} to {group.kept.item.id}, directly or through another"
