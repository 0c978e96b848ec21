"""German-like articles in any number, with near-duplicates planted, the same on every run.

Lengths are those of the first user's articles: median 325 characters, 95th percentile about 5,600,
some far longer. Words are real ones and compounds of them, drawn as unevenly as words are
(Zipf); every tenth article carries one of a few boilerplate sentences.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

_FUNCTION = """der die das und in zu den von mit sich auf für ist im dem nicht ein eine als auch es
an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war
haben nur oder aber vor zur bis mehr durch man sein wurde sei"""
_STEMS = """land kreis stadt pflege heim kinder jugend sozial haus hilfe arbeit markt bund rat wohn
bau schul kranken alten familien flucht recht geld mittel förder tarif lohn dienst träger verband
beratung stelle zentrum plan bericht antrag gesetz entwurf frist kosten steuer verein ehren amt
werk statt tag nacht jahr zeit raum platz weg gruppe projekt netz klima energie verkehr
bildung gesundheit armut sucht schulden frauen männer senioren wohnung miete spende kirche"""
_ENDS = ["", "s", "en", "er", "ung", "lich", "schaft", "e"]
_BOILERPLATE = [
    "Weitere Informationen finden Sie auf unserer Seite und in der gedruckten Ausgabe.",
    "Dieser Artikel wurde automatisch aus einer Meldung der Agentur übernommen.",
    "Melden Sie sich für unseren Newsletter an und bleiben Sie auf dem Laufenden.",
]
_MEDIAN_CHARS, _P95_CHARS, _LONGEST_CHARS = 325, 5600, 40_000
_Z95 = 1.645
_VOCABULARY = 30_000

_Draw = Callable[[int], list[str]]


@dataclass(frozen=True)
class Text:
    """An article; `copy_of` is the number of the one it was made from, None for an original."""

    title: str
    content: str
    copy_of: int | None


def texts(count: int, *, copies: float = 0.2, seed: int = 17) -> list[Text]:
    """Return articles; a share of `copies` are earlier ones with up to a twelfth of the words
    changed, half of them under another title: reports of one agency in several papers."""
    source = random.Random(seed)  # noqa: S311
    vocabulary = _words(source)
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    cumulated = [weights[0]]
    for weight in weights[1:]:
        cumulated.append(cumulated[-1] + weight)

    def draw(number: int) -> list[str]:
        return source.choices(vocabulary, cum_weights=cumulated, k=number)

    found: list[Text] = []
    originals: list[int] = []
    for number in range(count):
        title = " ".join(draw(6)).capitalize()
        if originals and source.random() < copies:
            origin = source.choice(originals)
            title = source.choice([title, found[origin].title])
            found.append(Text(title, _changed(found[origin].content, source, draw), origin))
            continue
        originals.append(number)
        content = " ".join(draw(max(2, _chars(source) // 8)))
        if source.random() < 0.1:
            content += ". " + source.choice(_BOILERPLATE)
        found.append(Text(title, content, None))
    return found


def _words(source: random.Random) -> list[str]:
    stems = _STEMS.split()
    made = {
        source.choice(stems) + source.choice(["", source.choice(stems)]) + source.choice(_ENDS)
        for _ in range(_VOCABULARY)
    }
    return _FUNCTION.split() + sorted(made, key=lambda word: (len(word), word))


def _chars(source: random.Random) -> int:
    """Return a length from the log-normal distribution with the two quantiles above."""
    sigma = math.log(_P95_CHARS / _MEDIAN_CHARS) / _Z95
    return min(_LONGEST_CHARS, int(source.lognormvariate(math.log(_MEDIAN_CHARS), sigma)))


def _changed(content: str, source: random.Random, draw: _Draw) -> str:
    given = content.split()
    for word in draw(source.randint(0, len(given) // 12)):
        given[source.randrange(len(given))] = word
    return " ".join(given)
