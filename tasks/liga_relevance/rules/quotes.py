"""The rule on quotes: what stands in quotation marks stands in the article, word for word.

A passage of one or two words is a name, a term or an irony of the writer, and goes unjudged unless
it is surely speech: „Skandal“, sagt sie. A passage that is never closed goes as far as its
sentence, or as far as the verb of speech that follows it.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt
from tasks.liga_relevance.words import FUNCTION_WORDS, word_set, words_of

# Which marks close a passage that the first one opens: German „…“ ‚…‘ »…« ›…‹, Swiss «…» ‹…›,
# English “…” ‘…’, the typewriter's, and what hands mix up.
_CLOSING = {
    "„": '“”"',
    "»": "«",
    "«": "»",
    "“": "”“",
    '"': '"“”',
    "”": "”",
    "‚": "‘’'",
    "›": "‹",
    "‹": "›",
    "‘": "’'",
    "'": "'‘’",
}
_MARKS = re.compile(f"[{''.join(sorted(set(''.join(_CLOSING) + ''.join(_CLOSING.values()))))}]")
_SINGLE = "‚‘’‹›'"
_ONLY_OPENING = "„‚"  # no other use in German: whatever stands around them
_GUILLEMETS = "»«"  # the French set them apart with spaces
_ELISION = re.compile(r"(?:s|n|ne|nen|ner|nem|m|rum|rein|raus|rauf|runter|ran)\b|\d")
# A cut or an insertion; before and after it the passage must be the article's.
_CUTS = re.compile(r"\[[^\[\]]{0,200}\]|\((?:…|\.\.\.)\)|…|\.\.\.")
_LEAST_WORDS = 3  # "Gute-Kita-Gesetz" is one: a term, however long
_WORD = re.compile(r"\w\S*")
_VERB = (
    r"(?:(?:sag|mein|beton|klag|warn|forder|ergänz|kritisier|antworte|berichte|resümier|schimpf)"
    r"t(?:e|en)?|erklär(?:t|te|ten)|erläuter(?:t|te|ten)|rief|ruft|rufen)"
)
_SPOKEN_AFTER = re.compile(rf"\s?,?\s*{_VERB}\b")
_SPOKEN_BEFORE = re.compile(rf"\b{_VERB}\b[^.!?:„\"]{{0,60}}:\s*$")
_SENTENCE_START = re.compile(r"(?:^|[.!?:–]\s+|\n\s*)$")
# Between two parts of one speech: „Wir helfen“, sagte Otto. „Aber uns fehlt Geld.“
_INQUIT = re.compile(
    rf"[“”«\"],?\s?(?:{_VERB}|so|(?:hielt|hält|fuhr|fährt|fügt|fügte|setzt|setzte|sprach"
    r"|spricht|schrieb|schreibt|verwies|verweist|begründet|begründete|stellt|stellte)\b)"
    r"[^.!?„“”»«\"]{0,80}[.:]?\s?[„“»«\"]"
)
_MOST_INFLECTED = 5  # words of a passage: more are somebody's sentence, or
_HEAD = 3  # words of a longer part of one: what depends on these keeps its case
_SENTENCE_END = re.compile(r"[.!?]\W*$")
_LEAST_LETTERS = 4
_LEAST_STEM = 3
_ENDING = re.compile(r"(?:e[nrsm]?|n|s)$")
_ARTICLE = re.compile(r"d(?:er|ie|as|e[mns])")
# Of the words that are no nouns or adjectives, those that are declined like one.
_DECLINED = word_set(
    """
    ein eine einen einem einer eines kein keine keinen keinem keiner alle allen aller viele vielen
    wenige einige mehrere manche solche beide beiden andere anderen mein meine sein seine seinen
    seiner seinem ihre ihren ihrem ihrer unser unsere unseren unserer
    """
)
_MOST_UNCLOSED = 20  # of a text are judged: where there are more, some of these are found
_LONGEST_SENTENCE = 400  # characters of an unclosed passage that are looked at
_UNCLOSED_TERM = re.compile(rf"\s*\w\S*(?: \w\S*)?(?<=,)(?!\s*{_VERB}\b)")
_UNCLOSED_END = re.compile(rf"[.!?](?=\s|$)|\n|[,–-]?\s+{_VERB}\b")


class Passage(NamedTuple):
    """What stands in quotation marks, the marks not included: `text[start:end]`."""

    start: int
    end: int
    closed: bool


@lru_cache(maxsize=16)
def quotes_in(text: str) -> tuple[Passage, ...]:
    """Return what stands in quotation marks, in order of its start.

    A mark inside of a closed passage belongs to it. An opening mark without a closing one ahead,
    or with another of its own kind before that, was never closed; an apostrophe opens nothing.
    """
    return tuple(_quotes(text))


def _quotes(text: str) -> Iterator[Passage]:
    marks = [(mark.group(), mark.start()) for mark in _MARKS.finditer(text)]
    hopeless: set[str] = set()  # nothing ahead closes them, so nobody looks again
    index = 0
    while index < len(marks):
        sign, place = marks[index]
        index += 1
        if not _may_open(text, place):
            continue
        ahead = None if sign in hopeless else _closing(text, marks, index, sign)
        if ahead is not None and marks[ahead][0] in _CLOSING[sign]:
            yield Passage(place + 1, marks[ahead][1], closed=True)
            index = ahead + 1
            continue
        if ahead is None:
            hopeless.add(sign)
        if sign not in "'‘" and not text[place + 1 : place + 2].isspace():
            yield Passage(place + 1, len(text), closed=False)


def without_quotes(text: str) -> str:
    """Return `text` without what stands in closed quotation marks."""
    kept, end = [], 0
    for passage in quotes_in(text):
        if passage.closed:
            kept.append(text[end : passage.start])
            end = passage.end
    return "".join([*kept, text[end:]])


def _closing(text: str, marks: list[tuple[str, int]], index: int, sign: str) -> int | None:
    """Return which of the marks closes `sign`, or opens the same anew; None if none is left."""
    for ahead in range(index, len(marks)):
        found, place = marks[ahead]
        if found in _CLOSING[sign] and _may_close(text, place):
            return ahead
        if found == sign and sign in _ONLY_OPENING:
            return ahead
    return None


def _may_open(text: str, place: int) -> bool:
    sign, before, after = text[place], text[place - 1 : place], text[place + 1 : place + 2]
    if sign not in _CLOSING or before.isalnum():
        return False
    if sign in _ONLY_OPENING or (sign in _GUILLEMETS and (not before or before.isspace())):
        return True
    if sign == "'" and _ELISION.match(text, place + 1):
        return False
    return after.isalnum() or (after != "" and after in "„“\"»«‚‘›‹'[…(")


def _may_close(text: str, place: int) -> bool:
    """Return whether a mark can close a passage: a single one in a word is an apostrophe."""
    if text[place] not in _SINGLE:
        return True
    return not text[place - 1].isspace() and not text[place + 1 : place + 2].isalnum()


def _ungrounded_quote(case: Case) -> Findings:
    given = [f" {' '.join(case.words)} "]
    if (speech := _INQUIT.sub(" ", case.shown)) != case.shown:
        given.append(f" {' '.join(words_of(speech))} ")
    for name, text in case.claims:
        unclosed = 0
        for passage in quotes_in(text):
            unclosed += not passage.closed
            quoted = _judged(text, passage) if unclosed <= _MOST_UNCLOSED else ""
            if quoted and not any(_occurs(quoted, told) for told in given):
                yield f"{name} {excerpt(quoted)}"


def _judged(text: str, passage: Passage) -> str:
    """Return the part of a passage that must be the article's; empty where it is no quote."""
    start, end, closed = passage
    if not closed:
        return _sentence(text[start : start + _LONGEST_SENTENCE])
    quoted = text[start:end]
    if len(_WORD.findall(quoted[:_LONGEST_SENTENCE])) >= _LEAST_WORDS or _spoken(text, passage):
        return quoted
    return ""


