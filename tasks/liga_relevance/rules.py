"""The label rules: what makes a formally valid answer unfit to learn from.

Each rule is a function from an article and its answer to messages; `RULES` gives it its id and
severity. An error bars a label from training, a warning is counted in the label report.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Literal

from tasks.chat import QWEN3
from tasks.definition import Violation
from tasks.liga_relevance.article import CONTENT_LIMIT, Article, user_message
from tasks.liga_relevance.numbers import numbers_in
from tasks.liga_relevance.output import LigaRelevance
from tasks.liga_relevance.sentences import normalised, sentences

Messages = Iterator[str]

# Whole texts that say nothing, and phrases that give a failed analysis away wherever they stand.
_EMPTY_WORDS = re.compile(
    r"(?:n/?a|k\.? ?a\.?|null|none|nan|keine?|leer|unbekannt|todo|xxx|[-–.]+)\.?"
)
_PLACEHOLDERS = re.compile(
    r"(?:zusammenfassung|analyse|begründung|inhalt|angaben?) (?:ist |sind )?nicht verfügbar"
    r"|keine (?:zusammenfassung|analyse|begründung|angaben?|daten) (?:verfügbar|vorhanden|möglich)"
    r"|automatische analyse|lorem ipsum|platzhalter|als (?:ki|sprachmodell)\b"
    r"|\[(?:text|zusammenfassung|analyse|begründung|titel)\]|fehler bei der analyse",
)
_MODAL = r"(?:dürft|könnt|müsst|würd|sollt|möcht)e[nt]?|(?:wird|werden) (?:wohl|vermutlich|wahrscheinlich)"
_LIGA_SPECULATION = re.compile(
    rf"\bliga\b[^.!?]{{0,120}}\b(?:{_MODAL})\b|\b(?:{_MODAL})\b[^.!?]{{0,120}}\bliga\b",
    re.IGNORECASE,
)
_CONJECTURE = re.compile(r"\b(?:dürft|könnt)e[nt]?\b", re.IGNORECASE)
_ELLIPSIS = re.compile(r"(?:…|\.\.\.)[\"“”»)\s]*$")

# Characters of an article that are taken for one sentence where it has little punctuation.
_CHARS_PER_SENTENCE = 130


def check(article: Article, answer: LigaRelevance) -> list[Violation]:
    """Everything that the rules have against `answer` as the label of `article`."""
    return [
        Violation(rule, severity, message)
        for rule, severity, messages in RULES
        for message in messages(article, answer)
    ]


def _control_token(article: Article, answer: LigaRelevance) -> Messages:
    """A tokenizer would read such a text in an article as the end of the user's turn."""
    text = f"{user_message(article)}\n{answer.model_dump_json()}"
    for token in QWEN3.control_tokens:
        if token in text:
            yield f"Steuerzeichen des Modells im Text: {token}"


def _placeholder(article: Article, answer: LigaRelevance) -> Messages:
    for name, text in _texts(answer):
        folded = text.strip().casefold()
        if _EMPTY_WORDS.fullmatch(folded) or _PLACEHOLDERS.search(folded):
            yield f"{name} ist ein Platzhalter: {text[:80]!r}"


def _liga_speculation(article: Article, answer: LigaRelevance) -> Messages:
    for name, text in _texts(answer):
        if name != "tags" and (found := _LIGA_SPECULATION.search(text)):
            yield f"{name} mutmaßt über die Liga: {found.group()!r}"


def _argument_mood(article: Article, answer: LigaRelevance) -> Messages:
    for argument in answer.argumentationskette:
        if found := _CONJECTURE.search(argument):
            yield f"Argument im Konjunktiv ({found.group()}): {argument[:80]!r}"


def _repeated_sentence(article: Article, answer: LigaRelevance) -> Messages:
    for name, text in (
        ("summary", answer.summary),
        ("detailed_analysis", answer.detailed_analysis),
    ):
        seen: set[str] = set()
        for sentence in sentences(text or ""):
            key = normalised(sentence)
            if key in seen:
                yield f"{name} wiederholt den Satz {sentence[:80]!r}"
            seen.add(key)


def _analysis_equals_summary(article: Article, answer: LigaRelevance) -> Messages:
    summary, analysis = _keys(answer.summary), _keys(answer.detailed_analysis)
    if analysis and analysis <= summary:
        yield "detailed_analysis sagt nur die Sätze der summary noch einmal"


def _shared_sentence(article: Article, answer: LigaRelevance) -> Messages:
    shared = _keys(answer.summary) & _keys(answer.detailed_analysis)
    if shared:
        yield f"{len(shared)} Sätze stehen in summary und detailed_analysis gleich"


