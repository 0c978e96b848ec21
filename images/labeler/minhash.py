"""Candidates for near-duplicates: MinHash signatures, and the bands of locality-sensitive hashing.

A signature holds, for each of some random permutations, the least permuted shingle of a text; two
texts agree in each place with the probability of their Jaccard index s (Broder, "On the resemblance
and containment of documents", 1997). Cut into b bands of r places, two texts meet in some band with
the probability 1 - (1 - s^r)^b (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", 3.4).

datasketch gives the permutations and the index. The signatures are computed here: it would call
Python once for each shingle. A test holds the two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasketch import LeanMinHash, MinHash, MinHashLSH

from images.labeler.shingles import Integers, ShingleSets

MISSED = 1e-6
"""Most pairs at the very threshold that may never meet, as a share; above it are far fewer."""
_MOST_PLACES = 256
_SEED = 1
"""Of the permutations. They decide how fast pairs are found, not which ones."""
_SCHEME = "affine32"
_BANDS_AT_ONCE = 5
"""Never one alone, which datasketch refuses. An index of Python dictionaries takes about 0.4 KB for
each text and band."""
_SHINGLES_AT_ONCE = 1 << 18
"""As many as stay in a processor's cache while all permutations pass over them."""

Signatures = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Bands:
    """How a signature is cut: `count` bands of `rows` places each."""

    count: int
    rows: int

    @property
    def places(self) -> int:
        """The length of a signature."""
        return self.count * self.rows

    def missed(self, similarity: float) -> float:
        """Return the probability that two texts of this Jaccard index meet in no band."""
        return float((1 - similarity**self.rows) ** self.count)


def bands_for(threshold: float) -> Bands:
    """Return the bands in which pairs at the threshold meet but for `MISSED` of them.

    datasketch's own choice weighs misses against needless candidates; with 128 places (14 bands of
    9) it would miss more than half of the pairs at 0.7. Here misses are bounded first; then the
    bands are as long as that allows, since a longer band holds fewer needless candidates.
    """
    for rows in range(_MOST_PLACES, 0, -1):
        met = threshold**rows
        if met * _MOST_PLACES < 1 and rows > 1:
            continue  # far from enough bands would fit
        count = 2 if met == 1 else math.ceil(math.log(MISSED) / math.log1p(-met))
        if count * rows <= _MOST_PLACES or rows == 1:
            return Bands(max(2, count), rows)
    raise AssertionError("one row always fits")


def signatures(sets: ShingleSets, places: int) -> Signatures:
    """Return the MinHash signatures [texts, places]; an empty text's means nothing."""
    a, b = MinHash(num_perm=places, seed=_SEED, scheme=_SCHEME).permutations
    mixed = _mixed(sets.matrix.indices.astype(np.uint32))
    found = np.zeros((len(sets), places), np.uint32)
    filled = np.flatnonzero(sets.sizes)
    starts = sets.matrix.indptr[filled].astype(np.int64)
    ends = starts + sets.sizes[filled]
    at = 0
    while at < len(filled):
        to = max(at + 1, int(np.searchsorted(ends, starts[at] + _SHINGLES_AT_ONCE, "right")))
        some, cuts = mixed[starts[at] : ends[to - 1]], starts[at:to] - starts[at]
        for place in range(places):
            found[filled[at:to], place] = np.minimum.reduceat(some * a[place] + b[place], cuts)
        at = to
    return found


def buckets(sets: ShingleSets, bands: Bands) -> Iterator[list[Integers]]:
    """Yield, for a few bands at a time, the texts that meet: arrays of two or more, ascending."""
    found = signatures(sets, bands.places)
    filled = np.flatnonzero(sets.sizes)
    parts = math.ceil(bands.count / _BANDS_AT_ONCE)
    for some in np.array_split(np.arange(bands.count), parts):
        places = found[:, some[0] * bands.rows : (some[-1] + 1) * bands.rows]
        yield _met(places, filled, Bands(len(some), bands.rows))


def _met(places: Signatures, filled: Integers, bands: Bands) -> list[Integers]:
    index = MinHashLSH(num_perm=bands.places, params=(bands.count, bands.rows))
    for text in filled.tolist():
        sketch = LeanMinHash(seed=_SEED, hashvalues=places[text], scheme=_SCHEME)
        index.insert(text, sketch, check_duplication=False)
    met = (table.get(key) for table in index.hashtables for key in table.keys())  # noqa: SIM118
    return [np.sort(np.fromiter(texts, np.int64)) for texts in met if len(texts) > 1]


def _mixed(numbers: Signatures) -> Signatures:
    """Return the MurmurHash3 finalizer of each number, as datasketch applies it first."""
    mixed = numbers ^ (numbers >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed
