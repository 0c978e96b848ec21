"""What earlier runs know of each row: tested, trained on, or a reprint of a story that is gone.

Near-duplicates that are there together are one group (groups.py). Of a story that is gone only the
frozen test set knows; what says the same as a tested one is never trained on, and what says the
same as one that was trained on is never tested.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from contracts.test_set import TestSet
from images.labeler.leakage import pairs_across
from images.labeler.placed import Labelled, Standing
from images.labeler.shingles import ShingleSets


def with_standings(rows: Sequence[Labelled], before: TestSet, threshold: float) -> list[Labelled]:
    """Return the rows, each with what the test set knows of it.

    A text says more than an id: an id may name another item now. Texts are similar from a Jaccard
    index of the threshold on, and none that is similar is missed.
    """
    similar: dict[int, set[str]] = defaultdict(set)
    if before.shingles:
        for number, text in _similar(rows, before, threshold):
            similar[number].add(text)
    return [
        replace(row, standing=_standing(row, similar.get(number, set()), before))
        for number, row in enumerate(rows)
    ]


def _standing(row: Labelled, similar: Collection[str], before: TestSet) -> Standing:
    if row.words in before.texts_tested:
        return Standing("tested")
    tested = before.texts_tested.intersection(similar)
    seen = row.words in before.seen_texts or not before.seen_texts.isdisjoint(similar)
    if tested and seen:
        return Standing("barred", tested)
    if tested:
        return Standing("tested" if row.item.id in before.tested else "reprint", tested)
    return Standing("seen" if seen else before.knows(row.item.id, ""))


def _similar(
    rows: Sequence[Labelled], before: TestSet, threshold: float
) -> Iterator[tuple[int, str]]:
    """Yield each row with each text of earlier runs that it is similar to, where that tells more.

    A text that was trained on can only be barred, by a tested one that is gone: what is there is in
    its group. So the usual search, of what is new among what is known, is a small one.
    """
    here = {row.words for row in rows}
    tested, known = before.texts_tested, before.texts_tested | before.seen_texts
    new = [number for number, row in enumerate(rows) if row.words and row.words not in known]
    yield from _pairs(rows, new, sorted(before.shingles), before, threshold)
    seen = [number for number, row in enumerate(rows) if row.words in before.seen_texts]
    gone = sorted(text for text in before.shingles if text in tested and text not in here)
    yield from _pairs(rows, seen, gone, before, threshold)


def _pairs(
    rows: Sequence[Labelled],
    some: Sequence[int],
    texts: Sequence[str],
    before: TestSet,
    threshold: float,
) -> Iterator[tuple[int, str]]:
    if not some or not texts:
        return
    sets = ShingleSets((rows[i].text for i in some), (before.shingles[text] for text in texts))
    sides = ["now"] * len(some) + ["before"] * len(texts)
    found = pairs_across(sets, sides, threshold)
    for now, then in zip(found.left.tolist(), found.right.tolist(), strict=True):
        yield some[now], texts[then - len(some)]
