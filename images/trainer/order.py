"""In which order the rows are seen: decided once, before the training, from the seed.

A fixed order makes a resumed training see exactly the rows that a kill left out, and lets rows of
like length share a micro-batch, which saves padding. Micro-batches are shuffled, so that one
optimizer step still sees long and short answers: length goes with the class here (an irrelevant
item has a short answer), and steps of one class alone would swing the model back and forth. For
the same reason rows are not sorted where a step is a single micro-batch.

Where rows are packed there is no padding to save. Then rows are plainly shuffled, and those of a
step are dealt out so that its micro-batches are of like size, and none needs far more memory.
"""

from __future__ import annotations

import random

from contracts.pace import steps_for

__all__ = ["for_processes", "steps_for", "training_order"]


def training_order(
    lengths: list[int],
    *,
    steps: int,
    batch_size: int,
    micro_batch_size: int,
    seed: int,
    packed: bool = False,
) -> list[int]:
    """Return indices of rows, `steps * batch_size` of them, epoch after epoch.

    Every slice of `micro_batch_size` indices is one forward pass.
    """
    source = random.Random(seed)  # noqa: S311  # an order, not a secret
    order: list[int] = []
    while len(order) < steps * batch_size:
        if micro_batch_size < batch_size and not packed:
            order += _epoch(lengths, micro_batch_size, source)
        else:
            order += source.sample(range(len(lengths)), len(lengths))
    order = order[: steps * batch_size]
    if not packed:
        return order
    each = (order[at : at + batch_size] for at in range(0, len(order), batch_size))
    return [index for step in each for index in _dealt(lengths, step, micro_batch_size)]


def _dealt(lengths: list[int], step: list[int], size: int) -> list[int]:
    """Return the rows of a step, every `size` of them of about the same length in sum."""
    groups: list[list[int]] = [[] for _ in range(len(step) // size)]
    for index in sorted(step, key=lambda index: -lengths[index]):
        open_ones = (group for group in groups if len(group) < size)
        min(open_ones, key=lambda group: sum(lengths[i] for i in group)).append(index)
    return [index for group in groups for index in group]


def _epoch(lengths: list[int], size: int, source: random.Random) -> list[int]:
    """Return each index once; what does not fill a micro-batch comes last, and is filled up."""
    shuffled = source.sample(range(len(lengths)), len(lengths))
    by_length = sorted(shuffled, key=lambda index: lengths[index])
    # The start of the buckets moves from epoch to epoch, so that other rows meet.
    offset = source.randrange(size)
    groups = [by_length[:offset]] if offset else []
    groups += [by_length[i : i + size] for i in range(offset, len(by_length), size)]
    whole = [group for group in groups if len(group) == size]
    rest = [index for group in groups if len(group) < size for index in group]
    source.shuffle(whole)
    if rest:  # repeats a few rows rather than shift all later micro-batches by one
        rest += source.choices(by_length, k=-len(rest) % size)
    return [index for group in whole for index in group] + rest


def for_processes(
    order: list[int],
    lengths: list[int],
    *,
    batch_size: int,
    micro_batch_size: int,
    processes: int,
) -> list[int]:
    """Return the order with each step's micro-batches for `processes` that take them in turn.

    The rows of a micro-batch and the micro-batches of a step stay what they were. Within a step,
    process p takes the micro-batches p, p + processes, …; they are put so that those side by side
    are of like length, and that no process has much more to do than another: at the end of a step,
    and within one where the base is divided, all wait for the slowest.
    """
    if processes == 1:
        return order
    found: list[int] = []
    for start in range(0, len(order), batch_size):
        step = order[start : start + batch_size]
        micro = [step[i : i + micro_batch_size] for i in range(0, len(step), micro_batch_size)]
        micro.sort(key=lambda rows: -sum(lengths[row] for row in rows))
        load = [0] * processes
        for turn in range(0, len(micro), processes):
            side_by_side = micro[turn : turn + processes]  # the longest first
            idle_first = sorted(range(processes), key=lambda process: load[process])
            taken = dict(zip(idle_first, side_by_side, strict=True))
            for process in range(processes):
                found += taken[process]
                load[process] += sum(lengths[row] for row in taken[process])
    return found
