"""The label rules: what makes a formally valid answer unfit to learn from.

Each rule is a function from an article with its answer to messages; `RULES` gives it its id and
severity. An error bars a label from training, a warning is counted in the label report.
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from tasks.chat import QWEN3
from tasks.definition import Violation
from tasks.liga_relevance.article import CONTENT_LIMIT, Article, user_message
from tasks.liga_relevance.numbers import numbers_in
from tasks.liga_relevance.output import LigaRelevance
from tasks.liga_relevance.sentences import normalised, sentences

Messages = Iterator[str]

# Whole texts that say nothing, and phrases that give a failed analysis away wherever they stand.
_EMPTY_WORDS = re.compile(
    r"(?:n/?a|k\.? ?a\.?|null|none|nan|keine?|leer|unbekannt|platzhalter|todo|xxx|[-–.]+)\.?"
)
_FIELD = r"(?:zusammenfassung|analyse|begründung|inhaltsangabe)"
_PLACEHOLDERS = re.compile(
    rf"{_FIELD} (?:ist |war )?nicht (?:verfügbar|möglich)"
    rf"|keine {_FIELD} (?:verfügbar|vorhanden|möglich)"
    rf"|fehler bei der {_FIELD}|\[{_FIELD}\]|lorem ipsum|als (?:ki|sprachmodell)\b"
)
# "Die Liga fordert, dass das Land helfen sollte" is a report; "Die Liga sollte helfen" is not.
_GUESS = r"(?:dürft|könnt|möcht)e[nt]?|(?:wird|werden) (?:wohl|vermutlich|wahrscheinlich)"
_ADVICE = r"(?:müsst|sollt|würd)e[nt]?"
_LIGA_SPECULATION = re.compile(
    rf"\bliga\b[^.!?]{{0,120}}\b(?:{_GUESS})\b|\b(?:{_GUESS})\b[^.!?]{{0,120}}\bliga\b"
    rf"|\bliga (?:hessen )?{_ADVICE}\b|\b{_ADVICE} (?:sich )?die liga\b",
    re.IGNORECASE,
)
_CONJECTURE = re.compile(r"\b(?:dürft|könnt)e[nt]?\b", re.IGNORECASE)
_ELLIPSIS = re.compile(r"(?:…|\.\.\.)[\"“”»)\s]*$")

# Characters of an article that are taken for one sentence where it has little punctuation.
_CHARS_PER_SENTENCE = 130


class Case(NamedTuple):
    """An article and the answer that the rules judge."""

    article: Article
    answer: LigaRelevance


def check(article: Article, answer: LigaRelevance) -> list[Violation]:
    """Return everything that the rules have against `answer` as the label of `article`."""
    case = Case(article, answer)
    return [
        Violation(rule, severity, message)
        for rule, severity, messages in RULES
        for message in messages(case)
    ]


def _control_token(case: Case) -> Messages:
    """Refuse what a tokenizer reads as the end of the turn, wherever it stands."""
    text = f"{user_message(case.article)}\n{case.answer.model_dump_json()}"
    for token in QWEN3.control_tokens:
        if token in text:
            yield f"Steuerzeichen des Modells im Text: {token}"


def _placeholder(case: Case) -> Messages:
    for name, text in _texts(case.answer):
        folded = text.strip().casefold()
        if _EMPTY_WORDS.fullmatch(folded) or _PLACEHOLDERS.search(folded):
            yield f"{name} ist ein Platzhalter: {text[:80]!r}"


def _liga_speculation(case: Case) -> Messages:
    for name, text in _texts(case.answer):
        if name != "tags" and (found := _LIGA_SPECULATION.search(text)):
            yield f"{name} mutmaßt über die Liga: {found.group()!r}"


def _argument_mood(case: Case) -> Messages:
    for argument in case.answer.argumentationskette:
        if found := _CONJECTURE.search(argument):
            yield f"Argument im Konjunktiv ({found.group()}): {argument[:80]!r}"


def _repeated_sentence(case: Case) -> Messages:
    for name, text in _prose(case.answer):
        seen: set[str] = set()
        for sentence in sentences(text):
            key = normalised(sentence)
            if key in seen:
                yield f"{name} wiederholt den Satz {sentence[:80]!r}"
            seen.add(key)


def _analysis_equals_summary(case: Case) -> Messages:
    summary, analysis = _keys(case.answer.summary), _keys(case.answer.detailed_analysis)
    if analysis and analysis <= summary:
        yield "detailed_analysis sagt nur die Sätze der summary noch einmal"


def _shared_sentence(case: Case) -> Messages:
    shared = _keys(case.answer.summary) & _keys(case.answer.detailed_analysis)
    if shared:
        yield f"{len(shared)} Sätze stehen in summary und detailed_analysis gleich"


def _ellipsis(case: Case) -> Messages:
    for name, text in _texts(case.answer):
        if _ELLIPSIS.search(text):
            yield f"{name} bricht ab: {text[-40:]!r}"


def _too_short(case: Case) -> Messages:
    if not case.answer.relevant:
        return
    counted = len(sentences(_seen(case.article)))
    size = min(counted, len(_seen(case.article)) // _CHARS_PER_SENTENCE)
    for name, text, least in (
        ("summary", case.answer.summary, 4),
        ("detailed_analysis", case.answer.detailed_analysis, 10),
    ):
        # An article twice as long as the text has enough to give for the full length.
        wanted = max(1, min(least, size // 2))
        if (count := len(sentences(text or ""))) < wanted:
            yield f"{name} hat {count} Sätze, der Artikel gibt {wanted} her"


def _too_long(case: Case) -> Messages:
    if not case.answer.relevant:
        return
    counted = len(sentences(_seen(case.article)))
    size = max(counted, len(_seen(case.article)) // _CHARS_PER_SENTENCE)
    for name, text, most, carried in (
        ("summary", case.answer.summary, 8, max(2, size)),
        ("detailed_analysis", case.answer.detailed_analysis, 15, max(3, size + 1)),
    ):
        allowed = min(most, carried)
        if (count := len(sentences(text or ""))) > allowed:
            yield f"{name} hat {count} Sätze, der Artikel trägt höchstens {allowed}"


def _ungrounded_number(case: Case) -> Messages:
    given = numbers_in(user_message(case.article))
    for name, text in _prose(case.answer):
        for number in sorted(numbers_in(text, words=False) - given):
            yield f"{name} nennt {number}, der Artikel nicht"


def _ungrounded_argument(case: Case) -> Messages:
    given = numbers_in(user_message(case.article))
    for number in sorted(
        numbers_in(" ".join(case.answer.argumentationskette), words=False) - given
    ):
        yield f"ein Argument nennt {number}, der Artikel nicht"


def _argument_count(case: Case) -> Messages:
    if case.answer.relevant and len(case.answer.argumentationskette) < 2:
        yield f"{len(case.answer.argumentationskette)} Argumente statt mindestens 2"


def _missing_priority(case: Case) -> Messages:
    if case.answer.relevant and case.answer.priority is None:
        yield "relevant, aber ohne priority"


def _score_side(case: Case) -> Messages:
    relevant, score = case.answer.relevant, case.answer.relevance_score
    if relevant != (score >= 0.5):
        yield f"relevance_score {score} passt nicht zu relevant={relevant}"


def _reasoning_length(case: Case) -> Messages:
    if (count := len(sentences(case.answer.reasoning))) > 3:
        yield f"reasoning hat {count} Sätze statt höchstens 3"


def _no_tags(case: Case) -> Messages:
    if not case.answer.tags:
        yield "keine Schlagworte"


def _seen(article: Article) -> str:
    """Return what the model gets to see of the article's text."""
    return article.content[:CONTENT_LIMIT] or article.title


def _prose(answer: LigaRelevance) -> Iterator[tuple[str, str]]:
    """Yield the two texts of a relevant answer by name; nothing for an irrelevant one."""
    if answer.summary is not None:
        yield "summary", answer.summary
    if answer.detailed_analysis is not None:
        yield "detailed_analysis", answer.detailed_analysis


def _texts(answer: LigaRelevance) -> Iterator[tuple[str, str]]:
    yield from _prose(answer)
    yield "reasoning", answer.reasoning
    yield from (("argumentationskette", text) for text in answer.argumentationskette)
    yield from (("tags", text) for text in answer.tags)


def _keys(text: str | None) -> set[str]:
    return {normalised(sentence) for sentence in sentences(text or "")}


Rule = Callable[[Case], Messages]
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
