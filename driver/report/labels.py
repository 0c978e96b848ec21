"""The label report for people: what the labels are, what they cost, which ones to look at first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from contracts import files, stages
from contracts.entrypoint import RESULT_FILE
from contracts.errors import FileUnusable, InputMissing
from contracts.params.service import told_measure
from driver.report.display import duration
from driver.report.page import meter, page, table

_Report = Mapping[str, Any]


def write(workspace: Path, out: Path) -> Path:
    """Write the report on the last labelling, a failed one included, and return the folder of it.

    Raises `InputMissing` where nothing was labelled yet, `FileUnusable` for a report that is
    damaged or of another version.
    """
    found = (workspace / "store" / stages.LABEL.name).glob(f"**/{stages.LABEL_REPORT.filename}")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise InputMissing(
            f"{workspace} holds no label report", todo="Run `python -m driver stage label` first."
        )
    try:
        body = section(json.loads(newest.read_text(encoding="utf-8")))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FileUnusable(
            f"{newest} is damaged, or of another version",
            why=f"{type(error).__name__}: {error}",
            todo="`python -m driver stage label` writes it anew; what is known is not asked again.",
        ) from error
    if not (newest.parents[1] / RESULT_FILE).is_file():
        body = f"<p>The stage failed; these are the labels that it had.</p>{body}"
    files.write_text(out, page("Labels", body))
    return newest.parent


def section(report: _Report) -> str:
    """Return the report as markup, without a heading."""
    parts = (
        f"<p>{_summary(report)}</p>",
        _strata(report),
        *_fields(report),
        _rules(report),
        _reasons(report),
        _agreement(report),
        f"<p>{_cost(report['cost'])}</p>",
        _derived(report.get("derived")),
        *_look_at(report),
    )
    return "\n".join(part for part in parts if part)


def _summary(report: _Report) -> str:
    origins = ", ".join(f"{count} {name}" for name, count in report["origins"].items())
    share = report["positive"] / report["labelled"] if report["labelled"] else 0
    reviews = report.get("quarantined_reviews", 0)  # reports of earlier versions do not tell
    told = f", {reviews} of them reviewed by a person, for whom they wait" if reviews else ""
    return (
        f"{report['labelled']} of {report['items']} items have a label ({escape(origins)}); "
        f"{report['quarantined']} are in quarantine{told}. Positive: {share:.0%}."
    )


def _strata(report: _Report) -> str:
    total = max(1, report["labelled"])
    rows = [(name, count, meter(count / total)) for name, count in report["strata"].items()]
    return table(("class", "labels", ""), rows)


def _fields(report: _Report) -> Iterator[str]:
    """Yield the distributions: what is counted, then what is measured."""
    described = report["fields"].items()
    counted = [
        (name, ", ".join(f"{value}: {count}" for value, count in each["counts"].items()))
        for name, each in described
        if "counts" in each
    ]
    measured = [
        (name, each["given"], what, *each[what].values())
        for name, each in described
        for what in ("value", "length")
        if what in each
    ]
    if counted:
        yield table(("field", "values"), counted)
    if measured:
        head = ("field", "given", "of its", "least", "median", "most")
        yield table(head, [(*row[:3], *(f"{number:g}" for number in row[3:])) for row in measured])


def _rules(report: _Report) -> str:
    rows = [
        (
            rule["rule"],
            rule["severity"],
            rule.get("before_retry", "–"),
            # Earlier versions wrote null for a warning that one answer had.
            "–" if rule["after_retry"] is None else rule["after_retry"],
        )
        for rule in report["rules"]
    ]
    head = ("rule", "severity", "first answers that broke it", "after asking again")
    return f"<h3>Rules</h3>{table(head, rows)}" if rows else ""


def _reasons(report: _Report) -> str:
    rows = list(report["quarantine_reasons"].items())
    return f"<h3>Quarantine</h3>{table(('reason', 'items'), rows)}" if rows else ""


def _agreement(report: _Report) -> str:
    parts = []
    for name, what in (
        ("reviewed", "The teacher and the reviews"),
        ("previous", "These labels and the ones before"),
    ):
        found = report["agreement"][name]
        if found:
            scores = found["scores"].items()
            rows = [(told_measure(each), value, meter(value)) for each, value in scores]
            head = ("measure", "", "")
            parts.append(f"<h3>{what}: {found['rows']} items</h3>{table(head, rows)}")
    return "".join(parts)


def _cost(cost: _Report) -> str:
    if not cost["requests"]:
        return "The teacher was asked nothing."
    speed = 60 * cost["items"] / cost["elapsed_s"] if cost["elapsed_s"] else 0
    untimed = f", {cost['untimed']} of them at times unknown" if cost["untimed"] else ""
    return (
        f"The teacher's answers for {cost['items']} items cost {cost['requests']} requests"
        f"{untimed}, {duration(cost['elapsed_s'])} in all starts of the stage together "
        f"({speed:.1f} items a minute, {duration(cost['model_s'])} of model time), "
        f"{cost['prompt_tokens']:,} tokens in and {cost['answer_tokens']:,} out. The last start "
        f"asked for {cost['asked_now']} of these items."
    )


def _derived(derived: _Report | None) -> str:
    """Return what became of answers of before an edit; reports of earlier versions do not tell."""
    if not derived or not derived["items"]:
        return ""
    fields = ", ".join(f"{name} ({count})" for name, count in derived["fields"].items())
    asked = (
        f" Of {derived['completed']} the teacher was asked for added fields alone: "
        f"{escape(fields)}, in {derived['requests']} requests and "
        f"{duration(derived['elapsed_s'])}, {derived['asked_now']} of them by the last start."
        if derived["completed"]
        else ""
    )
    return (
        f"<p>{derived['items']} labels stand on answers that were given under an earlier "
        f"definition of the task.{asked}</p>"
    )


def _look_at(report: _Report) -> Iterator[str]:
    if report["look_at"]:
        yield f"<h3>Look at these first</h3><p>{len(report['look_at'])} items, the most doubtful "
        yield "ones on top.</p>"
    for row in report["look_at"]:
        why = escape("; ".join(row["why"]))
        label = escape(json.dumps(row["label"], ensure_ascii=False, indent=2))
        yield (
            f"<details><summary><b>{escape(row['id'])}</b>: {why}</summary>"
            f"<p>{escape(row['text'])} …</p><pre>{label}</pre></details>"
        )
