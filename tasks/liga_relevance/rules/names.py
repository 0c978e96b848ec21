"""Rules on names: people, organisations and places of an answer must be the article's.

German writes every noun with a capital, so a capital says nothing. A name is only taken for sure
after a title ("Ministerin Meier"), after a frequent first name ("Petra Meier"), as the speaker of
a quote ("so Petra Meier"), and if it is one of the Liga's associations: there an unknown name is an
error. Acronyms, towns, and what follows "Stiftung" or "Klinikum" are less sure: a warning.
"""

import re
from collections.abc import Iterator

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
from tasks.liga_relevance.vocabulary import Vocabulary
from tasks.liga_relevance.words import FUNCTION_WORDS, MONTHS, WEEKDAYS, word_set

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


def _ungrounded_name(case: Case) -> Findings:
    known = case.vocabulary
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
    known = case.vocabulary
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
