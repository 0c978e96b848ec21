"""What an article weighs, statement by statement: what bears out a "könnte" of an answer.

A guess is borne out by a sentence of the article that guesses, fears or plans, and speaks of the
same thing. "Eltern können sich melden" bears out nothing about other Kitas, and neither does a
fear for the budget. Words are the same if the stem of one stands in the other, so that "Kürzung"
is in "Mittelkürzungen".
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

from tasks.liga_relevance.words import FUNCTION_WORDS, folded, unfolded, word_set

# Says itself that something may be, or is feared, expected or open. In small letters where a name
# or a noun is spelled alike: die Würde, Karl May, zum Wohl, Frau Hoffmann.
_WEIGHS = re.compile(
    r"\b(?:[Kk]önnte(?:n|st|t)?\b|[Dd]ürfte(?:n|st|t)?\b|[Mm]üsste(?:n|st|t)?\b|würden?\b|wären?\b"
    r"|[Vv]ermut(?:e|en|et|ete|eten|lich\w{0,3}|ung|ungen)\b|[Mm]utmaß|[Aa]ngeblich"
    r"|(?:un)?[Ww]ahrscheinlich|[Mm]öglich(?:e[nrsm]?|erweise)?\b|[Ww]omöglich|wohl\b(?! fühl)"
    r"|[Vv]oraussichtlich|[Vv]ielleicht|[Ee]ventuell|[Ee]vtl\b|[Uu]nter Umständen"
    r"|[Dd]roh(?:t|en|te|ten|end\w{0,2})\b|[Bb]edroh|[Dd]rohung(?:en)?\b"
    r"|erwart(?:e|en|et|ete|eten|bar)\b|[Rr]echne(?:n|t|te|ten)\b[^.!?]{0,60}\bmit\b"
    r"|mit\b[^.!?]{0,80}\b(?:rechnen|gerechnet)\b|geh(?:e|en|t)\b[^.!?]{0,80}\baus(?:zugehen)?\b"
    r"|auszugehen\b|[Bb]efürcht|fürcht(?:e|en|et|ete|eten)\b|[Gg]efährde|Gefahr(?:en)?\b|gefährlich"
    r"|Risik|riskier|[Pp]rognos|denkbar|vorstellbar|nicht aus(?:zuschließen|geschlossen)"
    r"|hoff(?:e|en|t|te|ten|entlich)\b|Hoffnung(?:en)?\b|absehbar|Sorgen?\b|besorgt|Besorgnis"
    r"|sorg(?:e|en|t|te|ten) sich\b|vor de[mr] (?:Aus|Ende|Schließung|Insolvenz|Pleite|Kollaps)\b"
    r"|[Ww]arn(?:e|en|t|te|ten|end\w{0,2}|ung|ungen)\b|[Vv]erd(?:acht|ächtig)|deute(?:t|n)\b"
    r"|[Hh]inweise? auf\b|schätz(?:e|en|t|te|ten|ungsweise)\b|[Uu]nklar|[Uu]ngewiss|fraglich"
    r"|in Frage\b|infrage\b|[Ee]rwäg|Überlegung|überleg|zur Disposition|auf der Kippe|Szenari"
    r"|may\b|might\b|could\b|expect(?:s|ed)?\b|likely\b)"
)
# Can be turned into a guess, if it is about the very same: "wir können" becomes "sie könnten", and
# "soll bis 2027 dauern" becomes "dauert voraussichtlich bis 2027".
_MAY_WEIGH = re.compile(
    r"\b(?:kann|können|könne|darf|dürfen|dürfe|solle?n?|wolle?n|will|plan(?:t|en|te|ten)|geplant"
    r"|wenn|falls|sofern|ob|sonst|prüf(?:t|en|te|ten)|künftig|Plan|Pläne)\b|\?",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{3,}")
# Words of guessing and of reporting, and those that stand in any sentence.
_NO_CONTENT = FUNCTION_WORDS | word_set(
    """
    könnte könnten dürfte dürften müsste müssten sollte sollten würde würden möchte möchten wäre
    wären hätte hätten vermutlich wahrscheinlich möglicherweise womöglich mutmaßlich eventuell
    vielleicht voraussichtlich sicherlich wohl unter umständen denkbar vorstellbar auszuschließen
    erwarten rechnen befürchten vermuten anzunehmen auszugehen davon gefahr droht drohen besteht
    folge folgen haben führen sein gibt geben kommen machen weitere weiteren weiterer neue sagt
    sagte heißt erklärte dies dadurch hierdurch ebenfalls auswirkungen konsequenzen
    """
) - {"geplant"}
_ENDING = re.compile(r"(?:ungen|ung|ern|en|er|es|em|et|te|n|s|e|t)$")
_STEM = 6  # letters that are compared at most, and
_LEAST_STEM = 4  # at least
_TOLD_APART = 3
"""Words of a statement: if so many are found nowhere where the article guesses, it is not there."""


class Bearing(IntEnum):
    """How far an article bears out a guess."""

    NONE = 0
    """It guesses nothing, or surely not this."""
    UNSURE = 1
    """It guesses, in other words; or says for certain what the statement guesses."""
    SAME = 2
    """It guesses about the same thing."""


class Weighed:
    """The sentences of an article, to look up what of them is a guess."""

    def __init__(self, sentences: Sequence[str]) -> None:
        told = [unfolded(sentence) for sentence in sentences]
        self._plain = [folded(sentence) for sentence in told]
        self._sure = [n for n, sentence in enumerate(told) if _WEIGHS.search(sentence)]
        self._maybe = [n for n, sentence in enumerate(told) if _MAY_WEIGH.search(sentence)]

    def bearing(self, statement: str) -> Bearing:
        """Return how far the article bears out the guess that `statement` is.

        One word in common will do with a sentence that guesses, or the sentences beside it; two,
        or all there are, with one that only can be meant so. Where the article says for certain
        what the statement guesses, two thirds of its words stand in one sentence.
        """
        stems = content_stems(statement)
        if any(_shared(stems, self._around(n)) for n in self._sure):
            return Bearing.SAME
        needed = min(2, len(stems))
        if stems and any(_shared(stems, self._plain[n]) >= needed for n in self._maybe):
            return Bearing.SAME
        elsewhere = bool(self._sure) and len(stems) < _TOLD_APART
        told = max(2, 2 * len(stems) / 3)  # no guess of the article, but no invention either
        if elsewhere or any(_shared(stems, plain) >= told for plain in self._plain):
            return Bearing.UNSURE
        return Bearing.NONE

    def says(self, statement: str, about: re.Pattern[str], modal: re.Pattern[str]) -> bool:
        """Return whether the article says the same `about` someone, with that `modal`.

        Of the statement's other words two stand in one sentence beside the modal, or all there
        are. Who it is about stands there too, or elsewhere ("wir", says its chairwoman) if there
        are two such words. Both patterns search in folded text, and the words that `about`
        matches count for nothing.
        """
        stems = {stem for stem in content_stems(statement) if not about.search(stem)}
        elsewhere = len(stems) > 1 and any(about.search(plain) for plain in self._plain)
        return any(
            modal.search(plain)
            and (elsewhere or about.search(plain))
            and _shared(stems, plain) >= min(2, len(stems))
            for plain in self._plain
        )

    def _around(self, number: int) -> str:
        return " ".join(self._plain[max(0, number - 1) : number + 2])


@lru_cache(maxsize=256)
def content_stems(sentence: str) -> frozenset[str]:
    """Return the stems of the words of a sentence that say what it is about, folded."""
    words = (word for word in _WORD.findall(sentence) if word.lower() not in _NO_CONTENT)
    return frozenset(stem for word in words if len(stem := _stem(folded(word))) >= _LEAST_STEM - 1)


def _stem(word: str) -> str:
    stem = _ENDING.sub("", word)
    return (stem if len(stem) >= _LEAST_STEM else word)[:_STEM]


def _shared(stems: frozenset[str] | set[str], plain: str) -> int:
    return sum(stem in plain for stem in stems)
