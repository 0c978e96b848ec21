"""Every label rule with German texts that break it, and near misses that do not.

The texts stand in rule_cases/, by subject.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.liga_relevance import Article, LigaRelevance
from tasks.liga_relevance.rules import RULES, check

LEAST = 5
SHORT = (
    "Die Kita in Fulda schließt am 30. Juni 2026. 96 Kinder verlieren ihren Platz. Der Träger "
    "nennt 1.200 Euro Miete und zwölf offene Stellen als Grund."
)
LONG = " ".join(
    f"In Ort {n} fehlen nach Angaben der Träger seit vielen Monaten Fachkräfte, Räume und Geld, "
    f"weshalb dort Gruppe {n} der Einrichtung am Nachmittag ganz geschlossen bleiben muss."
    for n in range(1, 25)
)
MEDIUM = " ".join(LONG.split()[:93])
ARTICLES = {"short": SHORT, "long": LONG, "medium": MEDIUM}
GOOD: dict[str, Any] = {
    "summary": "Eine Kita in Fulda schließt am 30. Juni.",
    "detailed_analysis": "Betroffen sind 96 Kinder. Gründe sind 1200 Euro Miete und 12 Stellen.",
    "argumentationskette": ["Kinder brauchen Betreuung.", "Eltern brauchen Verlass."],
    "relevant": True,
    "relevance_score": 0.9,
    "priority": "high",
    "assigned_aks": ["AK5"],
    "tags": ["Kita"],
    "reasoning": "Die Schließung trifft Kinder und Familien.",
}
IRRELEVANT: dict[str, Any] = {
    **GOOD,
    "summary": None,
    "detailed_analysis": None,
    "argumentationskette": [],
    "relevant": False,
    "relevance_score": 0.0,
    "priority": None,
    "assigned_aks": [],
    "reasoning": "Es geht um Sport.",
}
# For an article of its own, so that a case says all that could break its rule.
NEUTRAL = {
    "summary": "Es geht um eine Einrichtung.",
    "detailed_analysis": "Der Bericht nennt Gründe.",
}
CASES: dict[str, dict[str, list[dict[str, Any]]]] = {}
for path in sorted((Path(__file__).parent / "rule_cases").glob("*.yaml")):
    for rule_id, cases in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        assert rule_id not in CASES, f"{rule_id} stands twice"
        CASES[rule_id] = cases


def named(kind: str) -> list[Any]:
    return [
        pytest.param(rule, case, id=f"{rule}-{number}")
        for rule, cases in CASES.items()
        for number, case in enumerate(cases[kind], 1)
    ]


def broken(case: dict[str, Any]) -> dict[str, list[str]]:
    """Return the rules that a case breaks, with their messages."""
    changes = dict(case)
    answer = GOOD if "content" not in case else {**GOOD, **NEUTRAL}
    if changes.pop("irrelevant", False):
        answer = IRRELEVANT
    row = {"title": "Kita schließt", "content": ARTICLES[changes.pop("article", "short")]}
    for name in ("content", "title", "source", "published_at"):
        if name in changes:
            row[name] = changes.pop(name)
    article = Article.model_validate({"id": "1", **row})
    found: dict[str, list[str]] = {}
    for violation in check(article, LigaRelevance.model_validate({**answer, **changes})):
        found.setdefault(violation.rule, []).append(violation.message)
    return found


@pytest.mark.parametrize(("rule", "case"), named("breaks"))
def test_breaks(rule: str, case: dict[str, Any]) -> None:
    assert rule in broken(case)


@pytest.mark.parametrize(("rule", "case"), named("near_misses"))
def test_near_miss(rule: str, case: dict[str, Any]) -> None:
    assert broken(case).get(rule) is None


@pytest.mark.parametrize("rule", [rule.id for rule in RULES])
def test_a_rule_has_enough_texts(rule: str) -> None:
    assert rule in CASES, f"no texts for {rule} in rule_cases/"
    for kind in ("breaks", "near_misses"):
        texts = [repr(sorted(case.items(), key=str)) for case in CASES[rule][kind]]
        assert len(set(texts)) == len(texts) >= LEAST


def test_every_text_is_of_a_rule() -> None:
    assert set(CASES) == {rule.id for rule in RULES}
    assert all(set(cases) == {"breaks", "near_misses"} for cases in CASES.values())


def test_the_good_answers_break_nothing() -> None:
    assert broken({}) == {}
    assert broken({"irrelevant": True}) == {}
