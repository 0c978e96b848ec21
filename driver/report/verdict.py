"""How a run has ended, in a sentence, with the reasons: what a reader wants to know first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from contracts import stages
from contracts.errors import CandidateRefused, Interrupted, RetrainError
from contracts.params import VerifyMetrics
from contracts.params.service import RULES_OF_POSITIVE
from driver import locks, taken_back
from driver.report import after_deploy, evaluation
from driver.report.after_deploy import Line, Told
from driver.report.display import duration
from driver.report.finished import ENDED_WELL, Finished
from driver.store import Failure, Run, StageState

_CARDS = 4
_FORCE = "To let this one go live all the same: python -m driver run --force REASON."


def section(found: Finished, scores: Mapping[str, Any] | None) -> str:
    """Return the head: the verdict, accepted drift, what the gate found, the deciding figures."""
    verdict = found.read(stages.EVALUATE, stages.VERDICT)
    tone, said, text = _said(found, verdict)
    text = (*text, _forced(found), _took(found))
    return (
        f'<div class="verdict {tone}"><strong>{escape(said)}</strong>'
        f"{''.join(map(_paragraph, text))}</div>"
        f"{_accepted(found)}{_findings(verdict)}{_cards(scores)}"
    )


def _said(found: Finished, verdict: Mapping[str, Any] | None) -> Told:
    """Return tone, verdict and what there is to add."""
    failure = found.state.failure
    if failure is None:
        return _ended(found)
    if failure.kind == CandidateRefused.__name__:
        return _refused(found, failure, verdict)
    return _failed(found, failure)


def _refused(found: Finished, failure: Failure, verdict: Mapping[str, Any] | None) -> Told:
    """Say who has refused the candidate: the gate is not the only one who does."""
    by_gate = (
        [each["text"] for each in verdict["findings"] if not each["passed"]] if verdict else ()
    )
    if by_gate and failure.why == "; ".join(by_gate):  # (host_stages/deploy.py: require_promoted)
        said = "Refused: the candidate does not go live"
        if found.metrics(stages.EVALUATE).get("silent"):
            said += ", and the live model is broken"
        return "bad", said, (f"{after_deploy.untouched(found)} {_FORCE}",)
    why = f"{failure.why}." if failure.why else ""
    told = (why, failure.todo, after_deploy.untouched(found))
    return "bad", f"Refused: {failure.what}", told


def _ended(found: Finished) -> Told:
    left = {n: each for n, each in found.state.stages.items() if each.state not in ENDED_WELL}
    if left or not found.state.stages:
        return _cut_off(found, left)
    deployed = found.metrics(stages.DEPLOY)
    if not deployed:
        names = ", ".join(found.state.stages)
        return "note", f"Come to its end without a deployment: {names}", ()
    if _was_taken_back(found, str(deployed["tag"]), str(deployed["digest"])):
        return after_deploy.taken_back_since(found, deployed)
    return after_deploy.moved(found) or _live(found, deployed)


def _live(found: Finished, deployed: Mapping[str, Any]) -> Told:
    """Say with how much confidence a model is live."""
    kept = deployed.get("previous", "")
    text = f"The version before is kept as {kept}." if kept else ""
    if deployed.get("forced", ""):
        return "note", f"Live although the gate refused it: {deployed['tag']}", (text,)
    verified = found.metrics(stages.VERIFY)
    if verified and (unseen := VerifyMetrics.model_validate(verified).unseen()):
        return "note", f"Live, seen by the engine alone: {deployed['tag']}", (f"{unseen}.", text)
    return "good", f"Live: {deployed['tag']}", (text,)


def _forced(found: Finished) -> str:
    """Say why and by whom the gate was overruled, whatever came of it; "" where it was not."""
    forced = found.metrics(stages.DEPLOY).get("forced", "")
    return f"Forced: {forced}." if forced else ""


def _was_taken_back(found: Finished, *names: str) -> bool:
    try:
        return not {*names}.isdisjoint(taken_back.rejected(found.workspace))
    except RetrainError:  # damaged: the next run says so
        return False


def _cut_off(found: Finished, left: Mapping[str, StageState]) -> Told:
    """Say what is known of a run that could not note its end, or has not come to it yet."""
    for name, each in left.items():
        if each.state == "failed":  # of a stage run alone, whose failure only the stage notes
            return "bad", f"Failed in the stage {name}", (*each.error.splitlines(), _named(found))
    at_work = next((name for name, each in left.items() if each.state == "running"), "")
    place = f"in the stage {at_work}" if at_work else f"before the stage {next(iter(left), '')}"
    last = Run.last(found.workspace)
    if locks.is_held(found.workspace) and last is not None and last.id == found.run.id:
        return "note", f"Under way, {place}", (_named(found),)
    said = f"The run has not come to its end: it was cut off {place if left else 'as it began'}"
    return "note", said, ("It was killed, or the host went down.", _named(found))


def _named(found: Finished) -> str:
    """Return what the alias named when a run ended before its end."""
    if said := after_deploy.stopped(found):
        return said
    deployed, verify = found.metrics(stages.DEPLOY), found.noted(stages.VERIFY)
    if deployed:
        said = f"{deployed['alias']} named {deployed['tag']} then"
        if verify.state in ENDED_WELL:
            return f"{said}, verified. `driver models` shows what is live now."
        begun = ", anything else takes it back" if verify.state in ("running", "failed") else ""
        return (
            f"{said}, which nobody had verified: the next run verifies it{begun}. "
            "`driver models` shows what is live now."
        )
    if found.noted(stages.DEPLOY).state in ("running", "failed"):
        return (
            "Whether the candidate was live for a moment is not noted; the next start finishes the "
            "switch or undoes it. `driver models` shows what is live now."
        )
    models = found.metrics(stages.EVALUATE).get("models") or {}
    digest = f" (digest {models['champion'][:12]})" if models.get("champion") else ""
    return f"It had deployed nothing: what was live{digest} was not touched."


def _failed(found: Finished, failure: Failure) -> Told:
    told = (f"{failure.what}.", failure.why, failure.todo)
    at = (name for name, each in found.state.stages.items() if each.state == "failed")
    stage = next((f" in the stage {name}" for name in at), "")
    if failure.kind == Interrupted.__name__:
        return "note", f"Stopped by a signal{stage}", (failure.todo, _named(found))
    if said := after_deploy.told(found, failure):
        return said
    return "bad", f"Failed{stage}", (*told, after_deploy.untouched(found))


def _paragraph(line: Line) -> str:
    if isinstance(line, tuple):
        label, text = line
        return f"<p><b>{escape(label)}:</b> {escape(text)}</p>"
    return f"<p>{escape(line)}</p>" if line else ""


def _took(found: Finished) -> str:
    state = found.state
    if state.started_at is None or state.ended_at is None:
        return f"The run began {_date(state.started_at)}." if state.started_at else ""
    away = sum(until - since for since, until in state.away)
    service = f"; the service was away for {duration(away)}" if away else ""
    took = duration(state.ended_at - state.started_at)
    return f"The run began {_date(state.started_at)} and took {took}{service}."


def _date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%A, %Y-%m-%d at %H:%M UTC}"


def _accepted(found: Finished) -> str:
    """Return the differences from the backend that break answers, and were gone on with."""
    lines = "".join(
        f'<li><span class="mark bad">✗</span>{escape(each)}' for each in found.state.accepted_drift
    )
    head = "Accepted (--accept-drift): the backend cannot keep or show every answer of this task"
    return f"<h3>{escape(head)}</h3><ul class=findings>{lines}</ul>" if lines else ""


def _findings(verdict: Mapping[str, Any] | None) -> str:
    """Return what each rule of the gate has found: what refuses the model first, and what could not
    be asked before what passed.
    """
    if not verdict:
        return ""
    marks = {"bad": "✗", "note": "–", "good": "✓"}
    found = [(_tone(each), each["text"]) for each in verdict["findings"]]
    lines = "".join(
        f'<li><span class="mark {tone}">{marks[tone]}</span>{escape(text)}'
        for tone, text in sorted(found, key=lambda each: list(marks).index(each[0]))
    )
    said = "lets the candidate pass" if verdict["promote"] else "refuses the candidate"
    rows = f", on {verdict['rows']} test rows" if "rows" in verdict else ""  # an older one has none
    return f"<h3>The gate {said}{rows}</h3><ul class=findings>{lines}</ul>"


def _tone(finding: Mapping[str, Any]) -> str:
    if not finding["passed"]:
        return "bad"
    return "good" if finding.get("asked", True) else "note"  # an older evaluation does not say


def _cards(scores: Mapping[str, Any] | None) -> str:
    """Return the measures that decide, each with the difference to the champion, or to the base."""
    if not scores:
        return ""
    measures = scores["models"]["candidate"]["measures"]
    rival, found = next(iter(scores["compared"].items()), ("", []))
    apart = {each["name"]: each for each in found}
    cards = []
    for matters in [each for each in scores.get("matters", ()) if each in measures][:_CARDS]:
        # By `rules` models are compared where both have written a text (images/labeler/gate.py).
        by_texts = matters == "rules" and RULES_OF_POSITIVE in apart
        name = RULES_OF_POSITIVE if by_texts else matters
        each = measures[name]
        value, told = f"{each['value']:z.3f}", f"95 %: {each['low']:z.2f} to {each['high']:z.2f}"
        if each.get("of_nothing"):
            value, told = "–", "no answer is positive"
        elif against := apart.get(name):
            told = _against(rival, against)
        cards.append(
            f'<div class="card"><span>{escape(name)}</span><b>{value}</b>'
            f"<span>{escape(told)}</span></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _against(rival: str, found: Mapping[str, Any]) -> str:
    rows = ""
    if found.get("fewest"):
        of = "or answer invalidly" if found.get("invalid") else ""
        number = "1 row" if found["rows"] == 1 else f"{found['rows']} rows"
        rows = f"{number} that both call positive {of}".rstrip()
    if evaluation.too_few(found):
        return f"not compared with the {rival}: {rows}, fewer than {found['fewest']}"
    interval = f"{found['low']:+z.2f} to {found['high']:+z.2f}"
    told = f"{found['value']:+z.3f} against the {rival} ({interval})"
    return f"{told}, on the {rows}" if rows else told
