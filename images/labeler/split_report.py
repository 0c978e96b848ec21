"""What the split did, and the proof that no side knows another: leakage_report.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from contracts.params import SplitParams
from contracts.test_set import TestSet
from images.labeler.assignment import SIDES
from images.labeler.leakage import pairs_across, remaining
from images.labeler.minhash import bands_for
from images.labeler.placed import Labelled, Placed
from images.labeler.shingles import ShingleSets, shingles
from tasks.definition import Task


def report(
    groups: Sequence[Placed],
    written: ShingleSets,
    before: TestSet,
    task: Task,
    params: SplitParams,
) -> dict[str, Any]:
    """Return the report; `written` holds the shingles of all kept rows, in the groups' order."""
    kept = [(group.side, row) for group in groups for row in group.kept]
    sides = [side for side, _ in kept]
    bands = bands_for(params.near_duplicate)
    return {
        "near_duplicate": params.near_duplicate,
        "by": params.by,
        "rows": {side: sides.count(side) for side in SIDES},
        "strata": _counted(kept, lambda row: [task.stratum(row.output)]),
        "facets": _counted(kept, lambda row: sorted(task.facets(row.output))),
        "times": _times(kept),
        "test_set": _test_set(groups, before, params),
        "left_out": sum(len(group.left_out) for group in groups),
        "groups": list(_explained(groups, task)),
        "candidates": {
            "bands": bands.count,
            "rows": bands.rows,
            "missed_at_threshold": bands.missed(params.near_duplicate),
        },
        "pairs_across_splits": len(pairs_across(written, sides, params.near_duplicate)),
        **_closest(kept, written, params.near_duplicate),
    }


def _counted(kept: Sequence[tuple[str, Labelled]], names: Any) -> dict[str, dict[str, int]]:
    """Return for each split how many rows have each name."""
    counts: dict[str, Counter[str]] = {side: Counter() for side in SIDES}
    for side, row in kept:
        counts[side].update(names(row))
    return {side: dict(sorted(found.items())) for side, found in counts.items()}


def _times(kept: Sequence[tuple[str, Labelled]]) -> dict[str, dict[str, Any]]:
    """Return for each split the oldest and the newest date, and how many rows have none."""
    found: dict[str, dict[str, Any]] = {}
    for side in SIDES:
        times = [row.time for at, row in kept if at == side]
        dated = sorted(time for time in times if time)
        found[side] = {
            "from": dated[0].isoformat() if dated else None,
            "to": dated[-1].isoformat() if dated else None,
            "undated": len(times) - len(dated),
        }
    return found


def _test_set(groups: Sequence[Placed], before: TestSet, params: SplitParams) -> dict[str, Any]:
    """Say what became of the frozen test set.

    An id that was given up for another one of the same text counts once, as the other.
    """
    tested = [row for group in groups if group.side == "test" for row in group.kept]
    ids, texts = {row.item.id for row in tested}, {row.words for row in tested}
    kinds = [row.standing.kind for row in tested]
    kept, reprints = len(kinds) - kinds.count(""), kinds.count("reprint")
    texts |= {text for row in tested for text in row.standing.reprints}
    left_out = [(group, row) for group in groups for row in group.left_out]
    barred = [row for group, row in left_out if not group.frozen and not row.trainable]
    beside = [row for group, row in left_out if group.frozen] + barred
    known = {text for key, text in before.tested_texts if key in ids}
    given_up = {key for key, text in before.tested_texts if text in known} - ids
    frozen = before.tested - given_up
    gone = frozen - ids
    renamed = {key for key, text in before.tested_texts if key in gone and text in texts}
    return {
        "name": params.test_set,
        "frozen": len(frozen),
        "kept": kept,
        "under_other_ids": len(renamed),
        "gone": len(gone - renamed),
        "reprints": reprints,
        "barred": len(barred),
        "added": len(tested) - kept,
        "taken_out_of_training": sum(
            before.knows(row.item.id, row.words) == "seen" for row in beside
        ),
        "warning": _ids_warning(len(gone), len(frozen), len(renamed)),
    }


def _ids_warning(gone: int, frozen: int, renamed: int) -> str:
    """Return what to look at where most of the test set is gone by id, else ""."""
    if 2 * gone <= frozen:
        return ""
    return (
        f"{gone} of {frozen} frozen test items are not there under their ids, {renamed} of them "
        f"were found by their text. Did ids change, with another source or a new import? Scores "
        f"compare with those of earlier runs by the rows found only."
    )


def _closest(
    kept: Sequence[tuple[str, Labelled]], written: ShingleSets, threshold: float
) -> dict[str, Any]:
    found = remaining(written, [side for side, _ in kept], threshold)
    closest = found["closest"]
    return {
        "similarity_looked_from": found["looked_from"],
        "max_similarity_across_splits": round(closest[0], 4) if closest else None,
        "most_similar": [
            {"id": kept[i][1].item.id, "split": kept[i][0]} for i in (closest or ())[1:]
        ],
    }


def _explained(groups: Sequence[Placed], task: Task) -> Iterator[dict[str, Any]]:
    """Yield each group of duplicates: what was kept, what was left out, and whether labels fit."""
    for group in groups:
        if group.left_out or len(group.kept) > 1:
            yield {
                "split": group.side if group.kept else "none",
                "kept": [_described(row, task) for row in group.kept],
                "left_out": [
                    {**_described(row, task), "why": _why(row, group)} for row in group.left_out
                ],
            }


def _described(row: Labelled, task: Task) -> dict[str, str]:
    return {"id": row.item.id, "origin": row.origin, "stratum": task.stratum(row.output)}


def _why(row: Labelled, group: Placed) -> str:
    if not group.frozen and not row.trainable:
        return "a reprint of a tested item that is gone, and of one that was trained on"
    own = shingles(row.text)
    similar = []
    for other in group.kept:
        theirs = shingles(other.text)
        similar.append((len(own & theirs) / max(1, len(own | theirs)), other.item.id))
    best, name = max(similar)
    if best == 1:
        return f"the same words as {name}"
    return f"similarity {best:.2f} to {name}, directly or through another"
