"""What two texts are compared by: the word 3-shingles of each, and their Jaccard index.

The index is the number of shingles that both have over the number that either has. Shingles are
numbered, not hashed, so an index is exact; `shingles` says in plain Python what `ShingleSets` holds
for a hundred thousand texts at once.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy import sparse

_WORD = re.compile(r"\w+")
SIZE = 3
_PACKED_WORDS = 1 << 21
"""Three word numbers below this fit into one signed 64-bit number."""
_PAIRS_AT_ONCE = 50_000

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def words(text: str) -> list[str]:
    """Return the words of a text, without case, punctuation and Unicode forms.

    A text without a word (a post of one emoji, say) is its own only word, so that copies of it are
    found too; an empty text has none.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(plain) or (plain.split()[:1] and ["".join(plain.split())])


def words_digest(text: str) -> str:
    """Return a digest of a text's words, in hex: 64 bits, "" for a text that has none."""
    found = words(text)
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:16] if found else ""


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Return the word 3-shingles of a text. One or two words are a shingle of their own."""
    found = words(text)
    if not found:
        return frozenset()
    last = max(1, len(found) - SIZE + 1)
    return frozenset(tuple(found[start : start + SIZE]) for start in range(last))


class ShingleSets:
    """The shingles of many texts: a sparse matrix [texts, distinct shingles] of ones."""

    def __init__(self, texts: Iterable[str]) -> None:
        numbers, lengths = _numbered(texts)
        shingle, text = _shingles(numbers, lengths)
        _, columns = np.unique(shingle, return_inverse=True)
        width = int(columns.max()) + 1 if len(columns) else 0
        ones = np.ones(len(columns), np.int32)
        shape = (len(lengths), width)
        self.matrix = sparse.csr_array((ones, (text, columns)), shape=shape)
        self.matrix.sum_duplicates()
        self.matrix.data[:] = 1
        self.sizes: Integers = np.diff(self.matrix.indptr).astype(np.int64)

    def __len__(self) -> int:
        return len(self.sizes)

    def shingles_of(self, text: int) -> bytes:
        """Return something that is equal for texts of equal shingles only."""
        start, end = self.matrix.indptr[text : text + 2]
        return bytes(np.sort(self.matrix.indices[start:end]).tobytes())

    def similarities(self, left: Integers, right: Integers) -> Floats:
        """Return the Jaccard index of each pair (left[k], right[k]); 0 for two empty sets."""
        found = np.zeros(len(left))
        for start in range(0, len(left), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            one, other = left[part], right[part]
            shared = self.matrix[one].multiply(self.matrix[other]).sum(axis=1)
            either = self.sizes[one] + self.sizes[other] - shared
            found[part] = shared / np.maximum(either, 1)
        return found


def _numbered(texts: Iterable[str]) -> tuple[Integers, Integers]:
    """Return the words of all texts as numbers from 1, one text after the other, and how many.

    A text of one or two words is filled up with 0, which is no word's number.
    """
    vocabulary: dict[str, int] = {}
    numbers, lengths = array("q"), array("q")
    for text in texts:
        found = [vocabulary.setdefault(word, len(vocabulary) + 1) for word in words(text)]
        if 0 < len(found) < SIZE:
            found += [0] * (SIZE - len(found))
        numbers.extend(found)
        lengths.append(len(found))
    return np.array(numbers, np.int64), np.array(lengths, np.int64)


def _shingles(numbers: Integers, lengths: Integers) -> tuple[Integers, Integers]:
    """Return for each shingle a number (equal for equal shingles only) and the text it is in."""
    text = np.repeat(np.arange(len(lengths)), lengths)
    if len(numbers) < SIZE:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    whole = text[: 1 - SIZE] == text[SIZE - 1 :]  # all three words are of one text
    first, second, third = numbers[:-2][whole], numbers[1:-1][whole], numbers[2:][whole]
    base = int(numbers.max()) + 1
    pair = first * base + second
    if base > _PACKED_WORDS:  # three would not fit: number the pairs first
        _, pair = np.unique(pair, return_inverse=True)
    return pair * base + third, text[: 1 - SIZE][whole]
