"""Numbers in German text, brought to one form so that they can be looked up."""

import re
from collections.abc import Iterator
from functools import lru_cache

from tasks.liga_relevance.shares import in_per_cent, shares_in
from tasks.liga_relevance.words import folded

# 1.200 and 1 200 are groups of thousands; 3,5 is a decimal.
_NUMBER = re.compile(r"(?<!\w)\d{1,3}(?:[.\u00a0\u202f]\d{3})+(?:,\d+)?(?!\d)|\d+(?:[.,]\d+)*")
_GROUPED = re.compile(r"\d{1,3}(?:[.\u00a0\u202f]\d{3})+(?:,\d+)?")
# Thousands in an English article, or with plain spaces: "1 250" can be two numbers as well.
_MAYBE_GROUPED = re.compile(r"\b[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)\b")
_SCALES = {
    **dict.fromkeys(("tsd", "tausend", "thousand", "t€", "teur", "k"), 3),
    **dict.fromkeys(("mio", "million", "mill.", "mln", "m"), 6),
    **dict.fromkeys(("mrd", "milliard", "mld", "bn"), 9),
    "billion": 12,
}
# "Tausende" is a noun of its own.
_SCALE_WORD = (
    r"(?:tsd|tausend(?!e)|thousand|t€|teur|mio|million|mill\.|mln|mrd|milliard|mld|billion)"
)
_SCALE = re.compile(rf"[\s-]{{0,3}}(?P<scale>{_SCALE_WORD})[a-z]{{0,9}}", re.IGNORECASE)
_ENGLISH_BILLION = 9
# €1.2m and $3bn: without the currency an "m" is a metre.
_SHORT_SCALE = re.compile(r"(?P<scale>bn|m|k)\b")
_CURRENCY = re.compile(r"[€$£]\s?$")
# A table in millions says so once.
_TABLE_SCALE = re.compile(
    r"\bin (?P<scale>tsd|tausend|mio|million|mrd|milliard)(?:en)?\b", re.IGNORECASE
)
# Between two numbers of which the second's scale is the first's too: "von 3,4 auf 4,1 Millionen",
# "5 für Kitas und 3 Millionen für Schulen", but not "96 Kinder und 3 Millionen".
_SHARED_SCALE = re.compile(r"[a-zäöüß,/ –-]+")
_FOR_WHAT = re.compile(r"\b(?:für|bei|in|im|aus) [A-ZÄÖÜ][\w-]*")
_LONGEST_GAP = 50
_YEAR = re.compile(r"(?:19|20)\d\d")
_SCALED_WORDS = re.compile(
    r"\b(?:(?P<from>[a-zäöüß]{2,40}) (?:bis|oder|und|auf) )?(?P<number>[a-zäöüß]{2,40})"
    rf"[ \u00a0-](?P<scale>{_SCALE_WORD})"
)
# 12.30 Uhr and 12:30 Uhr are one time, and 14.00 Uhr is 14 Uhr.
_TIME = re.compile(r"\b(\d{1,2})[.:](\d{2})(?=\s{0,3}Uhr)")
# 2025/26 is 2025 and 2026; 2½ is 2,5.
_YEARS = re.compile(
    r"(?P<century>19|20)(?<![\d.,/-]..)(?P<year>\d\d)\s?[/–-]\s?(?P<next>\d\d)(?!\d|[./-]\d)"
)
_FRACTION = re.compile(r"(\d{0,9})\s?([½¼¾])")
_FRACTIONS = {"½": "5", "¼": "25", "¾": "75"}
_WORD = re.compile(r"[a-zäöüß]+")
# zweieinhalb, anderthalbjährig, halbes; not deshalb
_HALF = re.compile(
    r"(?:(?P<whole>[a-zäöüß]{2,40})einhalb|(?P<more>anderthalb)|halb(?:e[nrsm]?)?)(?P<tail>.*)"
)
_DOZENS = re.compile(
    r"\b(?:(?P<from>[a-zäöüß]{2,40}|\d{1,3}) (?:bis|oder) )?"
    r"(?P<count>[a-zäöüß]{2,40}|\d{1,3})(?P<half> halbes)?"
    r"(?: (?:gute|knappe|volle|weitere)s)? dutzend\b"
)
_DOZENS_COUNTED = re.compile(r"\b\d{1,3}(?= Dutzend\b)")
_ONE_DOZEN = ("ein", "das", "dem", "im", "pro", "je")
# "fünf- bis sechshundert": the first is hundreds too
_SHARED_END = re.compile(
    r"\b(?P<first>[a-zäöüß]{3,20})-? (?:bis|und|oder) [a-zäöüß]{0,20}?"
    r"(?P<end>hundert(?:tausend)?|tausend)"
)
# A decade, which is neither a year nor a count: die 1990er, in den 90ern, neunziger Jahre, die
# 80er- und 90er-Jahre.
_DECADE = re.compile(
    r"\b(?:(?P<century>1[89]|20)(?P<of>\d0)er(?:n|[- ]?jahren?)?\b"
    r"|(?P<short>[1-9]0)er(?:(?:n|[- ]?jahren?)\b|(?=-? (?:und|bis|oder) (?:1[89]|20)?\d0er))"
    r"|(?P<word>(?:zwan|vier|fünf|sech|sieb|acht|neun)zig|dreißig)er(?:n|[- ]?jahren?)?\b)",
    re.IGNORECASE,
)
_RECENT_DECADES = 30  # of the last two centuries, until then; the others are the last one's
# Names of the task itself, not figures of an article.
_NAMES = re.compile(r"\bAK ?[1-5]\b")

