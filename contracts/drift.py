"""How far one model's predictions lie from another's, and how far they may.

The trainer leaves what base and adapter predict at some places of the validation answers
(contracts/reference.py). What is made of them later (merged weights, a quantised file in an engine)
is shown the same tokens, and its predictions are held against those. Standard library only: the
labeler compares without torch.

Measured are the Kullback-Leibler divergence D(reference || found) in nats, averaged over the
places, and how often both hold the same token for the likeliest. Of both distributions only the
likeliest tokens are known, so the divergence is that of a coarser partition of the vocabulary:
a lower bound, since merging outcomes never adds to it (Cover & Thomas, Elements of Information
Theory, 2nd ed., theorem 2.7.1, the log sum inequality).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from contracts.errors import SentinelTripped

Token = TypeVar("Token", bound=Hashable)
Logprobs = Mapping[Token, float]
"""The likeliest tokens of a distribution, with the natural logarithms of their probabilities."""

TIE = 0.1
"""Nats by which a token may be less likely than the likeliest and still count as its equal."""

_LEAST_REST = 1e-7  # below that a remainder is rounding: logarithms come with six digits


@dataclass(frozen=True)
class Limit:
    """What still passes: the mean divergence at most, the share of equal top tokens at least."""

    divergence: float
    agreement: float


AS_TRAINED = {
    "fp32": Limit(1e-4, 0.98),
    "bf16": Limit(0.02, 0.9),
    "8bit": Limit(0.1, 0.85),
    "4bit": Limit(0.5, 0.7),
}
"""By `train.load_in`: base and adapter as they were held in training, against the original base in
its own type with the same adapter."""

MERGED = {"fp32": Limit(1e-5, 0.99), "bf16": Limit(4e-4, 0.98)}
"""By `merge.dtype`. The merge rounds each touched weight once. In bf16 the relative error is 0.0017
(rms of normally distributed weights; 0.0054 in q8_0): a tenth of q8_0's squared error, so by the
rule below a tenth of its 0.0014 nats, three times."""

GGUF = {
    "f16": Limit(1e-3, 0.97),
    "bf16": Limit(1e-3, 0.97),
    "q8_0": Limit(5e-3, 0.95),
    "q6_k": Limit(0.015, 0.93),
    "q5_k_m": Limit(0.03, 0.9),
    "q4_k_m": Limit(0.1, 0.85),
}
"""By type of the file. About three times what llama.cpp's scoreboard (tools/perplexity/README.md)
has for Llama 3 8B on free text: q8_0 0.0014, q6_K 0.0057, q5_K_M 0.011, q4_K_M about 0.03. Answers
of a trained form are more certain than free text, and their divergence is smaller."""


@dataclass(frozen=True)
class Drift:
    """The comparison of two models over all places."""

    divergence: float
    agreement: float
    positions: int

    def __str__(self) -> str:
        """Return the figures for people."""
        return (
            f"KL divergence {self.divergence:.2g} nats, top token equal at "
            f"{self.agreement:.1%} of {self.positions} positions"
        )


def measure(pairs: Sequence[tuple[Logprobs[Token], Logprobs[Token]]]) -> Drift:
    """Return the drift over pairs of (reference, found), one a place; there must be one."""
    return Drift(
        divergence=sum(divergence(*pair) for pair in pairs) / len(pairs),
        agreement=sum(agree(*pair) for pair in pairs) / len(pairs),
        positions=len(pairs),
    )


def divergence(reference: Logprobs[Token], found: Logprobs[Token]) -> float:
    """Return a lower bound of D(reference || found) in nats; infinity where one holds a NaN.

    The outcomes are: each token that both know, the tokens that only `found` knows, and all else.
    What the reference gives to the second kind is not known, only that each is less likely than
    its last known one; of all shares that fit, the one that makes the divergence smallest counts.
    """
    if any(map(math.isnan, (*reference.values(), *found.values()))):
        return math.inf  # max() and min() below would make a small number of it
    known = reference.keys() & found.keys()
    total = math.fsum(
        math.exp(reference[token]) * (reference[token] - found[token]) for token in known
    )
    only_found = [found[token] for token in found.keys() - known]
    share_known = math.fsum(math.exp(reference[token]) for token in known)
    left = max(0.0, 1.0 - share_known)
    beyond = max(0.0, 1.0 - math.fsum(math.exp(value) for value in reference.values()))
    most = min(len(only_found) * math.exp(min(reference.values(), default=0.0)), beyond)
    new = math.fsum(math.exp(value) for value in only_found)
    rest = max(_LEAST_REST, 1.0 - math.fsum(math.exp(value) for value in found.values()))
    given = min(most, left * new / (new + rest))
    return max(0.0, total + _term(given, new) + _term(left - given, rest))


def agree(reference: Logprobs[Token], found: Logprobs[Token]) -> bool:
    """Return whether the token likeliest in `found` is so in the reference, or as good as that."""
    top = max(found, key=lambda token: found[token])
    return top in reference and max(reference.values()) - reference[top] <= TIE


def check(sentinel: str, drift: Drift, limit: Limit, *, what: str, todo: str) -> None:
    """Raise `SentinelTripped` unless the drift is within its limit."""
    if drift.divergence <= limit.divergence and drift.agreement >= limit.agreement:
        return
    raise SentinelTripped(
        f"sentinel {sentinel}: {what}",
        why=f"{drift}; allowed are {limit.divergence:g} nats and {limit.agreement:.0%}",
        todo=todo,
    )


def _term(share: float, other: float) -> float:
    return share * math.log(share / other) if share > 0 and other > 0 else 0.0
