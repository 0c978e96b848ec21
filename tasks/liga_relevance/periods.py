"""Years, and turns of months and years, that a text does not name but count.

They are counted from the day on which it appeared ("im kommenden Jahr"), or from a year that the
same sentence or the one before names ("2025 waren es 31, im Jahr davor 19").
"""

import re
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache

from tasks.liga_relevance.numbers import number_word
from tasks.liga_relevance.sentences import sentences

# Adjectives before "Jahr" and "Monat", without the last letter of their ending.
_AWAY = {
    "diese": 0,
    "laufende": 0,
    "kommende": 1,
    "nächste": 1,
    "folgende": 1,
    "übernächste": 2,
    "vergangene": -1,
    "vorige": -1,
    "letzte": -1,
    "zurückliegende": -1,
    "abgelaufene": -1,
    "vorletzte": -2,
    "vorvergangene": -2,
}
_WHICH = rf"(?P<which>{'|'.join(_AWAY)})[mnrs]?"
# im kommenden Jahr, im Vorjahr, vor zwei Jahren; not "in den kommenden Jahren"
_YEAR = re.compile(
    rf"\b(?:{_WHICH} (?:kalender|haushalts|geschäfts|schul)?jahr(?:e?s)?"
    r"|(?P<before>vorjahr)(?:e?s)?"
    r"|(?P<way>vor|seit|in) (?P<count>[a-zäöüß]{3,20}|\d{1,2}) jahr(?:en?)?)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
# im Jahr davor, zwei Jahre zuvor, ein Jahr später, nach drei Jahren, im Vorjahr, im Folgejahr
_FROM_NAMED = re.compile(
    r"\b(?:(?P<count>[a-zäöüß]{2,20}|\d{1,2}) (?P<unit>jahre?) "
    r"(?:(?P<before>davor|zuvor|vorher|früher)|später|danach|darauf)"
    r"|nach (?P<past>[a-zäöüß]{3,20}|\d{1,2}) jahr(?:en?)?"
    r"|(?P<vor>vorjahr|(?:vorig|vorherig|vorhergehend|vorangegangen)en jahr)(?:e?s)?"
    r"|(?P<folge>folgejahr|(?:folgend|darauffolgend|nächst)en jahr)(?:e?s)?)\b",
    re.IGNORECASE,
)
_THE_YEAR = ("im", "das", "dem", "des")  # before "Jahr davor": the one next to it
# Ende des Monats, Anfang kommenden Jahres, zum Jahreswechsel 2026
_TURN = re.compile(
    rf"\b(?:(?P<turn>anfang|beginn|mitte|ende) (?:des )?(?:{_WHICH} )?(?P<unit>jahr|monat)e?s"
    r"|(?P<of>jahr|monat)e?s(?P<point>anfang|beginn|mitte|ende|wechsel)s?)\b"
    r"(?: (?P<year>(?:19|20)\d\d)\b)?",
    re.IGNORECASE,
)
# Where nothing says which: "zum Jahresbeginn" can be the last one or the next.
_UNSAID = {"anfang": (0, 1), "beginn": (0, 1), "mitte": (0,), "ende": (0,), "wechsel": (-1, 0)}
_MONTHS = {"jahr": 12, "monat": 1}
_DAY = timedelta(days=1)


@lru_cache(maxsize=8)
def years_from(text: str, origin: date | None) -> frozenset[int]:
    """Return the years that `text` counts from that of `origin`, or from one that it names."""
    found: set[int] = set()
    told_before: set[int] = set()
    for sentence in sentences(text):
        told = {int(year) for year in _NAMED.findall(sentence)}
        if origin is not None:
            aways = {n for match in _YEAR.finditer(sentence) for n in _away(match)}
            found |= {origin.year + n for n in aways}
            told |= {origin.year + n for n in aways}
        aways = {n for match in _FROM_NAMED.finditer(sentence) for n in _away_from_named(match)}
        counted = {year + n for year in told | told_before for n in aways}
        found |= counted
        told_before = told | counted
    return frozenset(found)


def turns_from(text: str, origin: date) -> frozenset[date]:
    """Return the days on which the months and years of `text` begin, end, or are half over.

    The text may have appeared a day late, so that on the 1st the "Monatsende" can be yesterday's.
    """
    return frozenset(
        day
        for match in _TURN.finditer(text)
        for counted_from in (origin, origin - _DAY)
        for day in _days(match, counted_from)
    )


def _away(match: re.Match[str]) -> Iterator[int]:
    if match.group("before"):
        yield -1
    elif match.group("which"):
        yield _AWAY[match.group("which").lower()]
    elif (years := number_word(match.group("count"))) is not None:
        yield years if match.group("way").lower() == "in" else -years


def _away_from_named(match: re.Match[str]) -> Iterator[int]:
    if match.group("vor"):
        yield -1
    elif match.group("folge"):
        yield 1
    elif match.group("past"):
        if (years := number_word(match.group("past"))) is not None:
            yield years
    else:
        count = match.group("count").lower()
        next_to_it = count in _THE_YEAR and match.group("unit").lower() == "jahr"
        years = 1 if next_to_it else number_word(count)
        if years is not None:
            yield -years if match.group("before") else years


def _days(match: re.Match[str], origin: date) -> Iterator[date]:
    months = _MONTHS[(match.group("unit") or match.group("of")).lower()]
    turn = (match.group("turn") or match.group("point")).lower()
    aways = _UNSAID[turn]
    if match.group("which"):
        aways = (_AWAY[match.group("which").lower()],)
    elif match.group("year") and months == _MONTHS["jahr"]:
        aways = (int(match.group("year")) - origin.year,)
    for away in aways:
        start = ((12 * origin.year + origin.month - 1) // months + away) * months
        first, following = _first_of(start), _first_of(start + months)
        middle = first + (following - first) / 2
        yield from {
            "mitte": (middle - _DAY, middle),
            "ende": (following - _DAY,),
            "wechsel": (following - _DAY, following),
        }.get(turn, (first,))


def _first_of(month: int) -> date:
    """Return the first day of a month, which is counted from that of the year 0."""
    return date(month // 12, month % 12 + 1, 1)
