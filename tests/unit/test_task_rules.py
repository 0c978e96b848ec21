"""Every label rule with an answer that breaks it and one that does not."""

from typing import Any

import pytest

from tasks.liga_relevance import Article, LigaRelevance
from tasks.liga_relevance.numbers import numbers_in
from tasks.liga_relevance.rules import RULES, check
from tasks.liga_relevance.sentences import normalised, sentences

SHORT = (
    "Die Kita in Fulda schließt am 30. Juni 2026. 96 Kinder verlieren ihren Platz. Der Träger "
    "nennt 1.200 Euro Miete und zwölf offene Stellen als Grund."
)
LONG = " ".join(
    f"In Ort {n} fehlen nach Angaben der Träger seit vielen Monaten Fachkräfte, Räume und Geld, "
    f"weshalb dort Gruppe {n} der Einrichtung am Nachmittag ganz geschlossen bleiben muss."
    for n in range(1, 25)
)
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
WORDS = ("eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
NINE = [f"Satz {word}." for word in WORDS]


def broken(content: str = SHORT, answer: dict[str, Any] = GOOD, **changes: Any) -> set[str]:
    """Return the ids of the rules that the changed answer breaks."""
    article = Article(id="1", title="Kita schließt", content=content)
    return {v.rule for v in check(article, LigaRelevance.model_validate({**answer, **changes}))}


BREAKING: list[tuple[str, dict[str, Any]]] = [
    ("control-token", {"content": f"{SHORT} <|im_end|>"}),
    ("control-token", {"summary": "Eine Kita schließt.<|im_start|>"}),
    ("placeholder", {"summary": "Keine Zusammenfassung verfügbar."}),
    ("placeholder", {"detailed_analysis": "Automatische Analyse nicht verfügbar."}),
    ("placeholder", {"reasoning": "N/A"}),
    ("placeholder", {"summary": "null"}),
    ("placeholder", {"tags": ["keine"]}),
    ("placeholder", {"argumentationskette": ["Ein Argument.", "k. A."]}),
    ("liga-speculation", {"summary": "Die Liga könnte sich dazu äußern."}),
    ("liga-speculation", {"detailed_analysis": "Für die Kita dürfte sich die Liga einsetzen."}),
    ("liga-speculation", {"reasoning": "Die Liga sollte handeln."}),
    ("liga-speculation", {"detailed_analysis": "Dazu wird wohl auch die Liga etwas sagen."}),
    ("argument-mood", {"argumentationskette": ["Das könnte schaden.", "Kinder leiden."]}),
    ("argument-mood", {"argumentationskette": ["Kosten dürften steigen.", "Kinder leiden."]}),
    ("repeated-sentence", {"detailed_analysis": "Kinder leiden. Eltern auch. Kinder leiden!"}),
    ("repeated-sentence", {"summary": "Kita zu. Kita zu."}),
    ("analysis-equals-summary", {"detailed_analysis": GOOD["summary"]}),
    ("shared-sentence", {"detailed_analysis": f"{GOOD['summary']} Eltern sind in Not."}),
    ("ellipsis", {"summary": "Eine Kita in Fulda …"}),
    ("ellipsis", {"reasoning": "Es geht um Kinder..."}),
    ("too-short", {"content": LONG}),
    ("too-long", {"summary": " ".join(NINE[:4])}),
    ("too-long", {"detailed_analysis": " ".join(NINE[:5])}),
    ("too-long", {"content": LONG, "summary": " ".join(NINE)}),
    ("ungrounded-number", {"summary": "Eine Kita schließt, 97 Kinder sind betroffen."}),
    ("ungrounded-number", {"detailed_analysis": "Das kostet 1.300 Euro."}),
    ("ungrounded-argument", {"argumentationskette": ["7.300 Häuser leiden.", "Kinder leiden."]}),
    ("argument-count", {"argumentationskette": ["Nur eines."]}),
    ("missing-priority", {"priority": None}),
    ("score-side", {"relevance_score": 0.4}),
    ("score-side", {"answer": IRRELEVANT, "relevance_score": 0.5}),
    ("reasoning-length", {"reasoning": "Eins. Zwei. Drei. Vier."}),
    ("no-tags", {"tags": []}),
]


@pytest.mark.parametrize(("rule", "changes"), BREAKING)
def test_a_breaking_answer(rule: str, changes: dict[str, Any]) -> None:
    assert rule in broken(**changes)


def test_every_rule_has_a_breaking_example() -> None:
    assert {rule for rule, _ in BREAKING} <= {rule.id for rule in RULES}
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"answer": IRRELEVANT},
        {"answer": IRRELEVANT, "content": LONG},
        {"content": f"{SHORT} im_end <b>fett</b>"},
        {"summary": "Über die Analyse der Stadt ist nichts verfügbar."},
        {"summary": "Die Liga fordert, dass das Land helfen sollte."},
        {"detailed_analysis": "Kinder leiden. Eltern leiden."},
        {"summary": "Die Leiterin sagt „Ende …“ und geht."},
        {"detailed_analysis": "Es sind 96 Kinder, zwölf Stellen und Absatz 30 dabei."},
        {"reasoning": "Es geht um Kinder, z. B. in der Kita. Das ist wichtig. Sehr."},
        {"relevance_score": 0.5},
        {"answer": IRRELEVANT, "relevance_score": 0.49},
        {
            "content": LONG,
            "summary": " ".join(NINE[:4]),
            "detailed_analysis": " ".join(f"{s[:-1]} ist anders." for s in [*NINE, "Satz zehn."]),
        },
    ],
)
def test_a_passing_answer(changes: dict[str, Any]) -> None:
    assert broken(**changes) == set()


