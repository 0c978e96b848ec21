"""A run that failed with a deployment behind it or under way: what is served now, what broke, what
to do.

Which stage has failed does not say what the users get: a deploy can fail behind the switch, and a
model that was taken back can have left its answers in the backend. So this goes by what the serving
engine showed when the run ended, and by what is written down as still to be done.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from contracts import files, stages
from contracts.errors import FileUnusable, ItemsInvalid, RetrainError, Unforeseen
from driver import promotion, verification
from driver.host_stages.reanalysis import Outcome
from driver.host_stages.record import Record
from driver.report.finished import ENDED_WELL, Finished
from driver.served import (
    BY_ROLLBACK,
    BY_VERIFICATION,
    VERIFIED,
    taken_back_by,
    why_accepted,
)
from driver.store import Failure, Served
from driver.window import Window

Line = str | tuple[str, str]
"""A paragraph, or a label and what it is about."""
Told = tuple[str, str, tuple[Line, ...]]
"""Tone, verdict, and what there is to add, the most urgent first."""
_DIGITS = 12
_NOT_BACK = "NOT ROLLED BACK"
"""How the driver begins to tell that a deployment is not undone (verification.py)."""
_SHOWS = "`python -m driver models` shows what is live"


@dataclass(frozen=True)
class _Known:
    """What is known of the served name at the end of the run."""

    alias: str
    """"" where that is not known."""
    version: str
    """What the run has deployed, or was about to."""
    digest: str
    """The model of it; "" where that is not known."""
    served: Served | None
    """What the engine showed; None where nobody could ask it."""
    waits: bool
    """Whether it waits for a verdict."""
    undone: bool
    """Whether its taking back has begun, and not come to its end."""
    items: int
    """Items that were asked for the verification, and have its answers until the end of that."""
    switching: bool
    """Whether a switch of the name has not come to its end."""
    verified: bool
    failed: bool
    """Whether this run's own verification has failed; `verified` is then by an earlier one."""
    away: bool
    """Whether the service has been left stopped."""

    @property
    def live(self) -> bool | None:
        """Whether the model is live; None where that is not known."""
        if self.served is None or not self.digest:
            return None
        return self.served.digest == self.digest

    @property
    def nothing(self) -> bool:
        """Whether the name is known to name no model."""
        return self.served is not None and not self.served.digest


def told(found: Finished, failure: Failure) -> Told | None:
    """Return the head for a run that `failure` has ended; None where it had begun no deployment."""
    deploy, verify = found.noted(stages.DEPLOY), found.noted(stages.VERIFY)
    if deploy.state not in (*ENDED_WELL, "failed"):
        return None
    known = _known(found)
    if verify.state == "failed":
        return _not_verified(known, failure, verify.error)
    failed = next((n for n, each in found.state.stages.items() if each.state == "failed"), "")
    where = f"Failed in the stage {failed}" if failed else "Failed"
    if failed == stages.DEPLOY.name and known.live:
        where += ", behind the switch"
    if known.nothing:
        said = f"{known.alias} names nothing now"
    elif known.live is None:
        said = f"whether {known.version} is live is not known"
    elif known.live:
        standing = "and verified" if known.verified else "and nobody has verified it"
        said = f"{known.version} is live, {standing}"
    else:
        said = f"{known.version} is not live"
    return "bad", f"{where}: {said}", _lines(known, failure)


def untouched(found: Finished) -> str:
    """Say for a run that has let nothing new go live what is served, as far as that was seen.

    That need not be what was live before: the start of a run settles what another has left.
    """
    served = found.state.served
    if served is None:
        return f"The run has let nothing new go live; {_SHOWS}."
    if not served.digest:
        return f"The run has let nothing new go live; {served.alias} named no model at its end."
    named = served.version or "a model that has no version"
    digest = served.digest[:_DIGITS]
    return f"The run has let nothing new go live; {served.alias} named {named} (digest {digest})."


