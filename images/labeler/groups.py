"""Groups of near-duplicates: texts that are connected by pairs of at least the threshold.

Similarity is not transitive, so a group may hold two that are not similar themselves; they still
belong to one side, since the text between them is similar to both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from scipy import sparse

from images.labeler.minhash import bands_for, buckets
from images.labeler.shingles import Integers, ShingleSets

_PAIRS_AT_ONCE = 1_000_000


class Groups:
    """Which texts are connected; `number[text]` is the number of its group."""

    def __init__(self, size: int) -> None:
        self.number: Integers = np.arange(size)

    def join(self, left: Integers, right: Integers) -> None:
        """Connect the groups of left[k] and right[k]."""
        if not len(left):
            return
        size = len(self.number)
        ends = (self.number[left], self.number[right])
        edges = sparse.coo_array((np.ones(len(left), np.int8), ends), shape=(size, size))
        _, joined = sparse.csgraph.connected_components(edges, directed=False)
        self.number = joined[self.number].astype(np.int64)

    def members(self) -> list[list[int]]:
        """Return the texts of each group, ascending; the groups by their first text."""
        order = np.argsort(self.number, kind="stable")
        cuts = np.flatnonzero(np.diff(self.number[order])) + 1
        return sorted(part.tolist() for part in np.split(order, cuts) if len(part))


def near_duplicates(sets: ShingleSets, threshold: float) -> Groups:
    """Return the groups; two texts of a Jaccard index of the threshold or more are in one.

    Candidates come from MinHash bands, which leave out at most `minhash.MISSED` of the pairs at the
    threshold; each is verified exactly, so that none is joined by chance. Empty texts are alone.
    """
    groups = Groups(len(sets))
    for met in buckets(sets, bands_for(threshold)):
        # Most buckets hold texts that are all similar: once each is joined with the first, hardly
        # a pair is left, where all pairs would be the square.
        for pairs in (_with_first(met), _others(met, groups)):
            for left, right in _distinct(pairs, groups):
                similar = sets.similarities(left, right) >= threshold
                groups.join(left[similar], right[similar])
    return groups


def _with_first(met: Iterable[Integers]) -> Iterator[tuple[Integers, Integers]]:
    for texts in met:
        yield np.full(len(texts) - 1, texts[0]), texts[1:]


def _others(met: Iterable[Integers], groups: Groups) -> Iterator[tuple[Integers, Integers]]:
    """Yield the pairs of each bucket, as the groups are when it is its turn."""
    for texts in met:
        if len(np.unique(groups.number[texts])) > 1:
            for position in range(1, len(texts) - 1):
                rest = texts[position + 1 :]
                yield np.full(len(rest), texts[position]), rest


def _distinct(
    pairs: Iterable[tuple[Integers, Integers]], groups: Groups
) -> Iterator[tuple[Integers, Integers]]:
    """Yield pairs in large lots, each pair once in a lot, without those in one group already."""
    lots: list[tuple[Integers, Integers]] = []
    waiting = 0
    size = len(groups.number)
    for left, right in pairs:
        apart = groups.number[left] != groups.number[right]
        lots.append((left[apart], right[apart]))
        waiting += int(apart.sum())
        if waiting >= _PAIRS_AT_ONCE:
            yield _once(lots, size)
            lots, waiting = [], 0
    if waiting:
        yield _once(lots, size)


def _once(lots: list[tuple[Integers, Integers]], size: int) -> tuple[Integers, Integers]:
    left, right = (np.concatenate(side) for side in zip(*lots, strict=True))
    codes = np.unique(left * size + right)
    return codes // size, codes % size
