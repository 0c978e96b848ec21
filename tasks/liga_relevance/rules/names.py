"""Rules on names: people, organisations and places of an answer must be the article's.

German writes every noun with a capital, so a capital says nothing. A name is only taken for sure
where its place says so (tasks/liga_relevance/persons.py) and if it is one of the Liga's
associations: there an unknown name is an error (in an argument only if it is the only one, as the
associations are those who argue). Acronyms, towns, what follows "Stiftung" or "Klinikum", and
people in less certain places are a warning.
"""

import re
from collections.abc import Iterator

from tasks.liga_relevance.persons import NAME, likely_people, may_be_name, people, surname
from tasks.liga_relevance.proper_names import (
    ASSOCIATIONS,
    KNOWN_ACRONYMS,
    ORGANISATIONS,
    PLACES,
)
from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt
from tasks.liga_relevance.vocabulary import Vocabulary

_ORGANISATION = re.compile(rf"(?<![\w-])(?:{ORGANISATIONS}) (?P<name>{NAME})(?![\w-])")
_HYPHENATED = re.compile(rf"(?<![\w-])(?P<name>[\w-]{{1,60}})-(?:{ORGANISATIONS})(?![\w-])")
_ACRONYM = re.compile(r"(?<![\w-])[A-ZÄÖÜ][A-Za-zäöü]{0,4}[A-ZÄÖÜ](?![\w])")
_ROMAN = re.compile(r"[IVXLCDM]+")
_WORD = re.compile(r"\w+(?:[-’']\w+)*")
_ASSOCIATION = re.compile(
    "|".join(f"(?P<_{number}>{forms})" for number, forms in enumerate(ASSOCIATIONS.values())),
    re.IGNORECASE,
)
_JEWISH = "Jüdische Gemeinde"


def _ungrounded_name(case: Case) -> Findings:
    known = case.vocabulary
    for name, text in case.claims:
        told = {
            person
            for person in people(text)
            if not known.has(surname(person)) or _is_another(case, person)
        }
        for person in sorted(told):
            yield f"{name} nennt {excerpt(person)}"
    for name, text in case.prose:
        for association in _unknown_associations(case, text):
            yield f"{name} nennt {excerpt(association)}"
    for argument, association, sure in _argued(case):
        if sure:
            yield f"argumentationskette nennt {excerpt(association)} in {excerpt(argument)}"


def _unsure_name(case: Case) -> Findings:
    known = case.vocabulary
    for name, text in case.prose:
        likely = {person for person in likely_people(text) if not known.has_any(person)}
        likely -= set(people(text))
        for found in sorted({*_unsure(text, known), *_half_known(case, text), *likely}):
            yield f"{name} nennt {excerpt(found)}"
    for _, association, sure in _argued(case):
        if not sure:
            yield f"argumentationskette nennt {excerpt(association)}"


def _associations(text: str, *, capital: bool = False) -> list[str]:
    """Return the associations in a text, each once; with `capital` only those written so.

    "Diakonisches Handeln" and "jüdische Gemeinden" can be meant otherwise.
    """
    names = tuple(ASSOCIATIONS)
    found = (
        match for match in _ASSOCIATION.finditer(text) if match.group()[0].isupper() or not capital
    )
    return list(dict.fromkeys(names[int((match.lastgroup or "_0")[1:])] for match in found))


def _unknown_associations(case: Case, text: str, *, capital: bool = False) -> list[str]:
    """Return the associations in a text that the article names in none of their forms."""
    told = _associations(text, capital=capital)
    known = _associations(case.shown) if told else []
    return [association for association in told if association not in known]


def _argued(case: Case) -> Iterator[tuple[str, str, bool]]:
    """Yield arguments with an association that the article has not, and whether it surely is wrong.

    The associations are the ones that speak, so that a list of them is a way to say "we"; and
    "Jüdische Gemeinden" may be none of them. One alone is a claim about it.
    """
    for argument in case.answer.argumentationskette:
        named = _associations(argument, capital=True)
        for association in _unknown_associations(case, argument, capital=True):
            yield argument, association, len(named) == 1 and association != _JEWISH


def _is_another(case: Case, person: str) -> bool:
    """Return whether the article names people of that surname, but by other first names."""
    return " " in person and case.namesakes.contradict(person)


def _half_known(case: Case, text: str) -> Iterator[str]:
    """Yield people whose first name the writer has added out of his own knowledge."""
    known = case.vocabulary
    for person in people(text):
        if known.has(surname(person)) and not known.has(person) and not _is_another(case, person):
            yield person


def _unsure(text: str, known: Vocabulary) -> Iterator[str]:
    for acronym in _ACRONYM.findall(text):
        known_to_all = acronym in KNOWN_ACRONYMS or _ROMAN.fullmatch(acronym)
        if not known_to_all and not known.has_acronym(acronym):
            yield acronym
    for pattern in (_ORGANISATION, _HYPHENATED):
        for match in pattern.finditer(text):
            if may_be_name(match.group("name")) and not known.has(match.group("name")):
                yield match.group()
    for word in _WORD.findall(text):
        if word in PLACES and not known.has(word):
            yield word


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
