"""How many rows of a step fit a device's memory at once, and what would help where not one does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from contracts.errors import OutOfMemory
from contracts.vram import LoadIn, Training

_SMALLER: dict[LoadIn, LoadIn] = {"fp32": "bf16", "bf16": "8bit", "8bit": "4bit"}
_QUANTISED: frozenset[LoadIn] = frozenset({"8bit", "4bit"})
"""What cannot be divided among devices (docs/how-to/several-gpus.md)."""
_LENGTH_STEP = 64
"""Tokens by which a shorter `train.max_length` is looked for."""
_SHORTEST = 64
"""The least `train.max_length` that the settings take."""
_LEAST_RANK = 8
"""Of the adapter, that is advised; below it a LoRA may learn too little."""
_WORTH_A_RANK = 0.05
"""Share of all memory from which on a smaller rank is advised: it changes what is learned."""
_CARD_SHARE = 0.95
"""Of a card's memory that training can have: a display takes some."""


@dataclass(frozen=True)
class Saving:
    """One setting that would need less memory."""

    setting: str
    mib: int
    """What it saves."""
    enough: bool
    """Whether the training then fits."""

    def __str__(self) -> str:
        short = "" if self.enough else ", which is not enough"
        return f"{self.setting} (saves {self.mib:,} MiB{short})"


def choose(training: Training, *, rows_a_step: int, free_mib: int, where: str = "") -> int:
    """Return the most rows at once that fit `free_mib`, a divisor of `rows_a_step`.

    `training.rows` does not matter. Raises `OutOfMemory` with what would help where one row of
    `training.length` tokens does not fit; `where` says what has that memory.
    """
    for rows in divisors(rows_a_step):
        if fits(training, rows, free_mib):
            return rows
    raise does_not_fit(training, free_mib, where=where)


def divisors(number: int) -> Iterator[int]:
    """Yield the divisors of a number, the largest first, in as many steps as its root has units."""
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    yield from (number // each for each in small)
    yield from (each for each in reversed(small) if each * each != number)


def halved(rows: int) -> int:
    """Return the largest divisor of a micro-batch of at most its half; 1 for 1."""
    return next((each for each in divisors(rows) if each <= rows // 2), 1)


def fits(training: Training, rows: int, free_mib: int) -> bool:
    """Return whether a micro-batch of `rows` fits."""
    return training.with_rows(rows).memory().total <= free_mib


def has_to_be_divided(training: Training, card_mib: int) -> bool:
    """Return whether a base that can be divided is too large for a card of this size by itself.

    That is so where a training with one row at once does not fit it.
    """
    whole = replace(training, shares=1)
    return training.load_in not in _QUANTISED and not fits(whole, 1, int(_CARD_SHARE * card_mib))


def savings(training: Training, free_mib: int) -> list[Saving]:
    """Return what one row at once could still save, most first.

    The last of several is all of them together, where that saves more.
    """
    single = training.with_rows(1)
    length = _shorter(single, free_mib)
    changes: dict[str, dict[str, Any]] = {}
    load_in = single.load_in
    while load_in in _SMALLER:
        load_in = _SMALLER[load_in]
        if single.cuda or load_in == "bf16":  # on a CPU quantised weights are for tests
            changes[f"train.load_in={load_in}"] = {"load_in": load_in}
            if load_in in _QUANTISED:
                changes[f"train.load_in={load_in}"]["shares"] = 1
    if not single.checkpointing:
        changes["train.gradient_checkpointing=on"] = {"checkpointing": True}
    if rank := _smaller_rank(single, free_mib):
        changes[f"train.rank={rank}"] = {"rank": rank}
    if length >= _SHORTEST:
        changes[f"train.max_length={length}"] = {"length": length}
    needed = single.memory().total

    def saving(setting: str, change: dict[str, Any]) -> Saving:
        total = replace(single, **change).memory().total
        return Saving(setting, needed - total, enough=total <= free_mib)

    found = [saving(setting, change) for setting, change in changes.items()]
    found = sorted((each for each in found if each.mib > 0), key=lambda each: -each.mib)
    if len(found) > 1:
        # In this order, of two ways to load the base the one that saves more counts.
        together = [changes[each.setting] for each in reversed(found)]
        everything = {key: value for change in together for key, value in change.items()}
        combined = saving("all of these", everything)
        if combined.mib > found[0].mib:  # with two narrow layers, ways can work against each other
            found.append(combined)
    return found


def one_of(processes: int, memory: str) -> str:
    """Return how a message calls what one process has of a memory that all of them share."""
    return memory if processes == 1 else f"one of {processes} processes' part of {memory}"


def does_not_fit(training: Training, free_mib: int, *, where: str = "") -> OutOfMemory:
    """Return the error that says what is short, by which terms, and what each way would save."""
    memory = training.with_rows(1).memory()
    device = where or ("the GPU" if training.cuda else "this machine's memory")
    return OutOfMemory(
        f"the training does not fit {device}: it takes about {memory.total:,} MiB, "
        f"{free_mib:,} MiB are free",
        why=f"one row of {training.length} tokens at once, by estimate: {memory.text()}",
        todo=advice(map(str, savings(training, free_mib)))
        + " With train.micro_batch_size=1 it is tried all the same.",
    )


def advice(ways: Iterable[str]) -> str:
    """Return what to do about too little memory, of the ways that would save some."""
    either = ", or ".join(ways)
    return f"Set {either}." if either else "Free memory, or take a larger device."


def _smaller_rank(training: Training, free_mib: int) -> int:
    """Return the largest half, quarter, … of the rank that fits, else the smallest; 0 for none.

    None is advised where the adapter is a small part of the whole.
    """
    needed, rank, found = training.memory().total, training.rank, 0
    while (rank := rank // 2) >= _LEAST_RANK:
        total = replace(training, rank=rank).memory().total
        if needed - total >= _WORTH_A_RANK * needed:
            found = rank
        if total <= free_mib:
            break
    return found


def _shorter(training: Training, free_mib: int) -> int:
    """Return the most tokens a row may have to fit, at least a quarter of now; else the half."""
    first = training.length // _LENGTH_STEP * _LENGTH_STEP
    for length in range(first, training.length // 4, -_LENGTH_STEP):
        if replace(training, length=length).memory().total <= free_mib:
            return length
    return max(1, training.length // 2)
