"""What Ollama's answers say, in the words of serving/engine.py."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from serving.engine import Answer, AnswerCutOff, Model, NextToken, Resident, TokenChance, full_tag
from serving.http import expected_shape, text_in

_NEVER_S = 10 * 365 * 86400


@dataclass(frozen=True)
class Shown:
    """How a model is served: its Modelfile, as far as Ollama tells it."""

    system: str
    template: str
    parameters: dict[str, list[str]]
    """The values of each, in their order."""


def model(row: dict[str, Any]) -> Model:
    """Return a row of /api/tags or /api/ps."""
    return Model(full_tag(str(row["name"])), str(row["digest"]), int(row.get("size") or 0))


def resident(row: dict[str, Any]) -> Resident:
    """Return a row of /api/ps, in the form that loads it again."""
    return Resident(
        tag=full_tag(str(row["name"])),
        num_ctx=int(row.get("context_length") or 0),
        until=_until(str(row.get("expires_at") or "")),
    )


def quantization(found: dict[str, Any]) -> str:
    """Return what /api/show says of the weights' type, in small letters."""
    with expected_shape("Ollama"):
        return str((found.get("details") or {}).get("quantization_level") or "").lower()


def shown(found: dict[str, Any]) -> Shown:
    """Return what /api/show says of a model's Modelfile."""
    parameters: dict[str, list[str]] = {}
    for line in str(found.get("parameters") or "").splitlines():
        name, _, value = line.strip().partition(" ")
        if name:
            parameters.setdefault(name, []).append(_unquoted(value.strip()))
    return Shown(str(found.get("system") or ""), str(found.get("template") or ""), parameters)


def _unquoted(value: str) -> str:
    """Return a parameter's value; Go quotes texts nearly as JSON does."""
    if not value.startswith('"'):
        return value
    with contextlib.suppress(ValueError):
        return str(json.loads(value))
    return value.strip('"')


def answer(found: dict[str, Any], seconds: float) -> Answer:
    """Return the answer to a chat that took `seconds`; raises `AnswerCutOff` for a part of one."""
    if found.get("done") is not True:
        raise AnswerCutOff("Ollama's answer ended before it was done")
    with expected_shape("Ollama"):
        reason = str(found.get("done_reason") or "")
        return Answer(
            text=text_in(found.get("message") or {}),
            finished=reason == "stop",
            reason=reason,
            prompt_tokens=int(found.get("prompt_eval_count") or 0),
            answer_tokens=int(found.get("eval_count") or 0),
            seconds=seconds,
            waited_s=_waited_s(found, seconds),
        )


def next_token(found: dict[str, Any]) -> NextToken:
    """Return what an answer of one token tells of it; nothing where it tells none."""
    with expected_shape("Ollama"):
        first = (found.get("logprobs") or [{}])[0]
        chances = tuple(
            TokenChance(str(each["token"]), float(each["logprob"]), None)
            for each in first.get("top_logprobs") or []
        )
        return NextToken(int(found.get("prompt_eval_count") or 0), chances)


def _until(expires_at: str) -> float | None:
    """Return when a model goes by itself; "never" is a date some centuries from now."""
    try:
        found = datetime.fromisoformat(expires_at).timestamp()
    except ValueError:
        return None
    return found if found < time.time() + _NEVER_S else None


def _waited_s(found: dict[str, Any], seconds: float) -> float | None:
    """Return the part of the whole time (in ns) in which the model did nothing for a request."""
    if "total_duration" not in found:
        return None
    worked = ("load_duration", "prompt_eval_duration", "eval_duration")
    waited_ns = int(found["total_duration"]) - sum(int(found.get(name) or 0) for name in worked)
    return min(seconds, max(0, waited_ns) / 1e9)
