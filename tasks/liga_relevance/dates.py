"""Dates in German text, whichever way they are written."""

import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import lru_cache

from tasks.liga_relevance.periods import turns_from, years_from
from tasks.liga_relevance.words import MONTHS, WEEKDAYS, word_set, words_of

_MONTH = "|".join(MONTHS) + r"|jan|feb|mär|apr|jun|jul|aug|sept?|okt|nov|dez"
_ABBREVIATED = {name[:3]: number for name, number in MONTHS.items() if number != 1} | {"jan": 1}
_YEAR = r"(?:19|20)\d{2}"
_DATE = re.compile(
    # All begin with a digit or a month's letter: most places of a text are passed at once.
    r"(?=[\djfmasond])(?:"
    # 2026-03-01, also before a time
    rf"(?<![\w.-])(?P<iso>{_YEAR})-(?P<iso_month>\d{{2}})-(?P<iso_day>\d{{2}})(?![\d-])"
    # 1.3.2026, 01.03.26, 1. 3. 2026; without a year only with its last dot after such a word
    rf"|(?<![\w.,])(?P<day>\d{{1,2}})\.\s?(?P<month>\d{{1,2}})\.\s?(?P<year>{_YEAR}|\d{{2}})(?!\w)"
    r"|(?<=\b(?:am|ab|im)\s)(?P<day2>\d{1,2})\.\s?(?P<month2>\d{1,2})\.(?!\d)"
    r"|(?<=\b(?:vom|bis|zum|der|den|dem)\s)(?P<day3>\d{1,2})\.\s?(?P<month3>\d{1,2})\.(?!\d)"
    # 1. März 2026, 1. März, März 2026, im März
    rf"|(?:(?<![\w.,])(?P<word_day>\d{{1,2}})\.\s{{0,2}})?"
    rf"(?<!\w)(?P<word>{_MONTH})\b\.?(?:\s{{1,2}}(?P<word_year>{_YEAR})\b)?)",
    re.IGNORECASE,
)
_BARE = re.compile(r"(?<![\w.,])(\d{1,2})\.\s?(\d{1,2})\.(?!\d)")
_ENGLISH = {
    name: number
    for number, name in enumerate(
        [
            "january",
            "february",
            "march",
            "april",
            "may",
            "june",
            "july",
            "august",
            "september",
            "october",
            "november",
            "december",
        ],
        1,
    )
}
_ENGLISH_MONTH = re.compile(rf"\b(?:{'|'.join(_ENGLISH)})\b", re.IGNORECASE)
_WEEKDAYS = ("montag", "dienstag", "mittwoch", "donnerstag", "freitag", "samstag", "sonntag")
_WEEKDAY = "|".join(day.capitalize() for day in sorted(WEEKDAYS))
# "am 1. und 2. März", "vom 3. auf den 4.", "3., 4. und 5.": they share the month that follows.
_DAY_BEFORE = re.compile(
    r"(?<![\d.,])(\d{1,2})\.\s?,?\s?(?:und|u\.|oder|sowie|auf|,|/|-|–|&|\+"
    r"|bis(?:\s(?:einschließlich|einschl\.|inklusive|inkl\.))?)\s?(?:(?:zum|am|den|dem|der)\s)?"
    rf"(?:(?:{_WEEKDAY}),?\s(?:(?:den|dem|der)\s)?)?$"
)
_LONGEST_JOIN = 48  # characters from such a day to the next
_IN_MONTH = re.compile(r"\b(?:im|anfang|mitte|ende)\s$", re.IGNORECASE)
# Before a month or a year without a day: the first is meant, or the last.
_FIRST = re.compile(r"\b(?:anfang|beginn|ab|seit|von)\s$", re.IGNORECASE)
_LAST = re.compile(r"\b(?:ende|bis|bis einschließlich)\s$", re.IGNORECASE)
_TURN_OF_YEAR = re.compile(rf"\b(?P<turn>anfang|ende)\s(?P<year>{_YEAR})\b", re.IGNORECASE)
_PART_OF_YEAR = re.compile(
    r"\b(?P<which>erste|zweite|dritte|vierte|[1-4]\.)[nrs]?\s(?P<part>quartal|halbjahr)"
    rf"s?(?:\s(?P<year>{_YEAR})\b)?",
    re.IGNORECASE,
)
_WHICH = {"erste": 1, "zweite": 2, "dritte": 3, "vierte": 4}
_FROM_MONTH = re.compile(r"\b(?:ab|bis|seit|von|vom)\s$", re.IGNORECASE)
# Days that a relative word of the article can mean, counted from the publication, which may be a
# day late. A weekday is one of the last week or of the next two.
_MEANT = {
    "vorgestern": range(-3, 0),
    "gestern": range(-2, 1),
    "heute": range(-1, 2),
    "morgen": range(3),
    "übermorgen": range(1, 4),
    **dict.fromkeys(("woche", "wochen", "tagen"), range(-14, 15)),
}
_AROUND = range(-7, 15)
_WEEKS_AROUND = range(-21, 22)  # "Donnerstag in zwei Wochen"
_MONTH_WORDS = word_set("monat monats monate monaten")
_HALF_A_YEAR = 183  # days


