"""Which group goes to which split: frozen ones to test, the rest by class or by time.

First the test split is filled up from groups that no earlier run has seen, then validation from
what is left. The second step does not know which test groups are new, so a run that is repeated
after it has frozen its test set divides everything as before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from contracts.params import SplitParams

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")
LEAST_FOR_ALL = 3
"""Groups from which a facet is meant to be in every split."""


@dataclass(frozen=True)
class Unit:
    """A group of near-duplicates, as the assignment sees it."""

    facets: frozenset[str]
    """What it is, in several respects at once; never empty."""
    draw: str
    """Its place in a random order that does not change when others come and go."""
    frozen: bool = False
    """Holds an item of the frozen test set."""
    seen: bool = False
    """Holds an item that an earlier run offered to training."""
    time: datetime | None = None
    """When its content was first known."""


def assign(units: Sequence[Unit], params: SplitParams) -> list[Side]:
    """Return the split of each unit."""
    sides: list[Side] = ["test" if unit.frozen else "train" for unit in units]
    fresh = [i for i, unit in enumerate(units) if not unit.frozen and not unit.seen]
    choose = _newest if params.by == "time" else _balanced
    for i in choose(units, fresh, _wanted(units, sides, params, "test")):
        sides[i] = "test"
    rest = [i for i, side in enumerate(sides) if side != "test"]
    for i in choose(units, rest, _wanted(units, sides, params, "validation")):
        sides[i] = "validation"
    return sides


def shares(count: int, params: SplitParams) -> tuple[int, int]:
    """Return how many of a facet's groups are tested and validated on, at least one each.

    Of fewer than three, none: they are trained on only.
    """
    if count < LEAST_FOR_ALL:
        return 0, 0
    test = max(1, round(count * params.test))
    validation = max(1, round(count * params.validation))
    while test + validation >= count:  # few groups and large shares: training needs one too
        if test >= validation:
            test -= 1
        else:
            validation -= 1
    return test, validation


ALL = ""
"""The facet of every unit, by which a split's whole size is known."""


def _wanted(
    units: Sequence[Unit], sides: Sequence[Side], params: SplitParams, side: Side
) -> Counter[str]:
    """Return how many groups of each facet a split still lacks."""
    total = Counter(facet for unit in units for facet in (ALL, *unit.facets))
    has = Counter(
        facet
        for unit, at in zip(units, sides, strict=True)
        if at == side
        for facet in (ALL, *unit.facets)
    )
    position = 0 if side == "test" else 1
    return Counter({f: shares(n, params)[position] - has[f] for f, n in total.items()})


def _newest(units: Sequence[Unit], among: Sequence[int], wanted: Counter[str]) -> list[int]:
    """Return the newest; what has no date is not chosen."""
    dated = [(time, units[i].draw, i) for i in among if (time := units[i].time) is not None]
    count = max(0, wanted[ALL])
    return [i for _, _, i in sorted(dated, reverse=True)[:count]]


def _balanced(units: Sequence[Unit], among: Sequence[int], wanted: Counter[str]) -> list[int]:
    """Choose units such that each facet comes as near to what is wanted of it as it can.

    This is iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the stratification of
    multi-label data", 2011): the rarest facet is served first, since later nothing can make up for
    it. Unlike there, the units for it are not taken as they come, but those whose other facets are
    lacking most; among units of the very same facets the lowest draw decides.
    """
    waiting: dict[frozenset[str], list[int]] = defaultdict(list)
    for i in sorted(among, key=lambda i: units[i].draw, reverse=True):
        waiting[units[i].facets].append(i)
    left = Counter(facet for i in among for facet in units[i].facets)
    everywhere = Counter(facet for unit in units for facet in unit.facets)
    lacking = Counter(wanted)
    chosen: list[int] = []

    def urgency(kind: frozenset[str]) -> tuple[float, str]:
        shares = sorted(lacking[facet] / left[facet] for facet in kind)
        return -sum(shares) / len(shares), units[waiting[kind][-1]].draw

    while waiting:
        open_ = {facet for kind in waiting for facet in kind}
        rarest = min(open_, key=lambda facet: (left[facet], everywhere[facet], facet))
        kinds = [kind for kind in waiting if rarest in kind]
        while lacking[rarest] > 0 and kinds:
            kind = min(kinds, key=urgency)
            chosen.append(waiting[kind].pop())
            lacking.subtract(kind)
            left.subtract(kind)
            if not waiting[kind]:
                kinds.remove(kind)
                del waiting[kind]
        for kind in kinds:  # the rest of it is not chosen
            for facet in kind:
                left[facet] -= len(waiting[kind])
            del waiting[kind]
    return chosen
