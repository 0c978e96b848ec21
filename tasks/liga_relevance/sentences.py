"""Splitting German prose into sentences, well enough to count and to compare them.

A sentence ends at . ! ? … (and quotes or brackets that close there) before white space and a
character that can open a sentence, or at a line break. Not an end: the dots of common
abbreviations, of ordinals before a lower-case word or a month, and of initials. Known limits: an
ordinal at the true end of a sentence joins it with the next; a heading counts as a sentence.
"""

import re

_ABBREVIATIONS = (
    "z. B.|z.B.|d. h.|d.h.|u. a.|u.a.|i. d. R.|o. ä.|o.ä.|bzw.|ca.|etwa.|inkl.|zzgl.|ggf.|evtl.|"
    "vgl.|sog.|Abs.|Art.|Nr.|Dr.|Prof.|Hl.|St.|Str.|Mio.|Mrd.|Tsd.|Std.|Min.|rd.|max.|min.|Kfz."
)
_MONTHS = (
    "Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember|"
    "Jahrhundert|Quartal|Klasse|Etage|Liga|Spieltag|Lebensjahr|Geburtstag"
)
_DOT = "\u0001"  # stands in for a dot that ends nothing
_PROTECTED = re.compile(
    rf"\b(?:{'|'.join(re.escape(a) for a in _ABBREVIATIONS.split('|'))})"
    rf"|\b\d{{1,2}}\.(?=\s+(?:[a-zäöü]|{_MONTHS}))"
    r"|\b[A-ZÄÖÜ]\.(?=\s*[A-ZÄÖÜ])"
)
_END = re.compile(r"(?<=[.!?…])[\"“”»«’')\]]*(?=\s+[\"„“»«‚'(\[]*[A-ZÄÖÜ0-9#@])\s+|\s*\n\s*")
_WORDS = re.compile(r"\w+")


def sentences(text: str) -> list[str]:
    """Return the sentences of `text` in order, without those that hold no letter or digit."""
    protected = _PROTECTED.sub(lambda match: match.group().replace(".", _DOT), text)
    pieces = (piece.replace(_DOT, ".").strip() for piece in _split(protected))
    return [piece for piece in pieces if _WORDS.search(piece)]


def normalised(sentence: str) -> str:
    """Return a sentence's words only: case and punctuation must not hide a repetition."""
    return " ".join(_WORDS.findall(sentence.casefold()))


def _split(text: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    for match in _END.finditer(text):
        pieces.append(text[start : match.end()])
        start = match.end()
    return [*pieces, text[start:]]
