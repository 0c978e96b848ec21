"""The check that a run makes first: what would break production stops it before anything changes.

What only makes answers worse is told in one line: `driver task check` has the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts import stages
from contracts.errors import RetrainError
from driver.task.check import outside
from driver.task.check.command import drifted
from driver.task.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from contracts.stage import Stage
    from driver.session import Session

_STORED = frozenset({stages.DEPLOY, stages.VERIFY, stages.REPROCESS})
"""Stages after which the backend stores answers of this definition."""


def check(session: Session, running: Sequence[Stage]) -> list[str]:
    """Return the breaking differences that were accepted; raise `TaskDrifted` for any others.

    Without a backend, and where no stage lets it store anything, nothing is asked. One that a dead
    run has stopped is not asked either, though its code is looked at.
    """
    backend = session.settings.backend
    if backend is None or not _STORED & {*running}:
        return []
    url = "" if session.window.is_open else backend.url
    name = session.settings.deploy.name
    source = Source(session.task)
    compared = outside.everywhere(source, url, backend.repository, session.engine, name)
    broken = outside.breaking(compared)
    if broken and not session.settings.accept_drift:
        raise drifted(broken)
    for finding in broken:
        session.display.warn(f"accepted: {finding.line()}")
    rest = sum(len(each.findings) for each in compared) - len(broken)
    if rest:
        session.display.warn(
            f"the task differs from what is outside in {rest} place{'s' if rest > 1 else ''}, "
            "which breaks nothing: "
            "`python -m driver task check` shows them"
        )
    return [finding.line() for finding in broken]


def doubts(session: Session, running: Sequence[Stage]) -> Iterator[str]:
    """Yield what a run of these stages would be refused for."""
    try:
        check(session, running)
    except RetrainError as error:
        yield str(error)
