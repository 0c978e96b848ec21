"""The leakage report for people: what is where, what is tested, and that no side knows another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from driver.report.page import table

_Report = Mapping[str, Any]
_SHOWN_GROUPS = 50
"""In the page; leakage_report.json has them all."""


def section(report: _Report) -> str:
    """Return the report as markup, without a heading."""
    parts = (
        f"<p>{escape(_proof(report))}</p>",
        f"<p>{escape(_test_set(report['test_set']))}</p>",
        _counts(report),
        _times(report) if report["by"] == "time" else "",
        *_left_out(report),
    )
    return "\n".join(part for part in parts if part)


def _proof(report: _Report) -> str:
    threshold = report["near_duplicate"]
    said = (
        f"{report['pairs_across_splits']} pairs of rows of different splits are similar by "
        f"{threshold} or more (every pair was looked at, apart from how groups were made)."
    )
    if report["max_similarity_across_splits"] is None:
        return f"{said} No two are similar by {report['similarity_looked_from']:g}."
    one, other = report["most_similar"]
    return (
        f"{said} The most similar two: {one['id']} in {one['split']} and {other['id']} in "
        f"{other['split']}, {report['max_similarity_across_splits']:.2f}."
    )


def _test_set(found: _Report) -> str:
    if not found["name"]:
        return "No test set is kept: the next run draws another one."
    said = (
        f"Frozen test set “{found['name']}”: {found['kept']} rows as before, {found['added']} "
        f"added from items that no run had seen."
    )
    if found["gone"]:
        said += f" {found['gone']} of its items have no label now, or are gone."
    if found.get("reprints"):
        said += f" {found['reprints']} of the rows are reprints that take the place of tested ones."
    if found.get("barred"):
        said += (
            f" {found['barred']} items are left out of every split: they say what a tested item "
            f"said that is gone, and what one said that was trained on."
        )
    if found["taken_out_of_training"]:
        said += (
            f" {found['taken_out_of_training']} items were trained on before and are left out, "
            f"since they now say the same as a test row."
        )
    if found.get("warning"):  # reports of earlier versions have none
        said += f" {found['warning']}"
    return said


def _counts(report: _Report) -> str:
    """Return rows by split, in all and by facet."""
    sides = list(report["rows"])
    facets = {name for side in sides for name in report["facets"][side]}
    kind = "facets" if facets else "strata"
    names = sorted(facets or {name for side in sides for name in report["strata"][side]})
    rows: list[tuple[str | int, ...]] = [("all", *(report["rows"][side] for side in sides))]
    rows += [(name, *(report[kind][side].get(name, 0) for side in sides)) for name in names]
    return table(("rows", *sides), rows)


def _times(report: _Report) -> str:
    rows = [
        (side, each["from"] or "–", each["to"] or "–", each["undated"])
        for side, each in report["times"].items()
    ]
    return table(("split", "oldest", "newest", "without a date"), rows)


def _left_out(report: _Report) -> Iterator[str]:
    groups = [group for group in report["groups"] if group["left_out"]]
    if not groups:
        return
    yield (
        f"<details><summary>{report['left_out']} duplicates are left out, of {len(groups)} groups"
        f"</summary>"
    )
    rows = [
        (row["id"], row["why"], row["stratum"], _names(group["kept"]), group["split"])
        for group in groups[:_SHOWN_GROUPS]
        for row in group["left_out"]
    ]
    yield table(("left out", "why", "labelled", "kept", "split"), rows)
    if len(groups) > _SHOWN_GROUPS:
        yield f"<p>{len(groups) - _SHOWN_GROUPS} more groups are in leakage_report.json.</p>"
    yield "</details>"


def _names(rows: list[dict[str, str]]) -> str:
    return ", ".join(f"{row['id']} ({row['stratum']})" for row in rows)
