"""Rules on figures and dates: those of an answer must be the article's.

Only what the model is shown of the article counts, with its source and date. Weekdays and words
like "gestern" are not judged.
"""

import re
from collections.abc import Iterable
from functools import cache

from tasks.liga_relevance.dates import (
    dates_given,
    dates_in,
    grounded,
    without_dates,
    years_meant,
)
from tasks.liga_relevance.numbers import numbers_in, ungrounded
from tasks.liga_relevance.output import Urgency
from tasks.liga_relevance.rules.case import Case, Findings, Rule, excerpt

_YEAR = re.compile(r"(?:19|20)\d\d")


def _ungrounded_number(case: Case) -> Findings:
    yield from _numbers(case, case.prose, set())


def _ungrounded_argument(case: Case) -> Findings:
    arguments = [text for name, text in case.claims if name == "argumentationskette"]
    yield from _numbers(case, [("argumentationskette", " ; ".join(arguments))], set())


def _ungrounded_reasoning(case: Case) -> Findings:
    # It may give the guide's terms ("binnen 24 bis 48 Stunden") and its own score.
    own = numbers_in(f"{case.answer.relevance_score} {_guide()}")
    yield from _numbers(case, [("reasoning", case.answer.reasoning)], own)


@cache
def _guide() -> str:
    return " ".join(urgency.guide for urgency in Urgency)


def _numbers(case: Case, texts: Iterable[tuple[str, str]], own: set[str]) -> Findings:
    given = case.numbers | own
    for name, text in texts:
        for number in ungrounded(without_dates(text), given):
            if _YEAR.fullmatch(number) and int(number) in _years(case):
                continue
            yield f"{name} nennt {number.replace('.', ',')}"


def _years(case: Case) -> frozenset[int]:
    """Return the years that the article gives as "im kommenden Jahr" and the like."""
    return years_meant(case.shown, case.article.published_at)


def _ungrounded_date(case: Case) -> Findings:
    told = [(name, mention) for name, text in case.claims for mention in dates_in(text)]
    given = dates_given(case.shown) if told else []
    for name, mention in told:
        if not grounded(mention, case.shown, given, case.article.published_at):
            yield f"{name} nennt {excerpt(mention.text)}"


UNGROUNDED_NUMBER = Rule(
    "ungrounded-number",
    "error",
    "Eine Zahl steht nicht im Artikel; lass sie weg",
    _ungrounded_number,
)
UNGROUNDED_ARGUMENT = Rule(
    "ungrounded-argument",
    "error",
    "Ein Argument nennt eine Zahl, die nicht im Artikel steht; lass sie weg",
    _ungrounded_argument,
)
UNGROUNDED_REASONING = Rule(
    "ungrounded-reasoning",
    "error",
    "reasoning nennt eine Zahl, die nicht im Artikel steht; lass sie weg",
    _ungrounded_reasoning,
)
UNGROUNDED_DATE = Rule(
    "ungrounded-date",
    "error",
    "Ein Datum oder Monat steht nicht im Artikel; lass ihn weg",
    _ungrounded_date,
)
