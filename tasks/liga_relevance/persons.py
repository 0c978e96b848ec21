"""Finding the people that a German text names.

German writes every noun with a capital, so a capital says nothing. What makes a word a name is its
place: after a title or a frequent first name, as the subject of a verb of speech without an
article ("„Nein“, sagte Müllerfeld."), or beside a function ("Ilja Krasnowski, Leiter der Kita").
A common noun in the singular does not stand there without its article.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from tasks.liga_relevance.first_names import FIRST_NAMES
from tasks.liga_relevance.proper_names import (
    NO_NAMES,
    NOUN_ENDINGS,
    ORGANISATIONS,
    PLACES,
    ROLES,
    SAYS,
    SPEECH,
    TITLES,
)
from tasks.liga_relevance.surnames import follows_determiner, is_surname, may_name_a_house
from tasks.liga_relevance.words import FUNCTION_WORDS, MONTHS, WEEKDAYS

NAME = r"[A-ZÄÖÜÇŞİ][a-zà-žıß]+(?:[-’'][A-ZÄÖÜÇŞİ]?[a-zà-žıß]+)?"
_PARTICLE = r"(?:(?:von|van|de|del|der|zu|al|El|von der) )?"
_FULL = rf"{NAME}(?: [A-Z]\.)?(?: {_PARTICLE}{NAME}){{0,2}}"
_TITLED = re.compile(rf"(?<![\w-])(?:{TITLES}) (?:(?:Dr|Prof)\. )*(?P<name>{_PARTICLE}{_FULL})")
_PAIR = re.compile(rf"(?<![\w-])(?P<first>{NAME}) (?P<last>{_PARTICLE}{NAME})(?![\w-])")
_SPEAKER = re.compile(
    rf"\b{SPEECH} (?P<name>{NAME} {_PARTICLE}{NAME})(?= ?[.,;:!?\"“”«»)]|$| und | aus | vom? )"
)
# „Nein“, sagte Müllerfeld. The subject comes next, with an article or as a name.
_QUOTED = re.compile(
    rf"[“”\"»«‘’‹›'],? {SAYS} (?P<name>(?:{NAME} ){{0,3}}{_PARTICLE}{NAME})(?![\w-])"
    r"(?= ?[.,;:!?)]|$| (?:und|aus|von|vom|gegenüber|dem|der|im|am|in|auf|bei|nach|zu) )",
    re.MULTILINE,
)
# Müllerfeld sagte: / Müllerfeld erklärte, dass / Wie Müllerfeld berichtete. No subject can follow.
_START = r"(?:(?<=[.!?:“”\"»«] )|^)"
_SUBJECT = re.compile(
    rf"(?:{_START}(?P<name>(?:{NAME} )?{_PARTICLE}{NAME}) {SAYS}(?=[,:])"
    rf"|\b[Ww]ie (?P<name2>(?:{NAME} )?{_PARTICLE}{NAME}) (?:{SAYS}|mitteilte?|ankündigte?)\b)",
    re.MULTILINE,
)
# Müllerfeld kritisierte den Beschluss. An adverb can stand there as well.
_MAYBE_SUBJECT = re.compile(
    rf"{_START}(?P<name>(?:{NAME} )?{_PARTICLE}{NAME}) {SAYS} "
    r"(?!(?:der|die|das|ein|eine|er|sie|es|man|wir|ich|auch|zudem|sich)\b|[A-ZÄÖÜ])",
    re.MULTILINE,
)
# Leiterin Ilja Krasnowski / Ilja Krasnowski, die neue Leiterin
_ROLE = re.compile(ROLES, re.IGNORECASE)
_ROLE_BEHIND = re.compile(
    rf",? \(?(?:(?:die|der|eine|ein) )?(?:\w{{2,20}}e[rn]? )?(?:{ROLES})(?![\w-])", re.IGNORECASE
)
_WORD_BEFORE = re.compile(r"([\w-]+) $")
_LONGEST_WORD = 60
_NOUN = re.compile(rf".*{NOUN_ENDINGS}|(?:.*-)?(?:{ORGANISATIONS.lower()})s?")
# An adjective, a participle, a genitive or a plural can stand before a noun, and an adverb before
# a verb: what ends like one is a first name, or a surname, no more than perhaps.
_INFLECTED = re.compile(r".*(?:e|er|es|en|em|n|s)")
_ADVERB = re.compile(
    r".*(?:lich|ig|isch|weise|mals|ens|haft|los|bar|sam|end|wärts|falls|fach|t|en|s)"
    r"|scharf|hart|klar|laut|kurz|massiv|intern|extern|vorab|hierzu|hierbei|wiederum"
)


@lru_cache(maxsize=64)
def people(text: str) -> tuple[str, ...]:
    """Return names that are surely those of people, in order of the signs that tell so."""
    return (
        *_titled(text),
        *_with_first_name(text),
        *_speakers(text),
        *(f"{first} {last}" for first, last in _beside_roles(text) if not _inflected(first)),
    )


def likely_people(text: str) -> Iterator[str]:
    """Yield names that are likely those of people, and may be other things."""
    yield from (f"{first} {last}" for first, last in _beside_roles(text) if _inflected(first))
    for match in _MAYBE_SUBJECT.finditer(text):
        name = match.group("name")
        if _may_be_surname(surname(name)) and not _ADVERB.fullmatch(name.lower()):
            yield name
    for match in _SUBJECT.finditer(text):
        name = match.group("name") or match.group("name2")
        if _may_be_surname(surname(name)) and " " in name and _inflected(name.split()[0]):
            yield name


@lru_cache(maxsize=4096)
def may_be_name(word: str) -> bool:
    """Return whether a capitalised word is none of those that are surely no name."""
    lowered = word.lower()
    return not (
        lowered in NO_NAMES or lowered in FUNCTION_WORDS or lowered in MONTHS or lowered in WEEKDAYS
    )


def surname(person: str) -> str:
    """Return the last word of a name."""
    return person.rsplit(maxsplit=1)[-1]


def _titled(text: str) -> Iterator[str]:
    for match in _TITLED.finditer(text):
        words = match.group("name").split()
        while words and not may_be_name(words[-1]):
            words.pop()
        # A town after a title is where its bearer works; after a first name it is a surname.
        if words and may_be_name(words[0]) and (len(words) > 1 or words[0] not in PLACES):
            yield " ".join(words)


def _with_first_name(text: str) -> Iterator[str]:
    for match in _pairs(text):
        first = match.group("first").partition("-")[0].lower()
        if first not in FIRST_NAMES:
            continue
        last = surname(match.group())
        of_house = may_name_a_house(last) and follows_determiner(text, match.start())
        if not _is_noun(last) or (is_surname(last) and not of_house):
            yield match.group()


def _speakers(text: str) -> Iterator[str]:
    for match in _SPEAKER.finditer(text):
        words = match.group("name").split()
        if all(may_be_name(word) for word in words) and words[-1] not in PLACES:
            yield match.group("name")
    for match in _QUOTED.finditer(text):
        words = match.group("name").split()
        if _may_be_surname(words[-1]):
            yield " ".join(word for word in words if not _ROLE.fullmatch(word))
    for match in _SUBJECT.finditer(text):
        name = match.group("name") or match.group("name2")
        first, last = name.split()[0], surname(name)
        if _may_be_surname(last) and (first == last or not _inflected(first)):
            yield name


def _beside_roles(text: str) -> Iterator[tuple[str, str]]:
    """Yield first names and surnames of which a function stands before or behind."""
    for match in _pairs(text):
        first, last = match.group("first"), match.group("last")
        if not (_may_be_surname(first) and _may_be_surname(surname(last))):
            continue
        before = _WORD_BEFORE.search(text, max(0, match.start() - _LONGEST_WORD), match.start())
        if (before and _ROLE.fullmatch(before.group(1))) or _ROLE_BEHIND.match(text, match.end()):
            yield first, last


def _pairs(text: str) -> Iterator[re.Match[str]]:
    """Yield all pairs of capitalised words, overlapping ones too, that may be a name."""
    position = 0
    while match := _PAIR.search(text, position):
        position = match.end("first")
        if may_be_name(surname(match.group("last"))):
            yield match


def _inflected(word: str) -> bool:
    return _INFLECTED.fullmatch(word) is not None


def _may_be_surname(word: str) -> bool:
    return may_be_name(word) and word not in PLACES and not _is_noun(word)


@lru_cache(maxsize=4096)
def _is_noun(word: str) -> bool:
    """Return whether a word ends like a noun, or is a function, which may be a surname too."""
    lowered = word.lower()
    return _NOUN.fullmatch(lowered) is not None or _ROLE.fullmatch(lowered) is not None
