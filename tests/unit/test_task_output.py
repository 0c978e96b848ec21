"""The answer's own constraints, and the one place where urgencies become priorities."""

from typing import Any

import pytest
from pydantic import ValidationError

from tasks import load_task
from tasks.liga_relevance import Arbeitskreis, LigaRelevance, Priority, Urgency, stratum

RELEVANT: dict[str, Any] = {
    "summary": "Eine Kita schließt.",
    "detailed_analysis": "Der Träger nennt fehlendes Personal.",
    "argumentationskette": ["Kinder brauchen Betreuung.", "Eltern brauchen Verlass."],
    "relevant": True,
    "relevance_score": 0.9,
    "priority": Priority.HIGH,
    "assigned_aks": [Arbeitskreis.AK5],
    "tags": ["Kita"],
    "reasoning": "Es geht um Kinder.",
}
IRRELEVANT = {
    **RELEVANT,
    "summary": None,
    "detailed_analysis": None,
    "argumentationskette": [],
    "relevant": False,
    "relevance_score": 0.0,
    "priority": None,
    "assigned_aks": [],
}
FIELDS = [
    "summary",
    "detailed_analysis",
    "argumentationskette",
    "relevant",
    "relevance_score",
    "priority",
    "assigned_aks",
    "tags",
    "reasoning",
]


def test_fields_and_their_order() -> None:
    assert list(LigaRelevance.model_fields) == FIELDS


@pytest.mark.parametrize("answer", [RELEVANT, IRRELEVANT])
def test_a_good_answer(answer: dict[str, Any]) -> None:
    assert LigaRelevance.model_validate(answer).model_dump() == answer


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": None},
        {"detailed_analysis": None},
        {"summary": "  "},
        {"reasoning": " \n"},
        {"tags": [" "]},
        {"tags": ["a", "a"]},
        {"assigned_aks": ["AK1", "AK1"]},
        {"assigned_aks": ["AK1", "AK2", "AK3", "AK4"]},
        {"argumentationskette": ["Gleich.", "Gleich."]},
        {"argumentationskette": [str(n) for n in range(7)]},
        {"argumentationskette": [""]},
        {"relevance_score": -0.1},
        {"relevance_score": float("nan")},
        {"assigned_ak": "AK1"},
    ],
)
def test_a_bad_relevant_answer(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LigaRelevance.model_validate({**RELEVANT, **changes})


@pytest.mark.parametrize(
    "name", ["summary", "detailed_analysis", "argumentationskette", "priority", "assigned_aks"]
)
def test_an_irrelevant_answer_is_empty(name: str) -> None:
    with pytest.raises(ValidationError, match=f"irrelevant with {name}"):
        LigaRelevance.model_validate({**IRRELEVANT, name: RELEVANT[name]})


def test_urgencies_become_priorities() -> None:
    assert {u.value: u.priority.value for u in Urgency} == {
        "critical": "high",
        "high": "high",
        "medium": "medium",
        "low": "low",
    }


def test_stratum() -> None:
    assert stratum(LigaRelevance.model_validate(IRRELEVANT)) == "irrelevant"
    assert stratum(LigaRelevance.model_validate(RELEVANT)) == "high"
    assert stratum(LigaRelevance.model_validate({**RELEVANT, "priority": None})) == "none"


def test_prompts_name_fields_groups_and_priorities() -> None:
    task = load_task("liga_relevance")
    for prompt in (task.system_prompt, task.label_prompt):
        positions = [
            prompt.index(f"- {name}:" if prompt is task.system_prompt else f"## {name}\n")
            for name in FIELDS
        ]
        assert positions == sorted(positions)
        for group in Arbeitskreis:
            assert f"{group.value}: {group.meaning}" in prompt
        for urgency in Urgency:
            assert f'{urgency.guide} → "{urgency.priority.value}"' in prompt
        assert "$" not in prompt
        assert "critical" not in prompt
        assert "JSON-Objekt" in prompt
    assert ", ".join(FIELDS) in task.label_prompt
    assert 2000 <= len(task.system_prompt) <= 2500
