"""In which order the rows are seen: decided once, before the training, from the seed.

A fixed order makes a resumed training see exactly the rows that a kill left out. Which rows a step
sees follows from seed, lengths and batch size alone: not from what is computed at once, which the
memory decides, nor by which backend, packed or padded, in how many processes. How the rows of a
step are put into its micro-batches does follow from these, and changes nothing but rounding.

Rows of like length are put together, a few at a time, since sharing a micro-batch they pad little.
A step holds several such groups, by chance, so that it still sees long and short answers: length
goes with the class here (an irrelevant item has a short answer), and steps of one class alone would
swing the model back and forth.
"""

from __future__ import annotations

import random

from contracts.pace import steps_for

__all__ = ["micro_batches", "steps_for", "training_order"]

_GROUP = 4
"""Rows of like length that stay together, at most; never more than half a step. On the sample, with
four rows at once and eight a step, 0.6 % are padding; of a plain shuffle, sorted in the step, 9 %.
"""


def training_order(lengths: list[int], *, steps: int, batch_size: int, seed: int) -> list[int]:
    """Return indices of rows, `batch_size` for each step, epoch after epoch."""
    source = random.Random(seed)  # noqa: S311  # an order, not a secret
    most = min(_GROUP, max(1, batch_size // 2))
    size = next(each for each in range(most, 0, -1) if batch_size % each == 0)
    order: list[int] = []
    while len(order) < steps * batch_size:
        order += _epoch(lengths, size, source, begun=len(order) % size)
    return order[: steps * batch_size]


def _epoch(lengths: list[int], size: int, source: random.Random, *, begun: int) -> list[int]:
    """Return each index once, in groups of `size`, of which the first has `begun` rows already.

    A group's worth of rows, drawn by chance, is not sorted: so other rows meet in every epoch.
    """
    shuffled = source.sample(range(len(lengths)), len(lengths))
    first = -begun % size
    loose = first + (len(lengths) - first) % size + size
    by_length = sorted(shuffled[loose:], key=lambda index: lengths[index])
    groups = [by_length[at : at + size] for at in range(0, len(by_length), size)]
    source.shuffle(groups)
    sorted_ones = [index for group in groups for index in group]
    return shuffled[:first] + sorted_ones + shuffled[first:loose]


def micro_batches(
    order: list[int],
    lengths: list[int],
    *,
    batch_size: int,
    micro_batch_size: int,
    packed: bool = False,
    processes: int = 1,
) -> list[int]:
    """Return the order with the rows of each step put into micro-batches.

    Every slice of `micro_batch_size` indices is one forward pass. Padded rows meet those of like
    length; packed ones, which have no padding, are dealt out so that micro-batches are of like
    size, and none needs far more memory. Several processes take the micro-batches in turn.
    """
    found: list[int] = []
    for start in range(0, len(order), batch_size):
        step = sorted(order[start : start + batch_size], key=lambda index: -lengths[index])
        size = micro_batch_size
        if packed:
            micro = _dealt(lengths, step, size)
        else:
            micro = [step[at : at + size] for at in range(0, len(step), size)]
        for each in _in_turns(lengths, micro, processes) if processes > 1 else micro:
            found += each
    return found


def _dealt(lengths: list[int], step: list[int], size: int) -> list[list[int]]:
    """Return a step's rows, the longest first, in groups of `size` of about the same length."""
    groups: list[list[int]] = [[] for _ in range(len(step) // size)]
    for index in step:
        open_ones = (group for group in groups if len(group) < size)
        min(open_ones, key=lambda group: sum(lengths[i] for i in group)).append(index)
    return groups


def _in_turns(lengths: list[int], micro: list[list[int]], processes: int) -> list[list[int]]:
    """Return a step's micro-batches as several processes take them: p, p + processes, and so on.

    Those side by side are of like length, and no process has much more to do than another: at the
    end of a step, and within one where the base is divided, all wait for the slowest.
    """
    micro = sorted(micro, key=lambda rows: -sum(lengths[row] for row in rows))
    found: list[list[int]] = []
    load = [0] * processes
    for turn in range(0, len(micro), processes):
        side_by_side = micro[turn : turn + processes]  # the longest first
        idle_first = sorted(range(processes), key=lambda process: load[process])
        taken = dict(zip(idle_first, side_by_side, strict=True))
        for process in range(processes):
            found.append(taken[process])
            load[process] += sum(lengths[row] for row in taken[process])
    return found
