"""Rules on the form of an answer: lengths, markers of a failed answer, fields that must agree."""

import re

from tasks.chat import QWEN3
from tasks.liga_relevance.article import user_message
from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt

_ELLIPSIS = re.compile(r"(?:…|\.{3,}|\. \. \.)[\"“”»«›‹’'\])]*$")
# Characters of an article that are taken for one sentence where it has little punctuation.
_CHARS_PER_SENTENCE = 130


def _control_token(case: Case) -> Findings:
    """Refuse what a tokenizer reads as the end of the turn, wherever it stands."""
    text = f"{user_message(case.article)}\n{case.answer.model_dump_json()}"
    for token in QWEN3.control_tokens:
        if token in text:
            yield token


def _ellipsis(case: Case) -> Findings:
    for name, text in case.texts:
        tail = text.rstrip()[-20:]
        if _ELLIPSIS.search(tail):
            yield f"{name} endet auf {excerpt(tail)}"


def _too_short(case: Case) -> Findings:
    if not case.answer.relevant:
        return
    for name, found, least in (
        ("summary", case.summary, 4),
        ("detailed_analysis", case.analysis, 10),
    ):
        if len(found) >= least:
            continue  # for an article of any size, so its sentences go uncounted
        size = min(len(case.content_sentences), len(case.content) // _CHARS_PER_SENTENCE)
        # An article twice as long as the text has enough to give for the full length.
        wanted = max(1, min(least, size // 2))
        if len(found) < wanted:
            yield f"{name} hat {len(found)} Sätze, der Artikel gibt mindestens {wanted} her"


def _too_long(case: Case) -> Findings:
    if not case.answer.relevant:
        return
    for name, found, most, least, beyond in (
        ("summary", case.summary, 8, 2, 0),
        ("detailed_analysis", case.analysis, 15, 3, 1),
    ):
        size = len(case.content) // _CHARS_PER_SENTENCE
        if len(found) <= min(most, max(least, size + beyond)):
            continue
        size = max(size, len(case.content_sentences))
        allowed = min(most, max(least, size + beyond))
        if len(found) > allowed:
            yield f"{name} hat {len(found)} Sätze, der Artikel trägt höchstens {allowed}"


def _argument_count(case: Case) -> Findings:
    count = len(case.answer.argumentationskette)
    if case.answer.relevant and count < 2:
        yield f"{count} statt mindestens 2"


def _missing_priority(case: Case) -> Findings:
    if case.answer.relevant and case.answer.priority is None:
        yield "priority ist null"


def _score_side(case: Case) -> Findings:
    relevant, score = case.answer.relevant, case.answer.relevance_score
    if relevant != (score >= 0.5):
        yield f"relevance_score {score} bei relevant={str(relevant).lower()}"


def _reasoning_length(case: Case) -> Findings:
    if (count := len(case.reasoning)) > 3:
        yield f"{count} Sätze"


def _no_tags(case: Case) -> Findings:
    if not case.answer.tags:
        yield "tags ist leer"


CONTROL_TOKEN = Rule(
    "control-token", "error", "Steuerzeichen des Modells stehen im Text", _control_token
)
ELLIPSIS = Rule(
    "ellipsis", "error", "Ein Text bricht mit Auslassungspunkten ab; beende den Satz", _ellipsis
)
TOO_SHORT = Rule("too-short", "error", "Ein Text hat zu wenige Sätze", _too_short)
TOO_LONG = Rule("too-long", "error", "Ein Text hat zu viele Sätze; lass Beiwerk weg", _too_long)
ARGUMENT_COUNT = Rule(
    "argument-count", "error", "argumentationskette braucht 2 bis 6 Argumente", _argument_count
)
MISSING_PRIORITY = Rule(
    "missing-priority", "error", "Eine relevante Meldung braucht eine priority", _missing_priority
)
SCORE_SIDE = Rule(
    "score-side",
    "error",
    "relevance_score muss ab 0.5 liegen, wenn relevant true ist, und sonst darunter",
    _score_side,
)
REASONING_LENGTH = Rule(
    "reasoning-length", "warning", "reasoning soll höchstens 3 Sätze haben", _reasoning_length
)
NO_TAGS = Rule("no-tags", "warning", "Es fehlen Schlagworte", _no_tags)
