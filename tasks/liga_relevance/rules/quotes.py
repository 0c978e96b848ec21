"""The rule on quotes: what stands in quotation marks stands in the article, word for word."""

import re
from collections.abc import Iterator

from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt
from tasks.liga_relevance.words import words_of

# Which marks close a passage that the first one opens. German „…“, »…«, Swiss «…», English “…”,
# and the typewriter's. Single ones also are apostrophes; they are not looked at.
_CLOSING = {"„": '“”"', "»": "«", "«": "»", "“": "”“", '"': '"“”', "”": "”"}
_MARKS = re.compile(f"[{''.join(sorted(set(''.join(_CLOSING) + ''.join(_CLOSING.values()))))}]")
# A cut or an insertion; before and after it the passage must be the article's.
_CUTS = re.compile(r"\[[^\[\]]{0,200}\]|\((?:…|\.\.\.)\)|…|\.\.\.")
_LEAST_WORDS = 3
"""Fewer can be a name, a term or an irony of the writer."""


def quotes_in(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of what stands in quotation marks, the marks not included.

    A mark inside of a passage that does not close it belongs to it; one that is never closed
    opens none.
    """
    start, closing = 0, ""
    for mark in _MARKS.finditer(text):
        if closing and mark.group() in closing:
            yield start, mark.start()
            closing = ""
        elif not closing and mark.group() in _CLOSING:
            start, closing = mark.end(), _CLOSING[mark.group()]


def without_quotes(text: str) -> str:
    """Return `text` without what stands in quotation marks."""
    kept, end = [], 0
    for start, stop in quotes_in(text):
        kept.append(text[end:start])
        end = stop
    return "".join([*kept, text[end:]])


def _ungrounded_quote(case: Case) -> Findings:
    given = f" {' '.join(case.words)} "
    for name, text in case.claims:
        for start, end in quotes_in(text):
            passage = text[start:end]
            if len(words_of(passage)) >= _LEAST_WORDS and not _occurs(passage, given):
                yield f"{name} {excerpt(passage)}"


def _occurs(passage: str, given: str) -> bool:
    """Return whether the parts of a passage stand in `given`, in their order."""
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


UNGROUNDED_QUOTE = Rule(
    "ungrounded-quote",
    "error",
    "Ein Zitat steht so nicht im Artikel; zitiere wörtlich oder lass die Anführungszeichen weg",
    _ungrounded_quote,
)
