"""Numbers in German text, brought to one form so that they can be looked up."""

import re
from functools import lru_cache

# 1.200 and 1 200 are groups of thousands; 3,5 is a decimal.
_NUMBER = re.compile(r"(?<!\w)\d{1,3}(?:[.\u00a0\u202f]\d{3})+(?:,\d+)?(?!\d)|\d+(?:[.,]\d+)*")
_GROUPED = re.compile(r"\d{1,3}(?:[.\u00a0\u202f]\d{3})+(?:,\d+)?")
# Thousands in an English article, or with plain spaces: "1 250" can be two numbers as well.
_MAYBE_GROUPED = re.compile(r"\b[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)\b")
_SCALES = {"tsd": 3, "tausend": 3, "mio": 6, "million": 6, "mrd": 9, "milliarde": 9}
_SCALE = re.compile(r"\s{0,3}(tsd|tausend|mio|million|mrd|milliarde)", re.IGNORECASE)
# 12.30 Uhr and 12:30 Uhr are one time, and 14.00 Uhr is 14 Uhr.
_TIME = re.compile(r"\b(\d{1,2})[.:](\d{2})(?=\s{0,3}Uhr)")
_WORD = re.compile(r"[a-zäöüß]+")
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
_IRREGULAR = {"null": 0, "dutzend": 12, "erst": 1, "dritt": 3, "siebt": 7, "acht": 8}
# What a number word can be the beginning of: dreijährig, vierköpfig, zweimal, zwanzigster.
_TAILS = re.compile(
    r"(?:jährig|köpfig|mal|fach|stündig|tägig|monatig|wöchig|stellig|stöckig|gruppig|er)"
    r"(?:e[nrsm]?)?|s?te[nrsm]?|tel|e[nrsm]?"
)
_LONGEST_NUMBER_WORD = 60


def numbers_in(text: str, *, words: bool = True) -> set[str]:
    """Return the numbers in `text`: digits only, "." before decimals, no leading zeros.

    With `words`, numbers written out and ordinals count too, and the parts of a date or a time
    stand beside the whole, so that "2026-03-01" also gives 2026, 3 and 1.
    """
    found: set[str] = set()
    for number, scaled in _written(text):
        found.add(number)
        if scaled and words:
            found.add(scaled)
    if words:
        found.update(_canonical(part) for part in re.findall(r"\d+", text))
        found.update(re.sub(r"\D", "", m) for m in _MAYBE_GROUPED.findall(text))
        values = (_value(word) for word in set(_WORD.findall(text.casefold())))
        found.update(str(value) for value in values if value is not None)
    return found


def ungrounded(text: str, given: set[str]) -> list[str]:
    """Return the numbers of `text` that are not among those that `numbers_in` found elsewhere.

    "1,2 Millionen" may stand for 1.200.000.
    """
    return sorted({n for n, scaled in _written(text) if n not in given and scaled not in given})


def _written(text: str) -> list[tuple[str, str | None]]:
    """Return the numbers in digits, each with its value where "Millionen" or the like follows."""
    text = _TIME.sub(_time, _NAMES.sub(" ", text))
    return [(_canonical(m.group()), _scaled(m, text)) for m in _NUMBER.finditer(text)]


def _time(match: re.Match[str]) -> str:
    hours, minutes = match.groups()
    return hours if minutes == "00" else f"{hours}:{minutes}"


def _scaled(match: re.Match[str], text: str) -> str | None:
    scale = _SCALE.match(text, match.end())
    if scale is None:
        return None
    whole, _, decimals = _canonical(match.group()).partition(".")
    zeros = _SCALES[scale.group(1).lower()] - len(decimals)
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