def _ellipsis(article: Article, answer: LigaRelevance) -> Messages:
    for name, text in _texts(answer):
        if _ELLIPSIS.search(text):
            yield f"{name} bricht ab: {text[-40:]!r}"


def _too_short(article: Article, answer: LigaRelevance) -> Messages:
    if not answer.relevant:
        return
    counted = len(sentences(_seen(article)))
    size = min(counted, len(_seen(article)) // _CHARS_PER_SENTENCE)
    for name, text, least in (
        ("summary", answer.summary, 4),
        ("detailed_analysis", answer.detailed_analysis, 10),
    ):
        # An article twice as long as the text has enough to give for the full length.
        wanted = max(1, min(least, size // 2))
        if (count := len(sentences(text or ""))) < wanted:
            yield f"{name} hat {count} Sätze, der Artikel gibt {wanted} her"


def _too_long(article: Article, answer: LigaRelevance) -> Messages:
    if not answer.relevant:
        return
    counted = len(sentences(_seen(article)))
    size = max(counted, len(_seen(article)) // _CHARS_PER_SENTENCE)
    for name, text, most, carried in (
        ("summary", answer.summary, 8, max(2, size)),
        ("detailed_analysis", answer.detailed_analysis, 15, max(3, size + 1)),
    ):
        allowed = min(most, carried)
        if (count := len(sentences(text or ""))) > allowed:
            yield f"{name} hat {count} Sätze, der Artikel trägt höchstens {allowed}"


def _ungrounded_number(article: Article, answer: LigaRelevance) -> Messages:
    given = numbers_in(user_message(article))
    for name, text in (
        ("summary", answer.summary),
        ("detailed_analysis", answer.detailed_analysis),
    ):
        for number in sorted(numbers_in(text or "", words=False) - given):
            yield f"{name} nennt {number}, der Artikel nicht"


def _ungrounded_argument(article: Article, answer: LigaRelevance) -> Messages:
    given = numbers_in(user_message(article))
    for number in sorted(numbers_in(" ".join(answer.argumentationskette), words=False) - given):
        yield f"ein Argument nennt {number}, der Artikel nicht"


def _argument_count(article: Article, answer: LigaRelevance) -> Messages:
    if answer.relevant and len(answer.argumentationskette) < 2:
        yield f"{len(answer.argumentationskette)} Argumente statt mindestens 2"


def _missing_priority(article: Article, answer: LigaRelevance) -> Messages:
    if answer.relevant and answer.priority is None:
        yield "relevant, aber ohne priority"


def _score_side(article: Article, answer: LigaRelevance) -> Messages:
    if answer.relevant != (answer.relevance_score >= 0.5):
        yield f"relevance_score {answer.relevance_score} passt nicht zu relevant={answer.relevant}"


def _reasoning_length(article: Article, answer: LigaRelevance) -> Messages:
    if (count := len(sentences(answer.reasoning))) > 3:
        yield f"reasoning hat {count} Sätze statt höchstens 3"


def _no_tags(article: Article, answer: LigaRelevance) -> Messages:
    if not answer.tags:
        yield "keine Schlagworte"


def _seen(article: Article) -> str:
    """What the model gets to see of the article's text."""
    return article.content[:CONTENT_LIMIT] or article.title


def _texts(answer: LigaRelevance) -> Iterator[tuple[str, str]]:
    single = (
        ("summary", answer.summary),
        ("detailed_analysis", answer.detailed_analysis),
        ("reasoning", answer.reasoning),
    )
    return chain(
        ((name, text) for name, text in single if text is not None),
        (("argumentationskette", text) for text in answer.argumentationskette),
        (("tags", text) for text in answer.tags),
    )


def _keys(text: str | None) -> set[str]:
    return {normalised(sentence) for sentence in sentences(text or "")}


Rule = Callable[[Article, LigaRelevance], Messages]
RULES: tuple[tuple[str, Literal["error", "warning"], Rule], ...] = (
    ("control-token", "error", _control_token),
    ("placeholder", "error", _placeholder),
    ("liga-speculation", "error", _liga_speculation),
    ("argument-mood", "error", _argument_mood),
    ("repeated-sentence", "error", _repeated_sentence),
    ("analysis-equals-summary", "error", _analysis_equals_summary),
    ("shared-sentence", "warning", _shared_sentence),
    ("ellipsis", "error", _ellipsis),
    ("too-short", "error", _too_short),
    ("too-long", "error", _too_long),
    ("ungrounded-number", "error", _ungrounded_number),
    ("ungrounded-argument", "warning", _ungrounded_argument),
    ("argument-count", "error", _argument_count),
    ("missing-priority", "error", _missing_priority),
    ("score-side", "error", _score_side),
    ("reasoning-length", "warning", _reasoning_length),
    ("no-tags", "warning", _no_tags),
)
