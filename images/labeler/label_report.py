"""The label report: what the labels are, what they cost, and which a person should look at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from contracts import files
from contracts.entrypoint import RESULT_FILE
from contracts.errors import ItemsInvalid
from images.labeler.cost import cost
from images.labeler.fields import describe
from images.labeler.labelling import Decision, Labelling
from images.labeler.measures import agreement
from tasks.definition import InvalidAnswer, Item, Task

_LOOK_AT = 20
_EXCERPT = 300
"""Characters of an item's text that tell a person which one it is."""


def report(state: Labelling, previous: dict[str, BaseModel]) -> dict[str, Any]:
    """Return everything about the labels that is worth knowing, as JSON."""
    outputs = {key: each.output for key, each in state.decisions.items() if each.output is not None}
    asked = [each for each in state.decisions.values() if each.origin == "teacher"]
    derived = [each for each in state.decisions.values() if each.derived is not None]
    return {
        "items": len(state.items),
        "labelled": len(outputs),
        "quarantined": len(state.items) - len(outputs),
        "quarantined_reviews": state.barred_reviews,
        "origins": _counted(
            each.origin for each in state.decisions.values() if each.output is not None
        ),
        "positive": sum(map(state.task.positive, outputs.values())),
        "strata": _counted(map(state.task.stratum, outputs.values())),
        "fields": describe(state.task.output, list(outputs.values())),
        "rules": _rules(asked),
        "quarantine_reasons": _counted(
            fault
            for each in state.decisions.values()
            if each.output is None
            for fault in (each.deciding.faults if each.deciding else {each.failure})
        ),
        "cost": {
            "items": sum(each.derived is None for each in asked) + len(state.checked),
            "asked_now": state.asked,
            **cost(state.conversations),
        },
        "derived": {
            "items": len(derived),
            "completed": sum(bool(each.derived and "backfill" in each.derived) for each in derived),
            "asked_now": state.backfilled,
            "fields": _counted(
                name for each in derived for name in (each.derived or {}).get("fields", ())
            ),
            **cost(state.completions),
        },
        "agreement": {
            "reviewed": _agreement(state.task, state.reviewed, state.checked),
            "previous": _agreement(state.task, previous, outputs),
        },
        "look_at": _look_at(state, previous),
    }


def previous_labels(folder: Path, task: Task, items: dict[str, Item]) -> dict[str, BaseModel]:
    """Return the labels of the stage's last other execution, of the items that are still there.

    They only show what has changed, so a result that is damaged, or of another task definition,
    counts as none.
    """
    results = (p for p in folder.parent.glob(f"*/{RESULT_FILE}") if p.parent != folder)
    newest = max(results, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        return {}
    try:
        rows = list(files.read_jsonl(newest.parent / "out" / "labels.jsonl"))
        return {r["id"]: task.parse(json.dumps(r["label"])) for r in rows if r["id"] in items}
    except (OSError, KeyError, TypeError, InvalidAnswer, ItemsInvalid):
        return {}


def _rules(asked: list[Decision]) -> list[dict[str, Any]]:
    """Return for each rule how many answers broke it at first, and how many in the end."""
    first, last, warnings = Counter[str](), Counter[str](), Counter[str]()
    for each in asked:
        if not each.judgements or each.deciding is None:
            continue
        first.update(each.judgements[0].faults)
        last.update(each.deciding.faults)
        warnings.update(each.deciding.warnings)
    errors = [
        {"rule": rule, "severity": "error", "before_retry": count, "after_retry": last[rule]}
        for rule, count in (first | last).most_common()
    ]
    return errors + [
        {"rule": rule, "severity": "warning", "after_retry": count}
        for rule, count in warnings.most_common()
    ]


def _agreement(
    task: Task, expected: dict[str, BaseModel], found: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the scores of answers against others of the same items; None without any."""
    pairs = [(expected[key], found[key]) for key in expected if key in found]
    return {"rows": len(pairs), "scores": agreement(task, pairs)} if pairs else None


def _look_at(state: Labelling, previous: dict[str, BaseModel]) -> list[dict[str, Any]]:
    """Return the rows that a person should look at first, the most doubtful ones on top.

    Where too few are doubtful, those follow whose labels say themselves that they are the least
    sure, of items that no person has reviewed; of equally sure ones a sample.
    """
    doubts = {key: list(_doubts(state, key, previous)) for key in state.items}
    order = sorted((k for k in doubts if doubts[k]), key=lambda k: -sum(w for w, _ in doubts[k]))
    if len(order) < _LOOK_AT:
        unsure = {k: _unsure(state, k) for k in state.items if not doubts[k]}
        found = {k: [each] for k, each in unsure.items() if each is not None}
        doubts |= found
        order += sorted(found, key=lambda k: (-found[k][0][0], files.digest_text(k)))
    return [
        {
            "id": key,
            "text": state.task.text_of(state.items[key])[:_EXCERPT],
            "why": [reason for _, reason in doubts[key]],
            "label": output.model_dump(mode="json")
            if (output := state.decisions[key].output) is not None
            else None,
        }
        for key in order[:_LOOK_AT]
    ]


def _doubts(
    state: Labelling, key: str, previous: dict[str, BaseModel]
) -> Iterator[tuple[float, str]]:
    """Yield what speaks against a row's label, each with its weight.

    The weights only order the list: contradictions between judges of the same item come before an
    item without a label, and that before what a rule merely warns of.
    """
    decision, stratum = state.decisions[key], state.task.stratum
    if (other := state.checked.get(key)) is not None:
        reviewed = state.reviewed[key]
        if stratum(other) != stratum(reviewed):
            yield 5, f"reviewed as {stratum(reviewed)}, the teacher says {stratum(other)}"
    output = decision.output
    if output is None:
        yield (
            3,
            decision.failure or "; ".join(decision.deciding.reasons if decision.deciding else []),
        )
        return
    if key in previous and stratum(previous[key]) != stratum(output):
        yield 4, f"was {stratum(previous[key])}, is now {stratum(output)}"
    if (refused := len(decision.judgements) - 1) > 0:
        counted = "1 answer was" if refused == 1 else f"{refused} answers were"
        yield refused, f"{counted} refused before this one"
    if decision.deciding:
        for violation in decision.deciding.violations:
            yield 1, f"{violation.rule}: {violation.message}"


def _unsure(state: Labelling, key: str) -> tuple[float, str] | None:
    """Return how near a label's probabilities come to a half (1 is there), and which one does most.

    0 for a task without any; None for an item that a person has reviewed.
    """
    decision = state.decisions[key]
    if decision.output is None or decision.origin == "reviewed":
        return None
    stated = [(name, getattr(decision.output, name)) for name in state.task.calibrated]
    found = [(1 - 2 * abs(value - 0.5), f"{name} is {value:g}") for name, value in stated]
    doubt, told = max(found, default=(0.0, ""))
    return doubt, f"nothing speaks against it{told and ', but '}{told}"


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
