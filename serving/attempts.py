"""A request to a teacher and what came back, as the label cache keeps it; the room it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.label_cache import is_attempt
from serving.engine import Answer

_BYTES_PER_TOKEN = 2.5
"""Least for German in Qwen3's vocabulary: articles have 3.2 to 4.5, names and numbers less."""
_CONTEXT_STEP = 2048
"""A context is a multiple of this, so that one more item hardly ever means another one."""


@dataclass(frozen=True)
class Attempt:
    """One request and what came back, as cached and as written to the quarantine."""

    seed: int
    text: str
    finished: bool
    reason: str
    """Why the engine ended the answer."""
    prompt_tokens: int
    answer_tokens: int
    seconds: float
    """How long the model worked."""
    began_at: float | None = None
    """When the request was sent, in seconds since the epoch; None where nobody noted it."""
    ended_at: float | None = None

    @classmethod
    def of(cls, seed: int, answer: Answer, ended_at: float) -> Attempt:
        """Return what is kept of an answer that came at `ended_at`."""
        return cls(
            seed=seed,
            text=answer.text,
            finished=answer.finished,
            reason=answer.reason,
            prompt_tokens=answer.prompt_tokens,
            answer_tokens=answer.answer_tokens,
            seconds=round(answer.seconds - (answer.waited_s or 0), 3),
            began_at=round(ended_at - answer.seconds, 3),
            ended_at=round(ended_at, 3),
        )

    @classmethod
    def read(cls, rows: Iterable[Mapping[str, Any]]) -> tuple[Attempt, ...]:
        """Return cached attempts; none of them if one is unreadable, and the item is asked anew."""
        kept = list(rows)
        return tuple(cls(**row) for row in kept) if all(map(is_attempt, kept)) else ()

    @classmethod
    def given(cls, text: str, source: str) -> Attempt:
        """Return a whole answer that no request was made for."""
        return cls(0, text, True, source, 0, 0, 0.0)


def context_for(prompt: str, items: Iterable[str], num_predict: int) -> int:
    """Return a context that holds the longest item's question, answer, and a second answer."""
    longest = len(prompt.encode()) + max(len(item.encode()) for item in items)
    needed = longest / _BYTES_PER_TOKEN + 2 * num_predict
    return _CONTEXT_STEP * -(-int(needed) // _CONTEXT_STEP)