def stopped(found: Finished) -> str:
    """Say for a run that was stopped what was served at its end, "" where nobody noted it."""
    if found.state.served is None:
        return ""
    known = _known(found)
    return " ".join(each for each in (_served(known), _todo(known), f"{_SHOWS} now.") if each)


def taken_back_since(found: Finished, deployed: Mapping[str, Any]) -> Told:
    """Return the head for a run whose version was live, and was taken back after the run."""
    by = ""
    with suppress(RetrainError):  # damaged: the next start says so
        by = taken_back_by(found.workspace, str(deployed["alias"]), str(deployed["digest"]))
    by = by or f"{BY_ROLLBACK}, or by {BY_VERIFICATION}"
    lines = (
        ("Served now", f"not this version; {_SHOWS}."),
        ("What broke", f"The model was taken back: by {by}."),
        ("What to do", _items_left(found) or "Nothing: no item is known to have its answers."),
    )
    return "bad", f"Was live, and was taken back since: {deployed['tag']}", lines


def moved(found: Finished) -> Told | None:
    """Return the head for a run that came to its end although the name names another model."""
    known = _known(found)
    if known.live is not False:
        return None
    lines = (
        ("Served now", _served(known)),
        ("What broke", "Nothing that the run has noted: somebody else has let it name that."),
        ("What to do", f"{_SHOWS}; `driver rollback VERSION` lets another version be live."),
    )
    return "bad", f"Not live, although the run came to its end: {known.version}", lines


def _items_left(found: Finished) -> str:
    """Say what to do about items that have the model's answers still, "" where none has."""
    job = found.job(stages.DEPLOY)
    if job is None:
        return ""
    digest = job.inputs[stages.GGUF.name].digest
    try:
        for record in Record.by_last_run(found.workspace):
            about, lines = record.about(), record.lines()
            if about.restored_at:
                return ""
            done = {line["id"] for line in lines if line.get("outcome") == Outcome.PROCESSED}
            if about.model == digest:
                return _have(len(done | {*about.canaries}))
            if record.begun:
                finished = bool(lines) and not {"finished", "due"}.isdisjoint(lines[-1])
                return "" if finished else _partly(len(done), about.items)
    except FileUnusable as error:
        return str(error)
    return ""


def _have(items: int) -> str:
    if not items:
        return ""
    return (
        f"{'1 item has' if items == 1 else f'{items} items have'} its answers still; `python -m "
        "driver reprocess` gives all items those of the model that is live."
    )


def _partly(done: int, items: int) -> str:
    return (
        f"{done} of {items} items have been given another model's answers, the rest can have this "
        "one's still: `python -m driver reprocess` goes on."
    )


def _known(found: Finished) -> _Known:
    deployed, served = found.metrics(stages.DEPLOY), found.state.served
    verdict = found.read(stages.EVALUATE, stages.VERDICT) or {}
    digest = str(deployed.get("digest") or verdict.get("candidate") or "")
    alias = str(deployed.get("alias") or (served.alias if served else ""))
    name = alias.partition(":")[0]
    record = switch = None
    with suppress(FileUnusable):
        record = verification.read(found.workspace)
    with suppress(FileUnusable):
        switch = promotion.read(found.workspace)
    ours = record is not None and record.digest == digest
    return _Known(
        alias=alias,
        version=str(deployed.get("tag") or (f"{name}:{found.run.id}" if name else "the candidate")),
        digest=digest,
        served=served,
        waits=ours,
        undone=record is not None and ours and record.undo,
        items=_asked_items(found, record) if record is not None and ours else 0,
        switching=switch is not None,
        verified=_is_verified(found, "" if ours else alias, digest),
        failed=found.noted(stages.VERIFY).state == "failed",
        away=_is_away(found),
    )