def _sentence(text: str) -> str:
    """Return the first sentence of a passage without end, with the next ones if it is short."""
    if _UNCLOSED_TERM.match(text):
        return ""
    ends = [*(end.start() for end in _UNCLOSED_END.finditer(text)), len(text)]
    for end in ends:
        if len(_WORD.findall(text[:end])) >= _LEAST_WORDS:
            return text[:end] if end < _LONGEST_SENTENCE else text.rpartition(" ")[0]
    return ""


def _spoken(text: str, passage: Passage) -> bool:
    """Return whether a passage is surely speech: „Endlich“, sagt sie. Sie sagt: „Endlich.“."""
    opening = text[max(0, passage.start - 90) : passage.start - 1]
    if _SPOKEN_BEFORE.search(opening):
        return True
    comma = text[passage.end + 1 : passage.end + 3].lstrip().startswith(",")
    ended = comma or text[passage.end - 1] in ",!?"
    starts = _SENTENCE_START.search(opening) is not None
    return starts and ended and _SPOKEN_AFTER.match(text, passage.end + 1) is not None


def _occurs(passage: str, given: str) -> bool:
    """Return whether the parts of a passage stand in `given`, in their order.

    A few words may be inflected as their new sentence wants it, and of a longer part of a sentence
    the first ones.
    """
    words = words_of(passage)
    if not _CUTS.search(passage):
        long = len(words) > _MOST_INFLECTED
        free = 0 if long and _SENTENCE_END.search(passage) else _HEAD if long else len(words)
        start = "".join(f" {_inflected(word)}" for word in words[:free])
        rest = "".join(f" {word}" for word in words[free:]) + " "
        if not free:
            return rest in given
        return any(given.startswith(rest, m.end()) for m in re.finditer(start, given))
    position = 0
    for part in _CUTS.split(passage):
        words = words_of(part)
        if not words:
            continue
        position = given.find(f" {' '.join(words)} ", position)
        if position < 0:
            return False
        position += 1
    return True


def _inflected(word: str) -> str:
    """Return a pattern for a word and its declined forms."""
    if _ARTICLE.fullmatch(word):
        return _ARTICLE.pattern
    declined = len(word) >= _LEAST_LETTERS and word not in FUNCTION_WORDS
    if not declined and word not in _DECLINED:
        return word
    stem = _ENDING.sub("", word)
    stem = f"(?:{stem}|{word})" if len(stem) >= _LEAST_STEM and stem != word else word
    return rf"{stem}(?:e[nrsm]?|n|s)?"


UNGROUNDED_QUOTE = Rule(
    "ungrounded-quote",
    "error",
    "Ein Zitat steht so nicht im Artikel; zitiere wörtlich oder lass die Anführungszeichen weg",
    _ungrounded_quote,
)
