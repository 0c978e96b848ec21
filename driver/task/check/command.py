"""`driver task check`: the table of differences, or the patch for what is mechanical."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from contracts.errors import SettingsInvalid, TaskDrifted
from driver.report.display import LastingConsole
from driver.task.check import outside, patch, sent
from driver.task.check.finding import Compared, Finding
from driver.task.source import Source

if TYPE_CHECKING:
    from driver.session import Session

_HEADS = ("means", "place", "what differs", "what it leads to", "what to change")


def check(session: Session, repository: Path | None, seen: Path | None, *, as_patch: bool) -> int:
    """Show what differs outside; raise `TaskDrifted` where production would break.

    With `as_patch` nothing but the diff goes to stdout, and the rest to stderr. Writes nothing.
    """
    settings, backend = session.settings, session.settings.backend
    source = Source.of(settings.task)
    root = repository or (backend.repository if backend else None)
    if as_patch and root is None:
        raise SettingsInvalid(
            "a patch needs a checkout of the backend's code",
            todo="Name it: --repository DIR, or set backend.repository.",
        )
    url = backend.url if backend else ""
    try:
        compared = outside.everywhere(source, url, root, session.engine, settings.deploy.name)
    finally:
        session.close()
    if seen is not None:
        compared.append(sent.compare(source, sent.read(seen), seen.name))
    findings = [finding for each in compared for finding in each.findings]
    if as_patch and root is not None:
        _print_patch(root, findings)
    else:
        _show(compared, findings)
    if broken := outside.breaking(compared):
        raise drifted(broken)
    return 0


def drifted(broken: Sequence[Finding]) -> TaskDrifted:
    """Return the error for differences that would break production."""
    first = broken[0]
    return TaskDrifted(
        f"{len(broken)} differences would break production"
        if len(broken) > 1
        else "a difference would break production",
        why=f"{first.place}: {first.differs}; {first.leads_to}",
    )


def _print_patch(root: Path, findings: Sequence[Finding]) -> None:
    diff, left_out = patch.of(root, [edit for each in findings for edit in each.edits])
    sys.stdout.buffer.write(diff)
    sys.stdout.flush()
    for finding in findings:
        if finding.edit is None or finding.edit.path in left_out:
            print(f"by hand: {finding.line()}", file=sys.stderr)


def _show(compared: Sequence[Compared], findings: Sequence[Finding]) -> None:
    console = LastingConsole(highlight=False, soft_wrap=True)
    rows = [
        (f.severity.value, f.place, f.differs, f.leads_to, f.todo)
        for f in sorted(findings, key=lambda finding: finding.severity)
    ]
    if rows and console.is_terminal:
        table = Table(show_lines=True)
        for head in _HEADS:
            table.add_column(head, overflow="fold")
        for row in rows:
            table.add_row(*(escape(each) for each in row))
        console.print(table, soft_wrap=False)
    elif rows:
        for row in (_HEADS, *rows):  # not by print, which would turn tabs into blanks
            console.file.write("\t".join(" ".join(each.split()) for each in row) + "\n")
    for each in compared:
        for reason in each.unclear:
            console.say(f"not compared, {each.place}: {reason}")
    looked = ", ".join(f"{each.place} ({each.checked})" for each in compared if each.checked)
    console.say(f"Compared: {looked or 'nothing'}. Differences: {len(findings)}.")
