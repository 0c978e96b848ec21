"""The evaluation as a section of the page: the verdict first, then the models side by side."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from contracts.params.service import told_measure
from driver.report.page import Cell, meter, table

_ROLES = ("candidate", "champion", "baseline")


def section(scores: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    """Return the markup for scores.json and verdict.json."""
    models = {role: scores["models"][role] for role in _ROLES if role in scores["models"]}
    said = "goes live" if verdict["promote"] else "is refused"
    return (
        f"<h2>Evaluation: the candidate {said}</h2>{_findings(verdict)}"
        f"<p>{verdict['rows']} rows of the test split; 95 % intervals by bootstrap.</p>"
        f"{_side_by_side(models)}{_compared(scores['compared'])}{_rules(models)}"
    )


def _findings(verdict: Mapping[str, Any]) -> str:
    found = sorted(verdict["findings"], key=lambda each: bool(each["passed"]))
    lines = (f"<li>{'✓' if each['passed'] else '✗'} {escape(each['text'])}" for each in found)
    return f"<ul class=findings>{''.join(lines)}</ul>"


def _side_by_side(models: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(models["candidate"]["measures"])
    rows: list[tuple[str, ...]] = [
        (
            told_measure(name),
            *(_value(model["measures"][name]) for model in models.values()),
        )
        for name in names
    ]
    rows.append(("seconds an item (median)", *(f"{m['seconds']:.2f}" for m in models.values())))
    rows.append(
        ("tokens an answer (median)", *(f"{m['answer_tokens']:.0f}" for m in models.values()))
    )
    head = ("measure", *(f"{role}: {model['tag']}" for role, model in models.items()))
    return table(head, rows)


def _value(measure: Mapping[str, float]) -> Cell:
    shown = f"{measure['value']:.3f} <small>{measure['low']:.2f} to {measure['high']:.2f}</small>"
    return Cell(f"{meter(measure['value'])} {shown}")


def _compared(compared: Mapping[str, list[Mapping[str, Any]]]) -> str:
    parts = []
    for role, found in compared.items():
        rows = [
            (
                each["name"],
                f"{each['value']:+.3f}",
                f"{each['low']:+.3f} to {each['high']:+.3f}",
                f"{each['p_better']:.3g}",
                f"{each['p_worse']:.3g}",
            )
            for each in found
        ]
        head = ("measure", "better by", "95 %", "p that it is no better", "p that it is no worse")
        parts.append(f"<h3>Candidate against {role}</h3>{table(head, rows)}")
    return "".join(parts)


def _rules(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how many answers break each label rule."""
    names = sorted({rule for model in models.values() for rule in model["broken_rules"]})
    if not names:
        return ""
    rows = [(name, *(m["broken_rules"].get(name, 0) for m in models.values())) for name in names]
    return f"<h3>Answers that break a label rule</h3>{table(('rule', *models), rows)}"