_ONES = {
    "ein": 1,
    "eins": 1,
    "zwei": 2,
    "drei": 3,
    "vier": 4,
    "fünf": 5,
    "sechs": 6,
    "sieben": 7,
    "acht": 8,
    "neun": 9,
}
_BELOW_HUNDRED = {
    **_ONES,
    "zehn": 10,
    "elf": 11,
    "zwölf": 12,
    "dreizehn": 13,
    "vierzehn": 14,
    "fünfzehn": 15,
    "sechzehn": 16,
    "siebzehn": 17,
    "achtzehn": 18,
    "neunzehn": 19,
}
_TENS = {
    "zwanzig": 20,
    "dreißig": 30,
    "vierzig": 40,
    "fünfzig": 50,
    "sechzig": 60,
    "siebzig": 70,
    "achtzig": 80,
    "neunzig": 90,
}
_BELOW_HUNDRED |= _TENS | {
    f"{one}und{ten}": value + tens
    for one, value in _ONES.items()
    if one != "eins"
    for ten, tens in _TENS.items()
}
_IRREGULAR = {"null": 0, "erst": 1, "dritt": 3, "siebt": 7, "acht": 8}
# What a number word can be the beginning of: dreijährig, vierköpfig, zweimal, zwanzigster.
_TAILS = re.compile(
    r"(?:jährig|köpfig|mal|fach|stündig|tägig|monatig|wöchig|stellig|stöckig|gruppig|er)"
    r"(?:e[nrsm]?)?|s?te[nrsm]?|tel|e[nrsm]?"
)
_LONGEST_NUMBER_WORD = 60


def numbers_in(text: str, *, words: bool = True) -> set[str]:
    """Return the numbers in `text`: digits only, "." before decimals, no leading zeros.

    With `words`, numbers written out and ordinals count too, and the parts of a date or a time
    stand beside the whole, so that "2026-03-01" also gives 2026, 3 and 1. A decade is "1990er", and
    "ein Viertel" is "25 %".
    """
    found = {name for match in _DECADE.finditer(text) for name in _decade_names(match)}
    text = _DECADE.sub(" ; ", text)
    for number, scaled, _ in _written(text):
        found.add(number)
        if scaled and words:
            found.add(scaled)
    if words:
        found.update(_with_shared_scales(text))
        found.update(_scaled_words(text.lower()))
        found.update(_canonical(part) for part in re.findall(r"\d+", text))
        found.update(re.sub(r"\D", "", m) for m in _MAYBE_GROUPED.findall(text))
        found.update(_in_words(text.lower()))
        found.update(shares_in(text))
    return found


