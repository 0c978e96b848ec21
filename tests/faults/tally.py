"""Counts the faults that were survived, for the end of a session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest


class Tally:
    """What one session of the fault tests has done and seen."""

    def __init__(self) -> None:
        self._faults: Counter[str] = Counter()
        self._recoveries_s: list[float] = []
        self._notes: list[str] = []

    def survived(self, what: str, count: int = 1) -> None:
        """Count faults after which all was as it has to be."""
        self._faults[what] += count

    def recovered(self, seconds: float) -> None:
        """Count a recovery, from the call of `driver recover` to the healthy service."""
        self._recoveries_s.append(seconds)

    def note(self, line: str) -> None:
        """Keep a line for the end, e.g. a seed."""
        self._notes.append(line)

    def lines(self) -> Iterator[str]:
        """Yield the report, nothing where no fault was counted."""
        yield from self._notes
        if not self._faults:
            return
        for what, count in self._faults.most_common():
            yield f"{count:5} {what}"
        yield f"{self._faults.total():5} faults survived in all"
        if self._recoveries_s:
            yield (
                f"{len(self._recoveries_s):5} recoveries of the service, the longest "
                f"{max(self._recoveries_s):.1f} s"
            )


TALLY = pytest.StashKey[Tally]()