@dataclass(frozen=True)
class Mention:
    """A date as a text gives it; what it does not say is None."""

    text: str
    year: int | None
    month: int
    day: int | None

    def agrees(self, other: "Mention") -> bool:
        """Return whether both can mean the same, and `other` says all that this one says."""
        same_day = self.day is None or self.day == other.day
        same_year = self.year is None or other.year is None or self.year == other.year
        return self.month == other.month and same_day and same_year


def dates_in(text: str) -> list[Mention]:
    """Return the dates in `text` that name a month; weekdays and years alone are none."""
    found: list[Mention] = []
    for match in _DATE.finditer(text):
        mention = _mention(match)
        if mention is None:
            continue
        found.append(mention)
        if match.group("iso") is None and mention.day is not None:
            found.extend(_days_before(text, match.start(), mention))
    return found


def dates_given(article: str) -> list[Mention]:
    """Return the dates in an article: those of `dates_in`, and what may be one as well.

    That is a day and month without a year wherever they stand, a date in English, and the day that
    "Ende Mai" or "im ersten Quartal" begins or ends with.
    """
    found = dates_in(article)
    found.extend(_turns(article))
    for match in _BARE.finditer(article):
        found.append(Mention(match.group(), None, int(match.group(2)), int(match.group(1))))
    for match in _ENGLISH_MONTH.finditer(article):
        month = _ENGLISH[match.group().lower()]
        around = article[max(0, match.start() - 8) : match.end() + 5]
        days: list[int | None] = [int(day) for day in re.findall(r"\b\d{1,2}(?!\d)", around)]
        found.extend(Mention(match.group(), None, month, day) for day in [None, *days])
    return found


def _turns(article: str) -> Iterator[Mention]:
    """Yield the first or last day that "ab Juli", "Ende 2025" and "erstes Quartal" speak of."""
    for match in _DATE.finditer(article):
        mention = _mention(match)
        if mention is not None and mention.day is None:
            before = article[max(0, match.start() - 20) : match.start()]
            if _FIRST.search(before):
                yield replace(mention, day=1)
            if _LAST.search(before):
                yield from _last_days(mention)
    for match in _TURN_OF_YEAR.finditer(article):
        first = match.group("turn").lower() == "anfang"
        month, day = (1, 1) if first else (12, 31)
        yield Mention(match.group(), int(match.group("year")), month, day)
    for match in _PART_OF_YEAR.finditer(article):
        yield from _days_of_part(match)


def _days_of_part(match: re.Match[str]) -> Iterator[Mention]:
    which, months = match.group("which").lower(), 3 if match.group("part")[0] in "qQ" else 6
    end = months * (_WHICH.get(which) or int(which[0]))
    if end > 12:
        return
    year = int(match.group("year")) if match.group("year") else None
    yield Mention(match.group(), year, end - months + 1, 1)
    yield from _last_days(Mention(match.group(), year, end, None))


def _last_days(mention: Mention) -> Iterator[Mention]:
    """Yield the last day of a month: of a February whose year nobody says, both."""
    years = {mention.year} if mention.year else {2023, 2024}
    days = {monthrange(year, mention.month)[1] for year in years}
    yield from (replace(mention, day=day) for day in days)


def without_dates(text: str) -> str:
    """Return `text` without its dates, so that the numbers left in it are none of theirs."""
    return _DATE.sub(lambda match: " ; " if _mention(match) else match.group(), text)


