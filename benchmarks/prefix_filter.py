"""Near-duplicates: which of several thousand texts say the same.

Similarity is the Jaccard index of the sets of word 3-shingles: shared shingles over all shingles
of the two. Pairs are found exactly, not estimated, by prefix filtering (Bayardo, Ma and Srikant,
"Scaling up all pairs similarity search", 2007): with the shingles of every text in one order, two
texts whose index is at least t must share one among the first |x| - ceil(t * |x|) + 1 of each. With
the rarest first, those prefixes hardly ever meet by chance, and boilerplate is at the end.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

_WORD = re.compile(r"\w+")
_SIZE = 3


def shingles(text: str) -> frozenset[str]:
    """Return the word 3-shingles of a text, without case, punctuation and Unicode forms.

    A text of one or two words is its own only shingle; one without a word has none.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    if not words:
        return frozenset()
    last = max(1, len(words) - _SIZE + 1)
    return frozenset(" ".join(words[start : start + _SIZE]) for start in range(last))


def similar_pairs(sets: Sequence[frozenset[str]], least: float) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, similarity), i < j, for all pairs of sets of at least `least` (above 0)."""
    frequency = Counter(each for one in sets for each in one)
    index: dict[str, list[int]] = defaultdict(list)
    for j, one in enumerate(sets):
        ordered = sorted(one, key=lambda each: (frequency[each], each))
        # The subtraction guards against a product that floating point puts just above a whole.
        prefix = ordered[: len(one) - math.ceil(least * len(one) - 1e-9) + 1]
        for i in sorted({i for each in prefix for i in index[each]}):
            shared = len(one & sets[i])
            similarity = shared / (len(one) + len(sets[i]) - shared)
            if similarity >= least:
                yield i, j, similarity
        for each in prefix:
            index[each].append(j)


def groups(size: int, pairs: Iterator[tuple[int, int, float]]) -> list[list[int]]:
    """Return the connected groups among `size` members, each sorted, by their first member.

    Similarity is not transitive, so a group may hold two that are not similar themselves; they
    still belong to one side, since the member between them is similar to both.
    """
    parent = list(range(size))

    def root(member: int) -> int:
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for i, j, _ in pairs:
        first, second = sorted((root(i), root(j)))
        parent[second] = first
    found: dict[int, list[int]] = defaultdict(list)
    for member in range(size):
        found[root(member)].append(member)
    return list(found.values())
