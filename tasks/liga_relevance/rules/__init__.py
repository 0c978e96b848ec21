"""The label rules: what makes a formally valid answer unfit to learn from.

Each rule has an id, a severity, a message for the teacher, and a function from an article with its
answer to what it finds. An error bars a label from training, a warning is counted in the label
report. docs/reference/label-rules.md lists them with examples.
"""

from itertools import islice

from tasks.definition import Violation
from tasks.liga_relevance.article import Article
from tasks.liga_relevance.output import LigaRelevance
from tasks.liga_relevance.rules import (
    form,
    grounding,
    language,
    liga,
    names,
    placeholders,
    quotes,
    repetition,
    speculation,
)
from tasks.liga_relevance.rules.case import Case, Rule

__all__ = ["LIBRARIES", "RULES", "Rule", "check"]

RULES: tuple[Rule, ...] = (
    form.CONTROL_TOKEN,
    placeholders.PLACEHOLDER,
    language.NOT_GERMAN,
    liga.LIGA_SPECULATION,
    speculation.SPECULATION,
    speculation.HEDGE,
    speculation.ARGUMENT_MOOD,
    repetition.REPEATED_SENTENCE,
    repetition.ANALYSIS_EQUALS_SUMMARY,
    repetition.ANALYSIS_REPEATS_SUMMARY,
    repetition.SHARED_SENTENCE,
    form.ELLIPSIS,
    form.TOO_SHORT,
    form.TOO_LONG,
    grounding.UNGROUNDED_NUMBER,
    grounding.UNGROUNDED_ARGUMENT,
    grounding.UNGROUNDED_REASONING,
    grounding.UNGROUNDED_DATE,
    quotes.UNGROUNDED_QUOTE,
    names.UNGROUNDED_NAME,
    names.UNSURE_NAME,
    form.ARGUMENT_COUNT,
    form.MISSING_PRIORITY,
    form.SCORE_SIDE,
    form.REASONING_LENGTH,
    form.NO_TAGS,
)

LIBRARIES = {"py3langid": "0.4.0", "rapidfuzz": "3.14.6", "sentencex": "1.0.32"}
"""What else the verdicts depend on. Stated here so that another version is another label digest,
and cached verdicts are not taken for its own."""

_MOST_FINDINGS = 5
"""Of one rule: enough to correct an answer, without filling the next request."""


def check(article: Article, answer: LigaRelevance) -> list[Violation]:
    """Return everything that the rules have against `answer` as the label of `article`."""
    case = Case(article, answer)
    return [
        Violation(rule.id, rule.severity, f"{rule.message}: {found}")
        for rule in RULES
        for found in islice(rule.find(case), _MOST_FINDINGS)
    ]
