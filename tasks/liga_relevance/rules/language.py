"""The rule on language: an answer is German, whatever the language of its article."""

import re
import unicodedata
from functools import cache
from typing import Any

from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt
from tasks.liga_relevance.rules.quotes import without_quotes
from tasks.liga_relevance.words import FUNCTION_WORDS, word_set, words_of

_LEAST_CHARS = 60
"""A shorter text is not judged: a few names can make any language of it."""
_PLAINLY_GERMAN = 0.25
"""Share of words that only German has so; German prose has 35 to 50 %, other languages under 10."""
_SURE = 0.999
"""Probability of another language from which on it is believed."""
_MOST_CHARS = 2000
"""What is looked at: a page is as good as a book."""
_LETTER = re.compile(r"[^\W\d_]")
# Shared with other languages, so they prove nothing.
_ALSO_FOREIGN = word_set(
    """
    in an am war hat so die man also will warum des er
    """
)
_GERMAN_ONLY = FUNCTION_WORDS - _ALSO_FOREIGN
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


def _foreign_letters(text: str, shown: set[str]) -> str:
    """Return the letters of another script that the article has not: a model slipping into it."""
    letters = set(_LETTER.findall(text)) - shown
    return "".join(sorted(x for x in letters if not _is_latin(x)))[:20]


def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith(("LATIN", "MODIFIER"))


def _other_language(text: str) -> str:
    """Return the code of the language that a text is surely in, empty for German or in doubt."""
    words = words_of(text)
    if sum(word in _GERMAN_ONLY for word in words) >= _PLAINLY_GERMAN * len(words):
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