def number_word(word: str) -> int | None:
    """Return the value of a whole number in digits or written out: 2 for "zwei", 1 for "einem"."""
    if word.isdecimal():
        return int(word)
    return 1 if re.fullmatch("eine[mnrs]?", word) else _value(word.lower())


def ungrounded(text: str, given: set[str]) -> list[str]:
    """Return the numbers of `text` that are not among those that `numbers_in` found elsewhere.

    "1,2 Millionen" may stand for 1.200.000, but not for 1,2. It is returned with its scale.
    A year may stand before a scale that is not its own: "will 2026 Millionen sparen".
    """
    decades = {_decade_names(m)[0] for m in _DECADE.finditer(text) if not m.group("word")}
    numbers = {
        f"{number} {scale}".rstrip()
        for number, scaled, scale in _written(_DECADE.sub(" ; ", text))
        if (scaled or number) not in given and not (number in given and _YEAR.fullmatch(number))
    }
    shares = {number for number in numbers & in_per_cent(text) if f"{number} %" in given}
    return sorted((numbers - shares) | (decades - given))


def _decade_names(match: re.Match[str]) -> list[str]:
    """Return the names of a decade, first the one that is written: 1990er and 90er."""
    if century := match.group("century"):
        return [f"{century}{match.group('of')}er", f"{match.group('of')}er"]
    decade = int(match.group("short") or _TENS[match.group("word").lower()])
    centuries = (19, 20) if decade <= _RECENT_DECADES else (19,)
    return [f"{decade}er", *(f"{century}{decade}er" for century in centuries)]


def _written(text: str) -> list[tuple[str, str | None, str]]:
    """Return the numbers in digits, each with its value and scale if "Millionen" or so follows."""
    text = _TIME.sub(_time, _NAMES.sub(" ", text))
    text = _YEARS.sub(_both_years, text)
    if "Dutzend" in text:
        text = _DOZENS_COUNTED.sub(lambda match: str(12 * int(match.group())), text)
    if any(sign in text for sign in _FRACTIONS):
        text = _FRACTION.sub(_decimals, text)
    found: list[tuple[str, str | None, str]] = []
    for match in _NUMBER.finditer(text):
        number = _canonical(match.group())
        scale = _scale_behind(match, text)
        scaled = _times(number, _exponent(scale)) if scale else None
        found.append((number, scaled, scale.group().strip(" \n\t\u00a0\u202f-") if scale else ""))
    return found


def _with_shared_scales(text: str) -> Iterator[str]:
    """Yield values whose scale stands behind a later number, or above a table."""
    tables = {_exponent(match) for match in _TABLE_SCALE.finditer(text)}
    exponent: int | None = None
    following = len(text)
    for match in reversed(list(_NUMBER.finditer(text))):
        scale = _scale_behind(match, text)
        if scale:
            exponent = _exponent(scale)
        elif exponent is not None and not _shares(text[match.end() : following]):
            exponent = None
        following = match.start()
        for power in tables | ({exponent} if exponent is not None else set()):
            if value := _times(_canonical(match.group()), power):
                yield value


def _shares(gap: str) -> bool:
    return len(gap) <= _LONGEST_GAP and _SHARED_SCALE.fullmatch(_FOR_WHAT.sub("", gap)) is not None


def _scaled_words(text: str) -> Iterator[str]:
    """Yield the values of "zwei Millionen", "eine halbe Million" and the like, in small letters."""
    for match in _SCALED_WORDS.finditer(text):
        for word in (match.group("from"), match.group("number")):
            number = _count(word) if word else None
            if number:
                yield number
                if value := _times(number, _exponent(match)):
                    yield value


def _in_words(text: str) -> Iterator[str]:
    """Yield the values of number words, in small letters: zwölf, anderthalb, zwei Dutzend."""
    if "dutzend" in text:
        for match in _DOZENS.finditer(text):
            yield from _dozens(match)
        text = _DOZENS.sub(" ; ", text)
    for word in set(_WORD.findall(text)):
        value = _value(word)
        if value is not None:
            yield str(value)
        elif "halb" in word and (half := _half(word)):
            yield half
    if "hundert" in text or "tausend" in text:
        firsts = (_value("".join(match.groups())) for match in _SHARED_END.finditer(text))
        yield from (str(value) for value in firsts if value is not None)


