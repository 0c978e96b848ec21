"""The evaluation as markup: the models side by side, where they err, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from contracts.params.service import ERRORS
from driver.report import charts, measures
from driver.report.page import folded, table

Models = Mapping[str, Mapping[str, Any]]

ROLES = ("candidate", "champion", "baseline")
_HINT = "; where they overlap, the differences below say more"
_DARKEST = 0.6
"""Of a cell in a confusion matrix: its number has to stay readable."""


def models_of(scores: Mapping[str, Any]) -> Models:
    """Return what is known of each model that was asked, the candidate first."""
    return {role: scores["models"][role] for role in ROLES if role in scores["models"]}


def side_by_side(scores: Mapping[str, Any], matters: Sequence[str]) -> str:
    """Return every measure of every model, those that decide in sight; then the differences."""
    models = models_of(scores)
    names = list(models["candidate"]["measures"])
    first = [name for name in matters if name in names]
    rest = [name for name in names if name not in first]
    return (
        f"<p>{scores['rows']} rows of the test split, asked in the form of the backend's "
        "requests. Lines are 95 % intervals by "
        f"bootstrap{_HINT if scores['compared'] else ''}.</p>"
        f"{_legend(models)}{_scale()}{''.join(_measure(name, models) for name in first)}"
        f"{folded(f'{len(rest)} more measures', ''.join(_measure(n, models) for n in rest))}"
        f"{measures.explained([*first, *rest], scores.get('fields', {}))}"
        f"{_pace(models)}{''.join(_compared(scores['compared']))}"
    )


def _legend(models: Models) -> str:
    told = (
        f'<span><i class="{role}"></i>{role}: {escape(model["tag"])}</span>'
        for role, model in models.items()
    )
    return f'<div class="legend">{"".join(told)}</div>'


def _scale() -> str:
    return f'<div class="measure scale"><div class="name"></div>{charts.scale()}<div></div></div>'


def _measure(name: str, models: Models) -> str:
    found = {role: model["measures"][name] for role, model in models.items()}
    less = "<small>less is better</small>" if name.endswith(ERRORS) else ""
    values = "".join(
        f'<div><b class="{role}">–</b> <small>no answer is positive</small></div>'
        if each.get("of_nothing")
        else f'<div><b class="{role}">{each["value"]:z.3f}</b> '
        f"<small>{each['low']:z.2f} to {each['high']:z.2f}</small></div>"
        for role, each in found.items()
    )
    return (
        f'<div class="measure"><div class="name">{escape(name)}{less}</div>'
        f'{charts.intervals(name, found)}<div class="values">{values}</div></div>'
    )


def _pace(models: Models) -> str:
    rows: list[tuple[str | float, ...]] = [
        (role, f"{model['seconds']:.2f} s", f"{model['answer_tokens']:.0f}", model["digest"][:12])
        for role, model in models.items()
    ]
    head = ("model", "time for an item (median)", "tokens of an answer (median)", "digest")
    return f"<h3>Cost</h3>{table(head, rows)}"


def _compared(compared: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the paired differences: of the same rows, and so more telling than two intervals."""
    for role, found in compared.items():
        rows = [
            (
                each["name"],
                each.get("rows", ""),  # an older evaluation has not noted it
                *(
                    ("not compared", "", "", "")
                    if too_few(each)
                    else (
                        f"{each['value']:+z.3f}",
                        f"{each['low']:+z.3f} to {each['high']:+z.3f}",
                        f"{each['p_better']:.3g}",
                        f"{each['p_worse']:.3g}",
                    )
                ),
            )
            for each in found
        ]
        head = (
            "measure",
            "rows",
            "better by",
            "95 % interval",
            "p, were it no better",
            "p, were it no worse",
        )
        yield f"<h3>Candidate against {escape(role)}</h3>{table(head, rows)}"


def too_few(found: Mapping[str, Any]) -> bool:
    """Return whether two models had too few rows in common for a difference to say anything."""
    return bool(found.get("rows", 0) < found.get("fewest", 0))


# --- where they err ------------------------------------------------------------------------------
def confusions(scores: Mapping[str, Any]) -> str:
    """Return a matrix for each field with a few values and each model."""
    models = models_of(scores)
    parts = []
    for name in models["candidate"].get("confusion", {}):
        matrices = (_matrix(role, model["confusion"][name]) for role, model in models.items())
        parts.append(f'<h3>{escape(name)}</h3><div class="matrices">{"".join(matrices)}</div>')
    if not parts:
        return ""
    return (
        "<p>Rows are what the label says, columns what the model answered; what stands in outlined "
        "cells is right. The last column counts answers that are not valid.</p>" + "".join(parts)
    )


def _matrix(role: str, found: Mapping[str, Any]) -> str:
    values = found["values"]
    heads = "".join(f'<th scope="col">{escape(value)}' for value in (*values, "invalid"))
    lines = []
    for place, (value, counts) in enumerate(zip(values, found["counts"], strict=True)):
        whole = max(1, sum(counts))
        cells = "".join(
            f"<td{' class=right' if column == place else ''} "
            f'style="--share: {_DARKEST * count / whole:.2f}">{count}'
            for column, count in enumerate(counts)
        )
        lines.append(f'<tr><th scope="row">{escape(value)}{cells}</tr>')
    return (
        f'<div><h4 class="{role}">{role}</h4><div class="scroll" tabindex="0">'
        f'<table class="confusion" style="--tone: var(--{role}-rgb)">'
        f"<tr><td style='--share: 0'>{heads}</tr>{''.join(lines)}</table></div></div>"
    )


def reliabilities(scores: Mapping[str, Any]) -> str:
    """Return a curve for each stated probability and each model."""
    models = models_of(scores)
    parts = []
    for name, of in models["candidate"].get("reliability", {}).items():
        curves = (
            f'<figure class="reliability"><figcaption><b class="{role}">{role}</b></figcaption>'
            f"{charts.reliability(role, name, of['truth'], model['reliability'][name]['bins'])}"
            "</figure>"
            for role, model in models.items()
        )
        parts.append(
            f"<h3>How far {escape(name)} can be believed</h3><p>Above the dashed line the model is "
            f"too careful, below it too sure. Lines are 95 % intervals, bars how often such a "
            f'value was stated.</p><div class="beside">{"".join(curves)}</div>'
        )
    return "".join(parts)


def rules(scores: Mapping[str, Any]) -> str:
    """Return how many answers break each label rule, and the measures by class of the row."""
    models = models_of(scores)
    names = sorted({rule for model in models.values() for rule in model["broken_rules"]})
    rows = [(name, *(m["broken_rules"].get(name, 0) for m in models.values())) for name in names]
    broken = f"<h3>Answers that break a label rule</h3>{table(('rule', *models), rows)}"
    return (broken if rows else "") + _strata(models["candidate"].get("by_stratum", {}))


def _strata(strata: Mapping[str, Mapping[str, float]]) -> str:
    """Return the candidate's measures by class, one column for each class."""
    if len(strata) < 2:
        return ""
    every = dict.fromkeys(name for each in strata.values() for name in each)
    rows: list[tuple[str | float, ...]] = [
        (name, *(each.get(name, "–") for each in strata.values()))
        for name in every
        if not name.endswith(ERRORS)
    ]
    return folded("The candidate by class of the label", table(("measure", *strata), rows))