def _is_verified(found: Finished, alias: str, digest: str) -> bool:
    """Return whether this run has verified the model, or an earlier one has as this name."""
    if found.noted(stages.VERIFY).state in ENDED_WELL:
        return True
    with suppress(RetrainError):  # damaged: the next start says so
        return why_accepted(found.workspace, alias, digest) == VERIFIED
    return False


def _asked_items(found: Finished, record: verification.Record) -> int:
    try:
        return len(list(files.read_jsonl(found.workspace / record.canaries)))
    except (OSError, ItemsInvalid):
        return 0  # none was asked


def _is_away(found: Finished) -> bool:
    try:
        return Window(found.workspace, None).is_open
    except RetrainError:  # damaged: the next start says so
        return False


# --- the verification ----------------------------------------------------------------------------
def _not_verified(known: _Known, failure: Failure, error: str) -> Told:
    """Return the head where a verification has failed; `error` also holds what was done then."""
    live = _NOT_BACK in error if known.live is None else known.live
    unforeseen = failure.kind == Unforeseen.__name__  # of which no deployment is taken back at once
    if not live and known.undone:
        left = "1 item still has" if known.items == 1 else f"{known.items} items still have"
        head = f"Taken back, but {left} its answers: {known.version}"
    elif not live and not (unforeseen and known.live is None):
        head = "Not verified: the deployed model does not stay live"
    else:
        yet = " yet" if known.undone or unforeseen else ""
        head = f"Not verified, and not taken back{yet}: {known.version}"
    known_already = str(_as_error(failure)).splitlines()
    said = tuple(line for line in error.splitlines() if line not in known_already)
    return "bad", head, (*_lines(known, failure), *said)


# --- in words ------------------------------------------------------------------------------------
def _lines(known: _Known, failure: Failure) -> tuple[Line, ...]:
    broke = f"{failure.what}{f' ({failure.why})' if failure.why else ''}."
    return (
        ("Served now", f"{_served(known)}{' The service is stopped.' if known.away else ''}"),
        ("What broke", broke),
        ("What to do", " ".join(each for each in (failure.todo, _todo(known)) if each)),
    )


def _served(known: _Known) -> str:
    """Say what the served name named when the run ended."""
    served = known.served
    if served is None:
        named = f"{known.alias} was made to name {known.version}. " if known.alias else ""
        return f"{named}Nobody could ask the serving engine when the run ended; {_SHOWS}."
    if known.nothing:
        return (
            f"NOTHING: {known.alias} named no model when the run ended, so whoever asks for it "
            "gets no answers."
        )
    digest = f"(digest {served.digest[:_DIGITS]})"
    if known.live:
        verified = "verified" if known.verified else "which nobody has verified"
        if known.verified and known.failed:
            verified = "which an earlier run has verified, and this one has not"
        new = f"{served.alias} named the new model, {known.version} {digest}"
        return f"{new}, when the run ended, {verified}."
    other = served.version or "a model that has no version"
    return f"{served.alias} named {other} {digest} when the run ended, not {known.version}."


def _todo(known: _Known) -> str:
    """Say what ends what is still to be done."""
    found = []
    if known.away:
        found.append("`python -m driver recover` brings the service back.")
    if known.switching:
        found.append(
            "The next start of the driver, or `python -m driver recover`, finishes the switch or "
            "undoes it."
        )
    if known.undone:
        found.append(
            "The next start of the driver, or `python -m driver recover`, ends the taking back: "
            "every item that was asked is analysed by what is live then."
        )
    elif known.waits and known.live is not False:
        found.append(
            f"`python -m driver run` verifies {known.version}, or takes it back; `python -m driver "
            "recover` takes it back at once."
        )
    elif not known.switching and (known.nothing or (known.live and not known.verified)):
        found.append(
            "`python -m driver models` lists the versions, and `python -m driver rollback VERSION` "
            "lets one of them be live."
        )
    return " ".join(found)


def _as_error(failure: Failure) -> RetrainError:
    return RetrainError(failure.what, why=failure.why, todo=failure.todo)
