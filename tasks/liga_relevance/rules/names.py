"""Rules on names: people, organisations and places of an answer must be the article's.

German writes every noun with a capital, so a capital says nothing. A name is only taken for sure
after a title ("Ministerin Meier"), after a frequent first name ("Petra Meier"), as the speaker of
a quote ("so Petra Meier"), and if it is one of the Liga's associations: there an unknown name is an
error. Acronyms, towns, and what follows "Stiftung" or "Klinikum" are less sure: a warning.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from tasks.liga_relevance.proper_names import (
    ASSOCIATIONS,
    FIRST_NAMES,
    KNOWN_ACRONYMS,
    ORGANISATIONS,
    PLACES,
    SPEECH,
    TITLES,
)
from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt
from tasks.liga_relevance.words import FUNCTION_WORDS, MONTHS, WEEKDAYS, folded, word_set

_NAME = r"[A-ZÄÖÜÇŞİ][a-zà-žıß]+(?:[-’'][A-ZÄÖÜÇŞİ]?[a-zà-žıß]+)?"
_PARTICLE = r"(?:(?:von|van|de|del|der|zu|al|El|von der) )?"
_FULL = rf"{_NAME}(?: [A-Z]\.)?(?: {_PARTICLE}{_NAME}){{0,2}}"
_TITLED = re.compile(rf"(?<![\w-])(?:{TITLES}) (?:(?:Dr|Prof)\. )*(?P<name>{_PARTICLE}{_FULL})")
_PAIR = re.compile(rf"(?<![\w-])(?P<first>{_NAME}) (?P<last>{_PARTICLE}{_NAME})(?![\w-])")
_SPEAKER = re.compile(
    rf"\b{SPEECH} (?P<name>{_NAME} {_PARTICLE}{_NAME})(?= ?[.,;:!?\"“”«»)]|$| und | aus | vom? )"
)
_ORGANISATION = re.compile(rf"(?<![\w-])(?:{ORGANISATIONS}) (?P<name>{_NAME})(?![\w-])")
_HYPHENATED = re.compile(rf"(?<![\w-])(?P<name>[\w-]{{1,60}})-(?:{ORGANISATIONS})(?![\w-])")
_ACRONYM = re.compile(r"(?<![\w-])[A-ZÄÖÜ][A-Za-zäöü]{0,4}[A-ZÄÖÜ](?![\w])")
_ROMAN = re.compile(r"[IVXLCDM]+")
_WORD = re.compile(r"\w+(?:[-’']\w+)*")
_LETTERS = re.compile(r"[^\W\d_]+")

# Capitalised words that follow a title or another noun and are no names.
_NO_NAMES = word_set(
    """
    anfang mitte ende prozent millionen milliarden tausend euro cent meter kilometer liter
    tonnen stunden tage wochen monate jahre land bund stadt kreis gemeinde landkreis hessen
    deutschland deutschlands hessens europa frauen männer kinder eltern familien menschen
    personal politik soziales gesundheit pflege bildung finanzen jugend arbeit integration
    familie senioren wohnen teilhabe migration inneres justiz kultur umwelt verkehr wirtschaft
    recht sport leitung verwaltung seite ort thema sicht liga verband verbände träger kita heim
    """
)
_NO_NAMES |= set(MONTHS) | WEEKDAYS
_ENDINGS = ("", "s", "es", "n", "en", "er", "e", "ern", "ens")
_LEAST_PREFIX = 4


class Vocabulary:
    """The words of an article, found by themselves, by their endings, and as parts of others."""

    def __init__(self, text: str) -> None:
        words = {folded(word) for word in _LETTERS.findall(text)}
        self._words = words
        self._sorted = sorted(words)
        self._initials = "".join(w[0] for w in _WORD.findall(text) if w[0].isupper()).lower()
        self._text = folded(text)

    def has(self, name: str) -> bool:
        """Return whether a part of a name stands in the article, in whatever form.

        "Rheins" is Rhein, "hessische" is Hessen's, "Caritasverband" is Caritas's.
        """
        return all(self._has_word(folded(word)) for word in _LETTERS.findall(name))

    def has_acronym(self, acronym: str) -> bool:
        """Return whether an acronym stands in the article, or the words that it may stand for."""
        letters = folded(acronym)
        return letters in self._words or acronym.lower() in self._initials or self._begins(letters)

    def has_phrase(self, phrases: Iterable[str]) -> bool:
        """Return whether one of the phrases stands in the article, as part of a word too."""
        return any(folded(phrase) in self._text for phrase in phrases)

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


def _ungrounded_name(case: Case) -> Findings:
    known = Vocabulary(case.shown)
    for name, text in case.claims:
        told = {person for person in _people(text) if not known.has(_last(person))}
        for person in sorted(told):
            yield f"{name} nennt {excerpt(person)}"
    for name, text in case.prose:
        lowered = text.casefold()
        for association, forms in ASSOCIATIONS.items():
            if any(_stands_in(form, lowered) for form in forms) and not known.has_phrase(forms):
                yield f"{name} nennt {excerpt(association)}"


def _unsure_name(case: Case) -> Findings:
    known = Vocabulary(case.shown)
    for name, text in case.prose:
        for found in sorted({*_unsure(text, known), *_half_known(text, known)}):
            yield f"{name} nennt {excerpt(found)}"


def _people(text: str) -> Iterator[str]:
    """Yield names that are surely those of people."""
    for match in _TITLED.finditer(text):
        words = match.group("name").split()
        while words and not _may_be_name(words[-1]):
            words.pop()
        # A town after a title is where its bearer works; after a first name it is a surname.
        if words and _may_be_name(words[0]) and (len(words) > 1 or words[0] not in PLACES):
            yield " ".join(words)
    for match in _pairs(text):
        if match.group("first").split("-")[0].lower() in FIRST_NAMES:
            yield match.group()
    for match in _SPEAKER.finditer(text):
        words = match.group("name").split()
        if all(_may_be_name(word) for word in words) and words[-1] not in PLACES:
            yield match.group("name")


def _pairs(text: str) -> Iterator[re.Match[str]]:
    """Yield all pairs of capitalised words, overlapping ones too, that may be a name."""
    position = 0
    while match := _PAIR.search(text, position):
        position = match.end("first")
        if _may_be_name(match.group("last").split()[-1]):
            yield match


def _may_be_name(word: str) -> bool:
    return word.lower() not in _NO_NAMES and word.lower() not in FUNCTION_WORDS


def _last(person: str) -> str:
    return person.rsplit(maxsplit=1)[-1]


def _half_known(text: str, known: Vocabulary) -> Iterator[str]:
    """Yield people whose first name the writer has added out of his own knowledge."""
    for person in _people(text):
        if known.has(_last(person)) and not known.has(person):
            yield person


def _unsure(text: str, known: Vocabulary) -> Iterator[str]:
    for acronym in _ACRONYM.findall(text):
        known_to_all = acronym in KNOWN_ACRONYMS or _ROMAN.fullmatch(acronym)
        if not known_to_all and not known.has_acronym(acronym):
            yield acronym
    for pattern in (_ORGANISATION, _HYPHENATED):
        for match in pattern.finditer(text):
            if _may_be_name(match.group("name")) and not known.has(match.group("name")):
                yield match.group()
    for word in _WORD.findall(text):
        if word in PLACES and not known.has(word):
            yield word


def _stands_in(form: str, text: str) -> bool:
    return re.search(rf"\b{form}", text) is not None


UNGROUNDED_NAME = Rule(
    "ungrounded-name",
    "error",
    "Ein Name steht nicht im Artikel; lass ihn weg",
    _ungrounded_name,
)
UNSURE_NAME = Rule(
    "unsure-name",
    "warning",
    "Ein Name oder Kürzel steht wohl nicht im Artikel",
    _unsure_name,
)
