"""Dates in German text, whichever way they are written."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

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
# "am 1. und 2. März": the days before share the month that follows.
_DAYS_BEFORE = re.compile(r"(\d{1,2})\.\s?(?:und|bis|oder|sowie|,|/|-|–)\s?(?:zum\s)?$")
_RELATIVE = WEEKDAYS | word_set(
    """
    heute morgen gestern vorgestern übermorgen woche wochen monat monats monate
    """
)
_DERIVED_DAYS = 14


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
        if match.group("word") and mention.day is not None:
            found.extend(_days_before(text, match.start(), mention))
    return found


def dates_given(article: str) -> list[Mention]:
    """Return the dates in an article: those of `dates_in`, and what may be one as well.

    That is a day and month without a year wherever they stand, and a date in English.
    """
    found = dates_in(article)
    for match in _BARE.finditer(article):
        found.append(Mention(match.group(), None, int(match.group(2)), int(match.group(1))))
    for match in _ENGLISH_MONTH.finditer(article):
        month = _ENGLISH[match.group().lower()]
        around = article[max(0, match.start() - 8) : match.end() + 5]
        days: list[int | None] = [int(day) for day in re.findall(r"\b\d{1,2}(?!\d)", around)]
        found.extend(Mention(match.group(), None, month, day) for day in [None, *days])
    return found


def without_dates(text: str) -> str:
    """Return `text` without its dates, so that the numbers left in it are none of theirs."""
    return _DATE.sub(lambda match: " ; " if _mention(match) else match.group(), text)


def grounded(mention: Mention, article: str, given: list[Mention], published: str) -> bool:
    """Return whether an article bears out a date of an answer; `given` is `dates_given(article)`.

    A year may stand elsewhere in the article. Where it counts from the day on which it was
    `published` ("gestern", "am Montag"), a day near that day is taken to be meant.
    """
    if mention.year is not None and str(mention.year) not in article:
        return False
    if any(mention.agrees(other) for other in given):
        return True
    origin = next(iter(dates_in(published)), None)
    if origin is None or _RELATIVE.isdisjoint(words_of(article)):
        return False
    return _near(mention, origin)


def _near(mention: Mention, published: Mention) -> bool:
    if published.year is None or published.day is None:
        return False
    try:
        origin = date(published.year, published.month, published.day)
    except ValueError:
        return False
    if mention.day is None:
        return min((mention.month - origin.month) % 12, (origin.month - mention.month) % 12) <= 1
    around = (origin + timedelta(days=n) for n in range(-_DERIVED_DAYS, _DERIVED_DAYS + 1))
    return any((day.month, day.day) == (mention.month, mention.day) for day in around)


def _mention(match: re.Match[str]) -> Mention | None:
    found = match.groupdict()
    if found["word"]:
        name = found["word"].lower()
        month = MONTHS.get(name) or _ABBREVIATED[name[:3]]
        if name not in MONTHS and found["word_day"] is None and found["word_year"] is None:
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


def _days_before(text: str, end: int, mention: Mention) -> Iterator[Mention]:
    before = _DAYS_BEFORE.search(text[max(0, end - 16) : end])
    if before and 1 <= int(before.group(1)) <= 31:
        yield Mention(before.group(1) + ".", mention.year, mention.month, int(before.group(1)))
