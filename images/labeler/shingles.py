"""What two texts are compared by: the word 3-shingles of each, and their Jaccard index.

The index is the number of shingles that both have over the number that either has. Shingles stand
as 64-bit digests, which are the same in every run, so that a text can be compared after it is gone.
Among the thirty million of a hundred thousand articles two share one with a probability of 0.00002,
so an index is exact for all that matters; `shingles` says in plain Python what `ShingleSets` holds.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy import sparse

_WORD = re.compile(r"\w+")
_WRAP = re.compile(
    r"[-\u2010\u00ad](?<=[^\W\d_].)[^\S\n]*\n\s*(?=[a-zß-ÿ])(?!(?:und|oder|bzw|sowie|wie)\b)"
)
"""A word that is divided at the end of a line. One that goes on with a capital (Bund-Länder) keeps
its hyphen in the middle of a line too, and so does the first of two (Kinder- und Jugendhilfe)."""
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
"""Soft hyphens, joiners, blanks of no width, marks of direction and of order, of variants."""
SIZE = 3
_PACKED = np.dtype("<u8")
"""How digests are kept, on whatever machine."""
_PAIRS_AT_ONCE = 50_000

Integers = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def words(text: str) -> list[str]:
    """Return the words of a text, without case, punctuation and Unicode forms.

    Nor is there what a page or a PDF adds to the same words: HTML's character references,
    characters that nobody sees, and hyphens at the end of a line. A text without a word (a post of
    one emoji, say) is its own only word, so that copies of it are found too; an empty text has
    none.
    """
    plain = unicodedata.normalize("NFKC", html.unescape(text))
    plain = _INVISIBLE.sub("", _WRAP.sub("", plain)).casefold()
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

    def __init__(self, texts: Iterable[str], packed: Iterable[bytes] = ()) -> None:
        """Take texts, and after them further ones of which only `packed` is kept."""
        words_, lengths = _word_digests(texts)
        shingle, text = _shingles(words_, lengths)
        known = [np.frombuffer(each, _PACKED) for each in packed]
        sizes = np.array([len(each) for each in known], np.int64)
        known_text = len(lengths) + np.repeat(np.arange(len(known)), sizes)
        shingle = np.concatenate([shingle, *known]).astype(np.uint64)
        text = np.concatenate([text, known_text])
        self.digests, columns = np.unique(shingle, return_inverse=True)
        ones = np.ones(len(columns), np.int32)
        shape = (len(lengths) + len(known), len(self.digests))
        self.matrix = sparse.csr_array((ones, (text, columns)), shape=shape)
        self.matrix.sum_duplicates()
        self.matrix.data[:] = 1
        self.sizes: Integers = np.diff(self.matrix.indptr).astype(np.int64)

    def __len__(self) -> int:
        return len(self.sizes)

    def packed(self, text: int) -> bytes:
        """Return the digests of a text's shingles, ascending: the same in every run."""
        start, end = self.matrix.indptr[text : text + 2]
        return np.sort(self.digests[self.matrix.indices[start:end]]).astype(_PACKED).tobytes()

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


class _Vocabulary(dict[str, int]):
    """The digest of each word, made when the word is first met."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        return self.setdefault(word, int.from_bytes(digest, "little"))


def _word_digests(texts: Iterable[str]) -> tuple[Digests, Integers]:
    """Return the words of all texts as digests, one text after the other, and how many.

    A text of one or two words is filled up with 0, which is no word's digest.
    """
    vocabulary = _Vocabulary()
    digests, lengths = array("Q"), array("q")
    for text in texts:
        found = [vocabulary[word] for word in words(text)]
        if 0 < len(found) < SIZE:
            found += [0] * (SIZE - len(found))
        digests.extend(found)
        lengths.append(len(found))
    return np.array(digests, np.uint64), np.array(lengths, np.int64)


def _shingles(words_: Digests, lengths: Integers) -> tuple[Digests, Integers]:
    """Return the digest of each shingle, and the text it is in."""
    text = np.repeat(np.arange(len(lengths)), lengths)
    if len(words_) < SIZE:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    whole = text[: 1 - SIZE] == text[SIZE - 1 :]  # all three words are of one text
    first, second, third = words_[:-2][whole], words_[1:-1][whole], words_[2:][whole]
    return _mixed(_mixed(_mixed(first) + second) + third), text[: 1 - SIZE][whole]


def _mixed(numbers: Digests) -> Digests:
    """Return the finalizer of splitmix64 of each number, so that the order of words counts."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