def _half(word: str) -> str | None:
    match = _HALF.fullmatch(word)
    if match is None or (match.group("tail") and not _TAILS.fullmatch(match.group("tail"))):
        return None
    if match.group("more"):
        return "1.5"
    if match.group("whole") is None:
        return "0.5"
    value = _value(match.group("whole"))
    return None if value is None else f"{value}.5"


def _dozens(match: re.Match[str]) -> Iterator[str]:
    if match.group("half"):
        yield "6"
        return
    for count in (match.group("from"), match.group("count")):
        if count == "anderthalb":
            yield "18"
        elif count in _ONE_DOZEN:
            yield "12"
        elif count and (value := int(count) if count.isdecimal() else _value(count)):
            yield str(12 * value)


def _count(word: str) -> str | None:
    """Return what a word before "Millionen" counts: 1 for "eine", 2.5 for "zweieinhalb"."""
    if "halb" in word:
        return _half(word)
    value = 1 if re.fullmatch("eine[rn]?", word) else _value(word)
    return None if value is None else str(value)


def _both_years(match: re.Match[str]) -> str:
    century, year, following = match.groups()
    return f"{century}{year}/{century}{following}" if following > year else match.group()


def _decimals(match: re.Match[str]) -> str:
    return f"{match.group(1) or 0},{_FRACTIONS[match.group(2)]}"


def _time(match: re.Match[str]) -> str:
    hours, minutes = match.groups()
    return hours if minutes == "00" else f"{hours}:{minutes}"


def _scale_behind(number: re.Match[str], text: str) -> re.Match[str] | None:
    if scale := _SCALE.match(text, number.end()):
        return scale
    if _CURRENCY.search(text, max(0, number.start() - 2), number.start()):
        return _SHORT_SCALE.match(text, number.end())
    return None


def _exponent(scale: re.Match[str]) -> int:
    word = scale.group("scale")
    # In small letters it is English. Without case, "ſ" and "ı" match too.
    return _ENGLISH_BILLION if word == "billion" else _SCALES[folded(word.casefold())]


def _times(number: str, exponent: int) -> str | None:
    """Return a number times a power of ten, or nothing if decimals are left."""
    whole, _, decimals = number.partition(".")
    zeros = exponent - len(decimals)
    return _canonical(whole + decimals + "0" * zeros) if zeros >= 0 else None


def _canonical(number: str) -> str:
    if _GROUPED.fullmatch(number):
        number = re.sub(r"[.\u00a0\u202f]", "", number)
    whole, _, decimals = number.replace(",", ".").partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")


@lru_cache(maxsize=8192)
def _value(word: str) -> int | None:
    """Return the value of a number written out, of an ordinal, or of "dreijährig"."""
    if len(word) > _LONGEST_NUMBER_WORD:
        return None
    # An ending is cut off; the longest number that is left counts.
    for end in range(len(word), 2, -1):
        if end == len(word) or _TAILS.fullmatch(word, end):
            value = _cardinal(word[:end])
            if value is not None and (value != 1 or end == len(word) or word[:end] != "ein"):
                return value
    return None


def _cardinal(word: str) -> int | None:
    thousands, mark, rest = word.partition("tausend")
    if mark:
        above, below = _below_thousand(thousands or "ein"), _below_thousand(rest) if rest else 0
        return None if above is None or below is None else 1000 * above + below
    return _below_thousand(word)


def _below_thousand(word: str) -> int | None:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    hundreds, mark, rest = word.partition("hundert")
    if not mark:
        return _BELOW_HUNDRED.get(word)
    rest = rest.removeprefix("und")
    above, below = _BELOW_HUNDRED.get(hundreds or "ein"), _BELOW_HUNDRED.get(rest) if rest else 0
    return None if above is None or below is None else 100 * above + below
