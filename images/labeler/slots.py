"""How many requests a server gets at once: as many as it really answers at once, found out."""

from __future__ import annotations

from serving.engine import Answer

_NO_WAITING = 0.05
"""Share of a request's time; below it lie measuring and the network."""
_WORTH_IT = 1.2
"""How much more has to be done at twice as many requests, for them to be kept."""
_ROUNDS_KEPT = 8
"""Rounds until twice as many are tried again, where only the pace tells: one may have been odd."""


class Slots:
    """The limit of the requests under way at a server; times are those of one clock, in s.

    Where answers say how long they waited, that tells: with n requests under way at a server that
    answers P < n of them at once, the share 1 - P/n of their time is waiting. The limit is doubled
    until they wait, and is then P + 1, so that no slot idles. Where they do not say, the limit is
    doubled as long as the server then gets more done in a second.
    """

    def __init__(self, ceiling: int) -> None:
        self.limit = 1
        self._ceiling = ceiling
        self.begun = 0
        self._begun_before = 0
        """Requests from before the limit was changed, which say nothing about it."""
        self._round: list[Answer] = []
        """As many answers as the limit make a round."""
        self._round_began: float | None = None
        self._doubled: tuple[int, float] | None = None
        """The limit that was doubled last, and the pace at it in tokens/s."""
        self._kept = 0

    def begin(self, now: float) -> int:
        """Count a request and return its number."""
        self.begun += 1
        if self._round_began is None:
            self._round_began = now
        return self.begun

    def note(self, number: int, answer: Answer, now: float) -> None:
        """Learn from the answer to a request, which has come now."""
        if number <= self._begun_before:
            return
        self._round.append(answer)
        if len(self._round) < self.limit:
            return
        waited = [each.waited_s for each in self._round if each.waited_s is not None]
        wanted = self._by_pace(now) if len(waited) < self.limit else self._by_waiting(waited)
        self._round.clear()
        self._round_began = now
        if (limit := min(self._ceiling, wanted)) != self.limit:
            self.limit, self._begun_before, self._round_began = limit, self.begun, None

    def _by_waiting(self, waited: list[float]) -> int:
        whole = sum(each.seconds for each in self._round)
        share = sum(waited) / whole if whole else 0.0
        return (
            2 * self.limit if share < _NO_WAITING else max(1, round(self.limit * (1 - share))) + 1
        )

    def _by_pace(self, now: float) -> int:
        """Return twice the limit, or what it was before where doubling it was not worth it."""
        if self._kept:
            self._kept -= 1
            return self.limit
        seconds = now - (self._round_began or now)
        done = sum(max(1, each.answer_tokens) for each in self._round)  # some tell no tokens
        pace = done / seconds if seconds else float("inf")
        before, self._doubled = self._doubled, (self.limit, pace)
        if before is None or pace >= _WORTH_IT * before[1]:
            return 2 * self.limit
        self._doubled, self._kept = None, _ROUNDS_KEPT
        return before[0]
