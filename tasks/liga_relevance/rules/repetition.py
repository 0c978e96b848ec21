"""Rules on repetition: the same sentence, or nearly the same, said again to reach a length.

Two sentences are nearly the same if at least 85 % of their words, or 92 % of their letters, stand
in both in the same order, or 90 % of their words in any order, or of those without articles and
fillers ("zudem", "vor allem") in the same order, some synonyms being one; and no figure, negation,
antonym or pair of nouns tells them apart: "In Fulda fehlen 3 Plätze" and "In Kassel fehlen 4
Plätze" are two facts.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from tasks.liga_relevance.numbers import numbers_in
from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt
from tasks.liga_relevance.sentences import normalised
from tasks.liga_relevance.words import FUNCTION_WORDS, word_set

_SAME_WORDS = 0.85
_SAME_LETTERS = 0.92
# Of the words in any order, as German puts what it likes before the verb; and of the bare ones.
_SAME_TURNED = _SAME_BARE = 0.9
_INFLECTED = 0.8  # two nouns that share so many letters are forms of one word
_LEAST_WORDS = 4  # shorter sentences are compared as they are
_LEAST_BARE = 3  # and what is left of longer ones, if there is less
# An answer within its lengths has at most 15 sentences a text; more are only compared as they
# are, so that a text of thousands takes no pairwise comparison.
_MOST_COMPARED = 40
# The part of the analysis that may stand in the summary before it counts as filled up.
_CONSIDERABLE = 1 / 3
_WORD = re.compile(r"\w+")
_ABOVE_ALL = re.compile(r"\bvor allem\b", re.IGNORECASE)
# "Ist weiter angespannt" is "bleibt angespannt".
_STILL = re.compile(r"\b(ist|sind) (?:weiterhin|weiter|nach wie vor|immer noch|noch immer)\b")
# One noun for another is the one change that else tells two sentences apart.
_SAME_NOUNS = {"situation": "Lage", "situationen": "Lagen"}
# "Es gibt keine Kita ohne Personal" denies what "ohne Personal gibt es eine Kita nicht" does; but
# "nicht alle" and "alle nicht" do not.
_NO = word_set("kein keine keinen keinem keiner keines")
_DENIAL = re.compile(r"\b(?:nicht|keine?[nmrs]?)\b", re.IGNORECASE)
_QUANTIFIERS = word_set(
    """
    alle allen aller alles jeder jede jedes jeden jedem immer nur beide viele mehrere ganz
    """
)
_FILLERS = word_set(
    """
    der die das den dem des ein eine einen einem einer eines auch nun jetzt zudem außerdem ferner
    darüber hinaus besonders insbesondere dabei hier damit somit daher deshalb also bereits schon
    sehr derzeit aktuell zugleich gleichzeitig ebenfalls ebenso insgesamt weiterhin dadurch
    deutlich erneut inzwischen mittlerweile dringend zusätzlich so dazu hierbei eben gerade
    """
)
_SYNONYMS = {
    "benötigen": "brauchen",
    "benötigt": "braucht",
    "verlangen": "fordern",
    "verlangt": "fordert",
    "verlangte": "forderte",
    "erforderlich": "nötig",
    "notwendig": "nötig",
    "unverzichtbar": "nötig",
    "unerlässlich": "nötig",
    "gewährleisten": "sichern",
    "sicherstellen": "sichern",
    "sichergestellt": "gesichert",
    "gewährleistet": "gesichert",
    "zunehmen": "steigen",
    "wachsen": "steigen",
    "wächst": "steigt",
    "erhalten": "bekommen",
    "erhält": "bekommt",
    "beginnt": "startet",
    "beginnen": "starten",
    "unterstützen": "fördern",
    "unterstützt": "fördert",
    "auskömmliche": "ausreichende",
}
# One of them here and another there makes two facts.
_OPPOSED = tuple(
    word_set(words)
    for words in (
        "für gegen",
        "mit ohne",
        "vor nach",
        "ab bis",
        "über unter",
        "steigt sinkt fällt stieg sank fiel",
        "steigen sinken fallen",
        "erhöht senkt kürzt streicht",
        "erhöhen senken kürzen streichen",
        "öffnet schließt eröffnet",
        "öffnen schließen eröffnen",
        "lobt begrüßt kritisiert bemängelt",
        "loben begrüßen kritisieren bemängeln",
        "hohe niedrige",
        "alte neue",
        "alle einige manche viele wenige",
        "heute morgen gestern",
    )
)
_NEGATIONS = word_set(
    """
    nicht nie kein keine keinen keinem keiner ohne weder noch kaum weniger mehr
    """
)


def _repeated_sentence(case: Case) -> Findings:
    for name, found in (
        ("summary", case.summary),
        ("detailed_analysis", case.analysis),
        ("argumentationskette", case.arguments),
        ("reasoning", case.reasoning),
    ):
        seen: set[str] = set()
        for index, sentence in enumerate(found):
            key = normalised(sentence)
            if key in seen or _near_any(sentence, found[: min(index, _MOST_COMPARED)]):
                yield f"{name} {excerpt(sentence)}"
            seen.add(key)


def _analysis_equals_summary(case: Case) -> Findings:
    if case.analysis and len(_shared(case)) == len(case.analysis):
        yield "alle Sätze der detailed_analysis"


def _analysis_repeats_summary(case: Case) -> Findings:
    shared, whole = _shared(case), case.analysis
    if shared and _CONSIDERABLE * len(whole) <= len(shared) < len(whole):
        yield f"{len(shared)} von {len(whole)} Sätzen, zuerst {excerpt(shared[0])}"


def _shared_sentence(case: Case) -> Findings:
    for sentence in _shared(case):
        yield excerpt(sentence)


def _shared(case: Case) -> list[str]:
    """Return the sentences of the analysis that stand in the summary, or nearly so."""
    return _in_both(tuple(case.summary), tuple(case.analysis))


@lru_cache(maxsize=8)
def _in_both(summary: tuple[str, ...], analysis: tuple[str, ...]) -> list[str]:
    keys = {normalised(sentence) for sentence in summary}
    compared = summary[:_MOST_COMPARED]
    return [
        sentence
        for index, sentence in enumerate(analysis)
        if normalised(sentence) in keys
        or (index < _MOST_COMPARED and _near_any(sentence, compared))
    ]


def _near_any(sentence: str, others: Sequence[str]) -> bool:
    return any(near_same(sentence, other) for other in others)


class _Words(NamedTuple):
    """A sentence in the forms in which it is compared."""

    written: tuple[str, ...]
    lower: tuple[str, ...]
    turned: tuple[str, ...]
    bare: tuple[str, ...]
    letters: str
    denials: frozenset[str]
    """Which of "nicht" and "kein" it denies with; `written` has "nicht" for both."""


@lru_cache(maxsize=1024)
def _words(sentence: str) -> _Words:
    written = _written(sentence)
    lower = tuple(word.casefold() for word in written)
    bare = tuple(_SYNONYMS.get(word, word) for word in lower if word not in _FILLERS)
    denials = frozenset(word.casefold()[:4] for word in _DENIAL.findall(sentence))
    return _Words(tuple(written), lower, tuple(sorted(lower)), bare, " ".join(lower), denials)


def _written(sentence: str) -> list[str]:
    """Return the words of a sentence, those that say the same replaced by one of them."""
    still = _STILL.sub(lambda match: "bleibt" if match[1] == "ist" else "bleiben", sentence)
    words = [_SAME_NOUNS.get(w.casefold(), w) for w in _WORD.findall(_ABOVE_ALL.sub(" ", still))]
    if not _QUANTIFIERS.isdisjoint(word.casefold() for word in words):
        return words
    return ["nicht" if word.casefold() in _NO else word for word in words]


def near_same(one: str, other: str) -> bool:
    """Return whether two sentences say nearly the same in nearly the same words."""
    first, second = _words(one), _words(other)
    if min(len(first.written), len(second.written)) < _LEAST_WORDS:
        return False
    if not _alike(first, second) or _told_apart(first.written, second.written):
        return False
    # "Zahlt nicht mehr" and "zahlt keine Miete mehr" deny two things.
    return first.denials == second.denials or (
        _nouns(first.written) <= set(second.lower) and _nouns(second.written) <= set(first.lower)
    )


def _alike(first: _Words, second: _Words) -> bool:
    # Not needed by commands that judge no text.
    from rapidfuzz import fuzz
    from rapidfuzz.distance import Indel

    letters = 100 * _SAME_LETTERS
    if fuzz.ratio(first.letters, second.letters, score_cutoff=letters) >= letters:
        return True
    # Of most pairs of sentences too few words are the same, in whatever order.
    if Indel.normalized_similarity(first.turned, second.turned) >= _SAME_TURNED:
        return True
    if Indel.normalized_similarity(first.lower, second.lower) >= _SAME_WORDS:
        return True
    if first.bare == second.bare and len(first.bare) >= _LEAST_BARE:
        return True
    long_enough = min(len(first.bare), len(second.bare)) >= _LEAST_WORDS
    return long_enough and Indel.normalized_similarity(first.bare, second.bare) >= _SAME_BARE


def _told_apart(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether a figure, a negation, an antonym or another noun makes two facts."""
    from rapidfuzz import fuzz

    one, other = {w.casefold() for w in first}, {w.casefold() for w in second}
    figures = numbers_in(" ".join(first)) ^ numbers_in(" ".join(second))
    if figures - {"1"} or not _NEGATIONS.isdisjoint(one ^ other):  # "ein" is no figure
        return True
    only_one, only_other = one - other, other - one
    if any(words & only_one and words & only_other for words in _OPPOSED):
        return True
    mine, theirs = _nouns(first) - other, _nouns(second) - one
    return any(
        all(fuzz.ratio(noun, against) < 100 * _INFLECTED for against in theirs)
        for noun in mine
        if theirs
    )


def _nouns(words: Sequence[str]) -> set[str]:
    """Return the capitalised words but those that stand first for no noun."""
    return {
        word.casefold()
        for word in words
        if word[0].isupper() and word.casefold() not in FUNCTION_WORDS
    }


REPEATED_SENTENCE = Rule(
    "repeated-sentence",
    "error",
    "Ein Satz steht in einem Feld zweimal oder fast gleich; sage alles nur einmal",
    _repeated_sentence,
)
ANALYSIS_EQUALS_SUMMARY = Rule(
    "analysis-equals-summary",
    "error",
    "detailed_analysis sagt nur die Sätze der summary noch einmal; nenne, was darüber hinausgeht",
    _analysis_equals_summary,
)
ANALYSIS_REPEATS_SUMMARY = Rule(
    "analysis-repeats-summary",
    "error",
    "detailed_analysis wiederholt zu viel aus der summary; lass diese Sätze weg",
    _analysis_repeats_summary,
)
SHARED_SENTENCE = Rule(
    "shared-sentence",
    "warning",
    "Ein Satz steht in summary und detailed_analysis gleich oder fast gleich",
    _shared_sentence,
)
