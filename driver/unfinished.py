"""What of a deployment has not come to its end, as far as the workspace says: for `driver models`.

Nothing is changed, so this tells of a driver that is at work, too. Said is what the next start will
do (`verification.settle`), which depends on what is live by now, and on who has accepted it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contracts.errors import FileUnusable
from driver import locks, promotion, served, taken_back, verification
from driver.window import Window


@dataclass(frozen=True)
class Unfinished:
    """What waits for its end: of a run that was killed, or of one that is at work."""

    version: str = ""
    """What waits for its verdict, "" for nothing, or where somebody has accepted it."""
    digest: str = ""
    """Of that version."""
    lines: tuple[str, ...] = ()
    """In words, with what ends it."""


def unfinished(workspace: Path, live: str) -> Unfinished:
    """Return what of the last deployment is not finished; a damaged record is told as such.

    `live` is the digest of what the served name names, "" for nothing.
    """
    at_work = locks.is_held(workspace)
    lines, record = [], None
    try:
        taken_back.rejected(workspace)
    except FileUnusable as error:
        lines += ["No version is shown as taken back, whether it was or not.", str(error)]
    try:
        record = verification.read(workspace)
        if record:
            accepted = served.is_accepted(workspace, record.alias, record.digest)
            lines.append(_of_verification(record, live, accepted=accepted, at_work=at_work))
            record = None if accepted else record
    except FileUnusable as error:
        lines.append(str(error))
    try:
        if switch := promotion.read(workspace):
            ends = _ends("finishes the switch or undoes it", at_work=at_work)
            lines.append(f"{switch.alias} is being switched to {switch.version}: {ends}.")
    except FileUnusable as error:
        lines.append(str(error))
    if Window(workspace, None).is_open:
        ends = "a run is at work" if at_work else "`driver recover` brings it back"
        lines.append(f"The service is stopped, or switched off, for the GPU: {ends}.")
    said = tuple(dict.fromkeys(lines))
    if record is None:
        return Unfinished(lines=said)
    return Unfinished(record.version, record.digest, said)


def _of_verification(
    record: verification.Record, live: str, *, accepted: bool, at_work: bool
) -> str:
    if accepted:
        return (
            f"The verification of {record.version} was cut off, but it had passed one before, or "
            f"`driver rollback` has asked for it: {_ends('lets it stay', at_work=at_work)}."
        )
    if live and live != record.digest:
        asks = "has the items that it was asked about analysed by what is live"
        ends = _ends(asks if record.backend else "forgets that", at_work=at_work)
        return f"{record.version} was not verified, and is not live any more: {ends}."
    if record.undo:
        ends = _ends("ends that", at_work=at_work)
        return f"{record.version} failed its verification, and is being taken back: {ends}."
    ends = "`driver run` verifies it, or takes it back; `driver recover` takes it back"
    return (
        f"{record.version} is not verified, its verification is not finished: "
        f"{'a run is at work' if at_work else ends}."
    )


def _ends(what: str, *, at_work: bool) -> str:
    return "a driver is at work" if at_work else f"the next run, or `driver recover`, {what}"