def grounded(mention: Mention, article: str, given: list[Mention], published: str) -> bool:
    """Return whether an article bears out a date of an answer; `given` is `dates_given(article)`.

    A year may stand elsewhere in the article, or be the one in which the date is nearest to the
    day on which the article was `published`. Where the article counts from that day ("gestern",
    "am Montag", "zum Jahresende"), the days and years that this can mean are borne out, and the
    days' months.
    """
    origin = _origin(published)
    for other in given:
        if mention.agrees(other) and _year_told(mention, other, article, origin):
            return True
    return origin is not None and _meant(mention, article, origin)


def years_meant(article: str, published: str) -> frozenset[int]:
    """Return the years that an article counts, from the day on which it was `published` or others.

    The others are years that it names in the same sentence or the one before.
    """
    return years_from(article, _origin(published))


def _origin(published: str) -> date | None:
    first = next(iter(dates_in(published)), None)
    if first is None or first.year is None or first.day is None:
        return None
    return _date(first.year, first.month, first.day)


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _year_told(mention: Mention, other: Mention, article: str, origin: date | None) -> bool:
    if mention.year is None or mention.year == other.year or str(mention.year) in article:
        return True
    if other.year is not None:
        return False
    if mention.year in years_from(article, origin):
        return True
    if origin is None:
        return False
    day = _date(mention.year, mention.month, other.day or 15)
    return day is not None and abs((day - origin).days) <= _HALF_A_YEAR


def _meant(mention: Mention, article: str, origin: date) -> bool:
    """Return whether a date is one that a relative word of the article can mean."""
    days, of_months = _days_meant(article, origin)
    for day in days:
        if mention.day is None:
            same = mention.month == day.month
        else:
            same = (mention.month, mention.day) == (day.month, day.day)
        if same and mention.year in (None, day.year):
            return True
    apart = (mention.month - origin.month) % 12
    return of_months and mention.day is None and min(apart, 12 - apart) <= 1


@lru_cache(maxsize=8)
def _days_meant(article: str, origin: date) -> tuple[frozenset[date], bool]:
    """Return the days that relative words can mean, and whether one of them counts in months."""
    words = set(words_of(article))
    offsets = {n for word in words & _MEANT.keys() for n in _MEANT[word]}
    # "Montagabend" too
    named = {n for n, day in enumerate(_WEEKDAYS) if any(word.startswith(day) for word in words)}
    named |= {5} if "sonnabend" in words else set()
    named |= {5, 6} if "wochenende" in words else set()
    around = _AROUND if words.isdisjoint(("woche", "wochen")) else _WEEKS_AROUND
    offsets |= {n for n in around if (origin + timedelta(days=n)).weekday() in named}
    days = frozenset(origin + timedelta(days=n) for n in offsets) | turns_from(article, origin)
    return days, not _MONTH_WORDS.isdisjoint(words)


def _mention(match: re.Match[str]) -> Mention | None:
    found = match.groupdict()
    if found["word"]:
        name = found["word"].lower()
        month = MONTHS.get(name) or _ABBREVIATED[name[:3]]
        bare = found["word_day"] is None and found["word_year"] is None
        if bare and name not in MONTHS and not _surely_month(match):
            return None  # "Jan" is a name, "Dez" can be anything
        day, year = found["word_day"], found["word_year"]
    else:
        month = int(found["iso_month"] or found["month"] or found["month2"] or found["month3"])
        day = found["iso_day"] or found["day"] or found["day2"] or found["day3"]
        year = found["iso"] or found["year"]
    if not 1 <= month <= 12 or (day is not None and not 1 <= int(day) <= 31):
        return None
    full = None if year is None else int(year) + (2000 if len(year) == 2 else 0)
    return Mention(match.group(), full, month, None if day is None else int(day))


def _surely_month(match: re.Match[str]) -> bool:
    """Return whether a month's short form stands as one: "im Sept", "ab Okt."."""
    before = match.string[max(0, match.start() - 8) : match.start()]
    with_dot = match.group().endswith(".")
    return _IN_MONTH.search(before) is not None or (
        with_dot and _FROM_MONTH.search(before) is not None
    )


def _days_before(text: str, end: int, mention: Mention) -> Iterator[Mention]:
    start = max(0, end - _LONGEST_JOIN)
    while before := _DAY_BEFORE.search(text[start:end]):
        day = int(before.group(1))
        if not 1 <= day <= 31:
            return
        yield Mention(f"{day}.", mention.year, mention.month, day)
        end = start + before.start(1)
        start = max(0, end - _LONGEST_JOIN)
