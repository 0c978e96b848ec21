"""What a comparison with the outside finds, and what of it can be mended by an edit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Severity(StrEnum):
    """What a difference means for production."""

    BREAKS = "breaks"
    """An answer would be lost, refused, or shown as an error: a run refuses to go on."""
    DIFFERS = "differs"
    """Answers are kept, but are worse, or are not shown as the task means them."""


@dataclass(frozen=True)
class Edit:
    """A replacement in a file of the checkout."""

    path: str
    """Relative to the checkout."""
    start: int
    """Bytes from the file's beginning, of what is replaced; equal to `end` for an insertion."""
    end: int
    text: str


@dataclass(frozen=True)
class Finding:
    """One difference."""

    place: str
    """`file:line`, or what of the outside it is."""
    differs: str
    leads_to: str
    todo: str
    severity: Severity = Severity.DIFFERS
    edit: Edit | None = None
    """What mends it, where that is mechanical."""
    also: tuple[Edit, ...] = ()
    """What `edit` needs elsewhere in its file, such as an import."""

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All that mends it; () where that is not mechanical."""
        return () if self.edit is None else (self.edit, *self.also)

    def in_doubt(self, leads_to: str = "") -> Finding:
        """Return it as one that breaks nothing for certain, and that no patch mends.

        `leads_to`: what comes of it then, where that is known.
        """
        if self.severity is Severity.DIFFERS:
            return self
        effect = leads_to or f"if this is of the task's answers: {self.leads_to}"
        return replace(self, leads_to=effect, severity=Severity.DIFFERS, edit=None, also=())

    def line(self) -> str:
        """Return it as one line."""
        return f"{self.place}: {self.differs}; {self.leads_to}. {self.todo}"


@dataclass(frozen=True)
class Compared:
    """What came of one place of the outside."""

    place: str
    findings: tuple[Finding, ...] = ()
    unclear: tuple[str, ...] = ()
    """What could not be compared, and why: nothing is said of it."""
    checked: int = 0
    """How many statements of the place were held against the definition."""