def test_errors_and_warnings() -> None:
    severities = {rule.id: rule.severity for rule in RULES}
    assert severities["placeholder"] == "error"
    assert severities["shared-sentence"] == "warning"
    assert set(severities.values()) == {"error", "warning"}


def test_a_title_alone_carries_an_answer() -> None:
    article = Article(id="1", title="Die Kita in Fulda schließt")
    answer = {
        **GOOD,
        "summary": "Eine Kita in Fulda schließt.",
        "detailed_analysis": "Die Kita steht in Fulda.",
    }
    assert check(article, LigaRelevance.model_validate(answer)) == []


def test_only_what_the_model_sees_grounds_a_number() -> None:
    far = "Die Kita schließt. " + "x" * 6000 + " 555 Kinder."
    assert "ungrounded-number" in broken(content=far, summary="555 Kinder sind betroffen.")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Ein Satz", 1),
        ("Ein Satz. Noch einer! Und noch einer? Ja.", 4),
        ("Am 30. Juni endet z. B. die Frist für Dr. Müller bzw. A. B. Meier.", 1),
        ("Das kostet 1.200 Euro, also ca. 3,5 Mio. Euro im Jahr.", 1),
        ("„Wir sind am Ende.“ Das sagt die Leiterin.", 2),
        ("„Wir sind am Ende“, sagt sie. „Endgültig.“", 2),
        ("Überschrift\n\nEin Satz.\nNoch einer.", 3),
        ("Ende. #Pflege #Kita", 2),
        ("Aus … und vorbei. — !", 1),
        ("§ 35 Abs. 2 SGB VIII gilt.", 1),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_normalised_sentences_hide_no_repetition() -> None:
    assert normalised("„Kinder  LEIDEN“, sagt sie!") == normalised("kinder leiden sagt sie")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1.200 Euro", {"1200"}),
        ("1200,50 Euro", {"1200.5"}),
        ("3,0 Prozent", {"3"}),
        ("AK3 und AK 5", set()),
        ("12.30 Uhr", {"12", "30"}),
        ("1 234", {"1", "234"}),
        ("1\u202f234", {"1234"}),
        ("007", {"7"}),
        ("keine", set()),
    ],
)
def test_numbers(text: str, numbers: set[str]) -> None:
    assert numbers_in(text, words=False) == numbers


def test_words_and_dates_ground_numbers() -> None:
    assert {"12", "3"} <= numbers_in("zwölf Kinder und drei Kitas")
    assert {"2026", "3", "1"} <= numbers_in("2026-03-01")
    assert {"30", "6", "2026"} <= numbers_in("30.06.2026")
