"""How long a training will take: tokens to compute, and tokens a second.

A rate that was measured in this workspace on the same base and settings is taken before any
estimate. The estimates are good to a factor of two at best: docs/reference/memory.md.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from contracts.params import TrainParams
from contracts.vram import LoadIn, Shape

CHARACTERS_PER_TOKEN = 3.1
"""Of Qwen's vocabulary on German articles with their prompts and answers: 3.19 on average over the
340 rows of examples/liga-sample, 3.09 in the row with the fewest; so lengths come out a little
high."""
_PEAK_TFLOPS = {
    "RTX 3090": 71,
    "RTX 4090": 165,
    "RTX 5090": 209,
    "RTX A5000": 111,
    "RTX A6000": 155,
    "RTX 6000 Ada": 364,
    "A10": 125,
    "A10G": 70,
    "A40": 150,
    "A100": 312,
    "L4": 121,
    "L40": 181,
    "L40S": 362,
    "H100 PCIe": 756,
    "H100": 989,
    "H200": 989,
}
"""Dense bf16 with fp32 accumulation, by a part of NVML's name (NVIDIA's data sheets and
architecture papers)."""
_REACHED: dict[LoadIn, float] = {"bf16": 0.40, "8bit": 0.35, "4bit": 0.35, "fp32": 0.10}
"""Share of that peak a LoRA training reaches. Estimates, not measured here: 40 % is what well-tuned
bf16 trainings report (Chowdhery et al. 2022, arXiv:2204.02311, table 3: 21 to 46 %); quantised
weights are unpacked on the way, fp32 runs at TF32's rate."""
_LOAD_BYTES_S = 0.5e9
"""Reading and quantising the base from a local disk. An estimate."""


@dataclass(frozen=True)
class Pace:
    """Tokens a second, padding not counted, evaluations and checkpoints included."""

    tokens_per_s: float
    source: Literal["measured", "estimated"]


def steps_for(rows: int, *, epochs: float, max_steps: int, batch_size: int) -> int:
    """Return the number of optimizer steps; a positive `max_steps` overrides `epochs`."""
    return max_steps if max_steps > 0 else max(1, math.ceil(rows * epochs / batch_size))


def tokens_to_train(rows: int, tokens_a_row: float, params: TrainParams) -> float:
    """Return how many tokens the whole training computes, without padding."""
    steps = steps_for(
        rows, epochs=params.epochs, max_steps=params.max_steps, batch_size=params.batch_size
    )
    return steps * params.batch_size * tokens_a_row


def operations_per_token(shape: Shape, *, checkpointing: bool, length: float) -> float:
    """Return floating-point operations for one token, forward and backward.

    Two a weight forward and two backward, since frozen weights need no gradient of their own
    (Kaplan et al. 2020, arXiv:2001.08361, section 2.1, has six with it); checkpointing repeats the
    layers' forward pass. Attention: 4 `length` q_width a layer forward, half of it seen, and twice
    as much backward. The head counts for every token, though only answers need it.
    """
    passes = 3 if checkpointing else 2
    layers = passes * 2 * shape.linear_weights
    attention = (passes + 1) * 2 * length * shape.q_width * shape.layers
    return layers + attention + 2 * 2 * shape.vocabulary * shape.hidden


def estimated(shape: Shape, params: TrainParams, *, card: str, length: float) -> Pace | None:
    """Return the rate to expect on a card of this name; None for one that is not in the table."""
    known = [name for name in _PEAK_TFLOPS if re.search(rf"\b{name}\b", card)]
    if not known:
        return None
    reached = _PEAK_TFLOPS[max(known, key=len)] * 1e12 * _REACHED[params.load_in]
    each = operations_per_token(shape, checkpointing=params.checkpointing, length=length)
    return Pace(reached / each, "estimated")


def training_s(tokens: float, pace: Pace, *, base_bytes: float) -> float:
    """Return the seconds from start to end: loading the base, and every step."""
    return base_bytes / _LOAD_BYTES_S + tokens / pace.tokens_per_s


def in_words(seconds: float) -> str:
    """Return a duration as people say it: 40 s, 25 min, 1 h 50 min (in steps of 5 min)."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(5 * round(minutes / 5), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
