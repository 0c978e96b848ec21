"""How a run has ended, in a sentence, with the reasons: what a reader wants to know first."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from contracts import stages
from contracts.errors import CandidateRefused, Interrupted
from driver.report.display import duration
from driver.report.finished import Finished
from driver.store import Failure

_Said = tuple[str, str, tuple[str, ...]]
"""Tone, verdict, and what there is to add."""
_CARDS = 4
_FORCE = "To let this one go live all the same: python -m driver run --force REASON."


def section(found: Finished, scores: Mapping[str, Any] | None) -> str:
    """Return the head of the report: the verdict, what the gate found, the figures that decide."""
    tone, said, text = _said(found)
    text = (*text, _took(found))
    verdict = found.read(stages.EVALUATE, stages.VERDICT)
    return (
        f'<div class="verdict {tone}"><strong>{escape(said)}</strong>'
        f"{''.join(f'<p>{escape(each)}</p>' for each in text if each)}</div>"
        f"{_findings(verdict)}{_cards(scores)}"
    )


def _said(found: Finished) -> _Said:
    """Return tone, verdict and what there is to add."""
    failure = found.state.failure
    if failure is None:
        return _ended(found)
    if failure.kind == CandidateRefused.__name__:
        text = f"What was live stays live. {_FORCE}"
        return "bad", "Refused: the candidate does not go live", (text,)
    return _failed(found, failure)


def _ended(found: Finished) -> _Said:
    deployed = found.metrics(stages.DEPLOY)
    if not deployed:
        return "note", "The run has not come to its end", ()
    kept = deployed.get("previous", "")
    text = f"The version before is kept as {kept}." if kept else ""
    if forced := deployed.get("forced", ""):
        said = f"Live although the gate refused it: {deployed['tag']}"
        return "note", said, (f"Forced: {forced}.", text)
    return "good", f"Live: {deployed['tag']}", (text,)


def _failed(found: Finished, failure: Failure) -> _Said:
    told = (f"{failure.what}.", failure.why, failure.todo)
    at = (name for name, each in found.state.stages.items() if each.state == "failed")
    stage = next((f" in the stage {name}" for name in at), "")
    if failure.kind == Interrupted.__name__:
        return "note", f"Stopped by a signal{stage}", (failure.todo,)
    verification = found.noted(stages.VERIFY)
    if verification.state == "failed":
        said = "Not verified: the deployed model does not stay live"
        return "bad", said, tuple(verification.error.splitlines())
    deployed = found.metrics(stages.DEPLOY)
    live = f"{deployed['tag']} is live all the same." if deployed else "What was live stays live."
    return "bad", f"Failed{stage}", (*told, live)


def _took(found: Finished) -> str:
    state = found.state
    if state.started_at is None or state.ended_at is None:
        return ""
    away = sum(until - since for since, until in state.away)
    service = f"; the service was away for {duration(away)}" if away else ""
    return f"The run took {duration(state.ended_at - state.started_at)}{service}."


def _findings(verdict: Mapping[str, Any] | None) -> str:
    """Return what each rule of the gate has found, those that refuse the model first."""
    if not verdict:
        return ""
    found = sorted(verdict["findings"], key=lambda each: bool(each["passed"]))
    lines = "".join(
        f'<li><span class="mark {"good" if each["passed"] else "bad"}">'
        f"{'✓' if each['passed'] else '✗'}</span>{escape(each['text'])}"
        for each in found
    )
    said = "lets the candidate pass" if verdict["promote"] else "refuses the candidate"
    return f"<h3>The gate {said}</h3><ul class=findings>{lines}</ul>"


def _cards(scores: Mapping[str, Any] | None) -> str:
    """Return the measures that decide, each with the difference to the champion, or to the base."""
    if not scores:
        return ""
    measures = scores["models"]["candidate"]["measures"]
    rival, found = next(iter(scores["compared"].items()), ("", []))
    apart = {each["name"]: each for each in found}
    cards = []
    for name in [each for each in scores.get("matters", ()) if each in measures][:_CARDS]:
        each, against = measures[name], apart.get(name)
        told = f"95 %: {each['low']:z.2f} to {each['high']:z.2f}"
        if against:
            low, high = against["low"], against["high"]
            told = f"{against['value']:+z.3f} against the {rival} ({low:+z.2f} to {high:+z.2f})"
        cards.append(
            f'<div class="card"><span>{escape(name)}</span><b>{each["value"]:z.3f}</b>'
            f"<span>{escape(told)}</span></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""
