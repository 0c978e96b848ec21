"""The proof that no split knows another: an exact search, apart from how groups were found.

It sees the rows as they were written and knows neither MinHash nor groups. Pairs are found by
prefix filtering (Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", 2007): with the
shingles of every text in one order, two texts whose Jaccard index is at least t must share one
among the first |x| - ceil(t * |x|) + 1 of each. With the rarest first, those prefixes hardly ever
meet by chance, and boilerplate is at the end. No pair is missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import sparse

from images.labeler.shingles import Floats, Integers, ShingleSets

LOOKED_FROM = 0.3
"""Remaining similarity is looked for from here on; below, texts share phrases, not content."""
_MEETINGS_AT_ONCE = 10_000_000
"""Shared prefix shingles counted in one product of matrices, some 100 MB."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts on different sides (left below right), with their Jaccard indices."""

    left: Integers
    right: Integers
    similarity: Floats

    def __len__(self) -> int:
        return len(self.left)

    def closest(self) -> tuple[float, int, int] | None:
        """Return the most similar pair as (index, text, text); of equal ones the first."""
        if not len(self):
            return None
        best = int(np.lexsort((self.right, self.left, -self.similarity))[0])
        return float(self.similarity[best]), int(self.left[best]), int(self.right[best])


def pairs_across(sets: ShingleSets, sides: Sequence[str], least: float) -> Pairs:
    """Return all pairs of texts on different sides with an index of `least` (above 0) or more."""
    prefixes = _prefixes(sets, least)
    where = {side: np.flatnonzero(np.array(sides) == side) for side in sorted(set(sides))}
    found = [
        Pairs(left[over], right[over], similarity[over])
        for one, other in combinations(where.values(), 2)
        for few, many in _meetings(prefixes, *sorted((one, other), key=len))
        for left, right in [(np.minimum(few, many), np.maximum(few, many))]
        for similarity in [sets.similarities(left, right)]
        for over in [similarity >= least]
    ]
    empty = np.empty(0, np.int64)
    return Pairs(
        np.concatenate([empty, *(each.left for each in found)]),
        np.concatenate([empty, *(each.right for each in found)]),
        np.concatenate([np.empty(0), *(each.similarity for each in found)]),
    )


def remaining(sets: ShingleSets, sides: Sequence[str], threshold: float) -> dict[str, Any]:
    """Return how similar rows of different splits still are; `closest` holds positions.

    The search goes down in steps, since it is dearer the lower it looks: the first one that finds
    something has found the maximum.
    """
    lowest = min(LOOKED_FROM, threshold / 2)
    closest = None
    for least in sorted({max(lowest, threshold * 0.75), lowest}, reverse=True):
        closest = pairs_across(sets, sides, least).closest()
        if closest:
            break
    return {"looked_from": lowest, "closest": closest}


def _prefixes(sets: ShingleSets, least: float) -> Any:
    """Return the matrix of each text's rarest shingles, as many as the filter needs."""
    matrix = sets.matrix
    frequency = np.bincount(matrix.indices, minlength=matrix.shape[1])
    text = np.repeat(np.arange(len(sets)), sets.sizes)
    order = np.lexsort((matrix.indices, frequency[matrix.indices], text))
    rank = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], sets.sizes)
    # The subtraction guards against a product that floating point puts just above a whole.
    length = sets.sizes - np.ceil(least * sets.sizes - 1e-9).astype(np.int64) + 1
    # A shingle of one text only can meet nothing.
    kept = (rank < length[text]) & (frequency[matrix.indices[order]] > 1)
    columns = matrix.indices[order][kept]
    ones = np.ones(len(columns), np.int32)
    return sparse.csr_array((ones, (text[kept], columns)), shape=matrix.shape)


def _meetings(prefixes: Any, few: Integers, many: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Yield the pairs of a text of `few` and one of `many` whose prefixes share a shingle."""
    one, other = prefixes[few], prefixes[many]
    frequency = np.bincount(other.indices, minlength=other.shape[1])
    met = np.concatenate([[0], np.cumsum(frequency[one.indices])])[one.indptr]
    turned = other.T.tocsr()
    at = 0
    while at < len(few):
        to = max(at + 1, int(np.searchsorted(met, met[at] + _MEETINGS_AT_ONCE, "right")) - 1)
        shared = (one[at:to] @ turned).tocoo()
        yield few[at + shared.row], many[shared.col]
        at = to
