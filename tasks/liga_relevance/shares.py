"""Shares that a German text gives in words, as the per cent that they are.

"Jedes vierte Kind" and "ein Viertel der Kinder" are 25 per cent of them, and so may an answer say.
"""

import re
from collections.abc import Iterator

# How many parts there are of what, by the word without its ending: "ein Dritt-el", "jede dritt-e".
_PARTS = {
    "zweit": 2,
    "dritt": 3,
    "viert": 4,
    "fünft": 5,
    "sechst": 6,
    "siebt": 7,
    "acht": 8,
    "neunt": 9,
    "zehnt": 10,
    "zwanzigst": 20,
}
_COUNTS = {"ein": 1, "zwei": 2, "drei": 3, "vier": 4, "fünf": 5, "sieben": 7, "neun": 9}
_SHARE = re.compile(
    rf"\bjede[mnrs]? (?P<each>{'|'.join(_PARTS)})e[nrs]?\b"
    rf"|\b(?P<count>{'|'.join(_COUNTS)})(?:e[ms])?\s?(?:(?:gut|knapp|voll)(?:e[ns]?)? )?"
    rf"(?P<part>{'|'.join(_PARTS)})el[ns]?\b"
    r"|(?P<half>\bhälfte\b|\bhalbier)",
    re.IGNORECASE,
)
_PER_CENT = re.compile(r"(?<![\d.,])(\d{1,3}(?:[.,]\d{1,2})?)\s?(?:%|prozent)", re.IGNORECASE)


def shares_in(text: str) -> Iterator[str]:
    """Yield the shares that `text` gives in words: "33 %" and "33.3 %" for "ein Drittel"."""
    for match in _SHARE.finditer(text):
        of, count = 2, 1
        if each := match.group("each"):
            of = _PARTS[each.lower()]
        elif part := match.group("part"):
            of, count = _PARTS[part.lower()], _COUNTS[match.group("count").lower()]
        share = 100 * count / of
        if share <= 100:
            yield from {f"{value:g} %" for value in (int(share), round(share), round(share, 1))}


def in_per_cent(text: str) -> frozenset[str]:
    """Return the numbers in digits before "Prozent" or "%", with "." before decimals."""
    return frozenset(f"{float(n.replace(',', '.')):g}" for n in _PER_CENT.findall(text))
