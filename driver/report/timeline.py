"""A run's time as markup: what ran when, and when the service was away; then each stage's words."""

from __future__ import annotations

from html import escape

from driver.report import charts
from driver.report.display import duration
from driver.report.finished import Finished
from driver.report.page import table
from driver.store import StageState


def section(found: Finished) -> str:
    """Return the picture, if the run has noted its times, and the table."""
    state = found.state
    rows = [
        (name, _state(noted), noted.error or noted.summary, noted.reason)
        for name, noted in state.stages.items()
    ]
    words = table(("stage", "", "result", "why it ran"), rows)
    if state.started_at is None or state.ended_at is None:
        return words
    return f"{_picture(found, state.started_at, state.ended_at)}{words}"


def _picture(found: Finished, began: float, ended: float) -> str:
    stages = found.state.stages
    spans = [_span(name, noted, began, ended) for name, noted in stages.items()]
    away = [(since - began, until - began) for since, until in found.state.away]
    drawn = charts.timeline(spans, away, ended - began)
    cells = "".join(
        f'<div class="name" style="grid-row: {row}">{escape(name)}</div>'
        f'<div class="took soft" style="grid-row: {row}">{escape(_took(noted))}</div>'
        for row, (name, noted) in enumerate(stages.items(), 1)
    )
    gone = sum(until - since for since, until in away)
    told = f"service away for {duration(gone)}" if away else "the service was not touched"
    band = '<i class="band"></i>' if away else ""
    failed = any(span and span.kind == "failed" for span in spans)
    legend = (
        f'<div class="legend"><span><i class="candidate"></i>at work</span>'
        f"{'<span><i class=failed></i>failed</span>' if failed else ''}"
        f"<span>{band}{told}</span></div>"
    )
    return (
        f'{legend}<figure><div class="time" style="--rows: {len(stages) + 1}">{cells}{drawn}'
        "</div></figure>"
    )


def _span(name: str, noted: StageState, began: float, ended: float) -> charts.Span | None:
    """Return the bar of a stage; None for one that did not run in this run."""
    if noted.state == "reused" or noted.started_at is None:
        return None
    until = noted.ended_at if noted.ended_at is not None else ended
    kind = "done" if noted.state == "done" else "failed"
    return charts.Span(name, noted.started_at - began, until - began, kind)


def _state(noted: StageState) -> str:
    return {"planned": "did not run", "running": "interrupted"}.get(noted.state, noted.state)


def _took(noted: StageState) -> str:
    if noted.state == "reused":
        return "reused"
    if noted.started_at is None or noted.ended_at is None:
        return "–"
    return duration(noted.ended_at - noted.started_at)
