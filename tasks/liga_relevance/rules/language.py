"""The rule on language: an answer is German, whatever the language of its article.

A text is judged as a whole if it is long enough for a language model, and sentence by sentence by
its words (tasks/liga_relevance/foreign.py): a short answer in English is one as well.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any

from tasks.liga_relevance.foreign import (
    GERMAN_ONLY,
    is_english,
    is_of_neighbours,
    may_be_foreign,
)
from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt
from tasks.liga_relevance.rules.quotes import without_quotes
from tasks.liga_relevance.sentences import sentences
from tasks.liga_relevance.words import words_of

_LEAST_CHARS = 60
"""The language model judges no shorter text: a few names can make any language of it."""
_PLAINLY_GERMAN = 0.25
"""Share of words that only German has so; German prose has 35 to 50 %, other languages under 10."""
_SURE = 0.999
"""Probability of another language from which on it is believed."""
_SURE_OF_SENTENCE = 0.99
"""The same of a sentence that has no German word."""
_MOST_SENTENCES = 60
"""Of a text are judged one by one: more have no answer of use."""
_MOST_CHARS = 2000
"""What is looked at: a page is as good as a book."""
_LETTER = re.compile(r"[^\W\d_]")
# Those that a German news text can plausibly be mistaken for stay out: lb, als, nds, af.
_LANGUAGES = ("de", "en", "fr", "es", "it", "pt", "nl", "pl", "tr", "ru", "uk", "ar", "zh", "ro")


def _not_german(case: Case) -> Findings:
    shown = set(case.shown)
    for name, text in case.texts:
        if foreign := _foreign_letters(text, shown):
            yield f"{name} mit den Zeichen {excerpt(foreign)}"
    # Arguments are short: one by one they would never be judged.
    arguments = " ".join(case.answer.argumentationskette)
    for name, text in (
        *case.prose,
        ("reasoning", case.answer.reasoning),
        ("argumentationskette", arguments),
    ):
        own = without_quotes(text)[:_MOST_CHARS]
        if len(own) >= _LEAST_CHARS and (language := _other_language(own)):
            yield f"{name} ({language}) {excerpt(own)}"
    for name, sentence in _own_sentences(case):
        if is_english(sentence) or _is_foreign(sentence):
            yield f"{name} {excerpt(sentence)}"


def _own_sentences(case: Case) -> Iterator[tuple[str, str]]:
    """Yield the sentences of all texts by name, without what they quote."""
    for name, text, whole in (
        ("summary", case.answer.summary or "", case.summary),
        ("detailed_analysis", case.answer.detailed_analysis or "", case.analysis),
        ("reasoning", case.answer.reasoning, case.reasoning),
        ("argumentationskette", "\n".join(case.answer.argumentationskette), case.arguments),
    ):
        own = without_quotes(text)
        found = whole if own == text else sentences(own)
        yield from ((name, sentence[:_MOST_CHARS]) for sentence in found[:_MOST_SENTENCES])


def _is_foreign(sentence: str) -> bool:
    if is_of_neighbours(sentence):
        return True
    if not may_be_foreign(sentence):
        return False
    language, probability = _identifier().classify(sentence)
    return bool(language != "de" and probability >= _SURE_OF_SENTENCE)


def _foreign_letters(text: str, shown: set[str]) -> str:
    """Return the letters of another script that the article has not: a model slipping into it."""
    letters = set(_LETTER.findall(text)) - shown
    return "".join(sorted(x for x in letters if not _is_latin(x)))[:20]


def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith(("LATIN", "MODIFIER"))


def _other_language(text: str) -> str:
    """Return the code of the language that a text is surely in, empty for German or in doubt."""
    words = words_of(text)
    if sum(word in GERMAN_ONLY for word in words) >= _PLAINLY_GERMAN * len(words):
        return ""
    language, probability = _identifier().classify(text)
    return str(language) if language != "de" and probability >= _SURE else ""


@cache
def _identifier() -> Any:
    # Takes half a second and numpy, and hardly any answer needs it.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LANGUAGES)
    return identifier


NOT_GERMAN = Rule(
    "not-german", "error", "Ein Text ist nicht auf Deutsch; antworte nur auf Deutsch", _not_german
)
