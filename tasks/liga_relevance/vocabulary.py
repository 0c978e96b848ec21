"""The words of an article, to look up the names of an answer in whatever form they have there."""

import re
from bisect import bisect_left

from tasks.liga_relevance.words import folded

_ENDINGS = ("", "s", "es", "n", "en", "er", "e", "ern", "ens")
_LEAST_PREFIX = 4
_WORD = re.compile(r"\w+(?:[-’']\w+)*")
_LETTERS = re.compile(r"[^\W\d_]+")


class Vocabulary:
    """The words of an article, found by themselves, by their endings, and as parts of others."""

    def __init__(self, text: str) -> None:
        words = {folded(word) for word in set(_LETTERS.findall(text))}
        self._words = words
        self._sorted = sorted(words)
        self._initials = "".join(w[0] for w in _WORD.findall(text) if w[0].isupper()).lower()

    def has(self, name: str) -> bool:
        """Return whether a part of a name stands in the article, in whatever form.

        "Rheins" is Rhein, "hessische" is Hessen's, "Caritasverband" is Caritas's.
        """
        return all(self._has_word(folded(word)) for word in _LETTERS.findall(name))

    def has_any(self, name: str) -> bool:
        """Return whether any word of a name stands in the article, in whatever form."""
        return any(self._has_word(folded(word)) for word in _LETTERS.findall(name))

    def has_acronym(self, acronym: str) -> bool:
        """Return whether an acronym stands in the article, or the words that it may stand for."""
        letters = folded(acronym)
        return letters in self._words or acronym.lower() in self._initials or self._begins(letters)

    def _has_word(self, word: str) -> bool:
        if word in self._words or self._begins(word):
            return True
        stems = {word.removesuffix(ending) for ending in _ENDINGS}
        return any(
            stem in self._words or (len(stem) >= _LEAST_PREFIX and self._begins(stem))
            for stem in stems
            if len(stem) >= 2
        )

    def _begins(self, prefix: str) -> bool:
        if len(prefix) < _LEAST_PREFIX:
            return False
        place = bisect_left(self._sorted, prefix)
        return place < len(self._sorted) and self._sorted[place].startswith(prefix)
