"""Numbers in German text, brought to one form so that they can be looked up."""

import re

# 1.200 and 1 200 are groups of thousands; 3,5 and 12.30 are decimals or times.
_NUMBER = re.compile(r"(?<!\w)\d{1,3}(?:[.\u00a0\u202f]\d{3})+(?:,\d+)?(?!\d)|\d+(?:[.,]\d+)*")
_UP_TO_TWENTY = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn "
    "fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig"
)
_WORDS = {word: str(value) for value, word in enumerate(_UP_TO_TWENTY.split())} | {
    "dreißig": "30",
    "vierzig": "40",
    "fünfzig": "50",
    "sechzig": "60",
    "hundert": "100",
    "tausend": "1000",
}
_WORD = re.compile(r"[a-zäöüß]+")
# Names of the task itself, not figures of an article.
_NAMES = re.compile(r"\bAK ?[1-5]\b")


def numbers_in(text: str, *, words: bool = True) -> set[str]:
    """Return the numbers in `text`: digits only, "." before decimals, no leading zeros.

    With `words`, small numbers written out count too. The parts of a date or a time stand beside
    the whole, so that "2026-03-01" also gives 2026, 3 and 1.
    """
    found: set[str] = set()
    for match in _NUMBER.findall(_NAMES.sub(" ", text)):
        found.add(_canonical(match))
        if words:
            found.update(_canonical(part) for part in re.findall(r"\d+", match))
    if words:
        found.update(_WORDS[word] for word in _WORD.findall(text.casefold()) if word in _WORDS)
    return found


def _canonical(number: str) -> str:
    if re.fullmatch(r"\d{1,3}(?:[.\u00a0\u202f]\d{3})+(?:,\d+)?", number):
        number = re.sub(r"[.\u00a0\u202f]", "", number)
    whole, _, decimals = number.replace(",", ".").partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")
