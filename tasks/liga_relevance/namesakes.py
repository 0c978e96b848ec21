"""Who of a surname an article names: "Michael Eckert" is nobody if the only Eckert is Tobias.

A first name contradicts an article only where both are frequent ones, the article gives another to
that surname, and does not have this one alone ("Tobias Eckert und seine Frau Anna").
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from tasks.liga_relevance.first_names import FIRST_NAMES
from tasks.liga_relevance.words import folded, word_set

_TOKEN = re.compile(r"[^\W\d_]\.(?=\s)|[^\W\d_]+(?:[-’'][^\W\d_]+)*|[^\w\s]|\d+")
_PARTICLES = word_set("von van de del der zu al El la le di")
_JOINS = word_set("und sowie & , /")
_LONGEST = 8  # tokens from a first name to its surname
_LEAST_SHORT = 3  # letters of a short form: Max, Alex, Chris
# Spellings of one name: Stefan and Stephan, Kathrin and Catrin, Matthias and Mathias.
_SPELLINGS = (("ph", "f"), ("th", "t"), ("ck", "k"), ("ch", "k"), ("c", "k"), ("y", "i"), ("h", ""))
_DOUBLE = re.compile(r"(.)\1")


class Namesakes:
    """The first names of each surname in a text."""

    def __init__(self, text: str) -> None:
        self._of: dict[str, set[str]] = {}
        self._alone: set[str] = set()
        tokens = _TOKEN.findall(text)
        for place, token in enumerate(tokens):
            if _is_first(token) or _is_initial(token):
                self._read(tokens, place)
            elif _is_first(token.removesuffix("s")):
                self._alone.update(_parts(token.removesuffix("s")))

    def contradict(self, person: str) -> bool:
        """Return whether nobody of the surname of `person` has one of its first names."""
        *before, last = person.split()
        mine = {part for word in before if _is_first(word) for part in _parts(word)}
        given = self._of.get(_key(last), set())
        if not mine or _is_first(last) or all(len(name) == 1 for name in given):
            return False
        return not any(_same(one, other) for one in mine for other in given | self._alone)

    def _read(self, tokens: list[str], place: int) -> None:
        """Read a name that begins at `place`, as far as its surname: "Anna und Tobias Eckert"."""
        firsts = [tokens[place]]
        joined = False
        ahead = [*tokens[place + 1 : place + _LONGEST], ""]
        for token, following in pairwise(ahead):
            if _is_first(token) or _is_initial(token):
                firsts.append(token)
            elif token in _JOINS and _is_first(following):
                joined = True
            elif token not in _PARTICLES:
                surname = token if len(token) > 1 and token[0].isupper() else None
                break
        else:
            surname = None
        if surname is None and len(firsts) > 1 and not joined:
            surname = firsts.pop()  # Thomas Martin
        names = {part for first in firsts for part in _parts(first)}
        if surname is None:
            self._alone |= names
        else:
            for key in {_key(surname), *map(_key, surname.split("-"))}:
                self._of.setdefault(key, set()).update(names)


def _is_first(token: str) -> bool:
    return token[:1].isupper() and token.partition("-")[0].lower() in FIRST_NAMES


def _is_initial(token: str) -> bool:
    return len(token) == 2 and token[1] == "." and token[0].isupper()


def _parts(first: str) -> Iterator[str]:
    """Yield the first names in one that is hyphenated, in one spelling; an initial as a letter."""
    for part in first.rstrip(".").split("-"):
        spelled = folded(part)
        for written, spoken in _SPELLINGS:
            spelled = spelled.replace(written, spoken) if len(spelled) > 1 else spelled
        yield _DOUBLE.sub(r"\1", spelled)


def _same(one: str, other: str) -> bool:
    length = min(len(one), len(other))
    as_long = one == other or length == 1 or length >= _LEAST_SHORT
    return as_long and one[:length] == other[:length]


def _key(surname: str) -> str:
    return folded(surname).removesuffix("s")
