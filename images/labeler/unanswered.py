"""Rows to which a model gave no answer at all: whose fault it is, and what becomes of them.

No answer from the engine says nothing about the champion or the base model, so such a row is left
out for every model, or too many of them end the evaluation. A candidate's is held against it where
another model has answered the row, or where there is no other model to tell: it can be what hangs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contracts.errors import EngineUnavailable
from images.labeler.contestants import Contestant, Question, Reply
from images.labeler.gate import Finding

Replies = Mapping[Contestant, Sequence[Reply]]
_NAMED = 5
"""Rows that a message names."""


def left_out(replies: Replies, share: float) -> list[Question]:
    """Return the rows that champion or base model has no answer to, even when asked again.

    Raises `EngineUnavailable` if they are more than `share` of all, with every such row.
    """
    others = [said for who, said in replies.items() if who.role != "candidate"]
    found: dict[str, Reply] = {}
    for said in others:
        found |= {reply.question.id: reply for reply in said if not reply.answered}
    rows = len(next(iter(replies.values())))
    if len(found) > share * rows:
        roles = " and ".join(
            f"the {who.role} ({who.tag}) has none to {missing}"
            for who, said in replies.items()
            if (missing := sum(not reply.answered for reply in said))
        )
        raise EngineUnavailable(
            f"{len(found)} of {rows} test rows got no answer from the engine when asked again",
            why=f"{roles}; the first: {next(iter(found.values())).reason}",
            todo="Look into the engine's log, or raise evaluate.timeout_s; then run again: only "
            "what has no answer yet is asked. evaluate.max_unanswered is the share that may be "
            "left out.",
        )
    return [reply.question for reply in found.values()]


def without(replies: Replies, questions: Sequence[Question]) -> dict[Contestant, list[Reply]]:
    """Return the replies to all other questions, for every model."""
    gone = {question.id for question in questions}
    return {
        who: [reply for reply in said if reply.question.id not in gone]
        for who, said in replies.items()
    }


def findings(replies: Replies, questions: Sequence[Question]) -> list[Finding]:
    """Say what was left out, and what is held against the candidate; nothing if all answered."""
    found = []
    if questions:
        told = (
            "left out for every model, since the engine gave no answer of the champion's or base "
            f"model's: {_ids(questions)}"
        )
        found.append(Finding("answers", True, told))
    own = [
        reply.question
        for who, said in replies.items()
        for reply in said
        if who.role == "candidate" and not reply.answered
    ]
    if own:
        told = f"counted as invalid, since the candidate gave no answer, asked again: {_ids(own)}"
        found.append(Finding("answers", True, told))
    return found


def _ids(questions: Sequence[Question]) -> str:
    shown = ", ".join(question.id for question in questions[:_NAMED])
    more = f" and {len(questions) - _NAMED} more" if len(questions) > _NAMED else ""
    return f"{len(questions)} row{'s'[: len(questions) > 1]} ({shown}{more})"
