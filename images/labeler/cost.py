"""What the teacher's answers that are in use have cost, whichever start of the stage got them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from serving.attempts import Attempt


def cost(conversations: Iterable[Sequence[Attempt]]) -> dict[str, Any]:
    """Return the cost of conversations, each given once, in requests, tokens and seconds.

    `model_s` is the model's time, in which requests that ran at once count each. `elapsed_s` is
    the time in which at least one was under way, so that pauses between two starts are no part
    of it; `untimed` requests, kept by a version that noted no times, are not in it.
    """
    attempts = [attempt for conversation in conversations for attempt in conversation]
    spans = [
        (each.began_at, each.ended_at)
        for each in attempts
        if each.began_at is not None and each.ended_at is not None
    ]
    return {
        "requests": len(attempts),
        "prompt_tokens": sum(each.prompt_tokens for each in attempts),
        "answer_tokens": sum(each.answer_tokens for each in attempts),
        "model_s": round(sum(each.seconds for each in attempts), 1),
        "elapsed_s": round(_covered_s(spans), 1),
        "untimed": len(attempts) - len(spans),
    }


def _covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Return how many seconds lie in at least one span (began, ended)."""
    covered, until = 0.0, float("-inf")
    for began, ended in sorted(spans):
        covered += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return covered
