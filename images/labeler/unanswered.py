"""Rows to which a model gave no answer at all: whose fault it is, and what becomes of them.

No answer from the engine says nothing about the base model or the champion, so no comparison is
made on such a row, and too many of the base model's end the evaluation. A champion that leaves out
too many, while the engine goes on answering the candidate, is broken: nobody can tell whether the
candidate is worse, which a person has to decide. The candidate's own answers count in any case, and
so does a row that it has not answered but another model has, or that nobody else was asked: it can
be what hangs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contracts.errors import EngineUnavailable
from images.labeler.contestants import Contestant, Question, Reply
from images.labeler.gate import Finding

Replies = Mapping[Contestant, Sequence[Reply]]
_NAMED = 5
"""Rows that a message names."""


def is_silent(said: Sequence[Reply], share: float) -> bool:
    """Return whether a model has no answer to more than `share` of the rows."""
    return len(_unanswered(said)) > share * len(said)


def broken_champion(who: Contestant, said: Sequence[Reply]) -> str:
    """Return what the verdict says of a silent champion in an engine that answers others."""
    missing = _unanswered(said)
    return (
        f"THE LIVE MODEL IS BROKEN: {who.tag} gave no answer to {len(missing)} of {len(said)} test "
        f"rows when asked again ({missing[0].reason}), while the engine answers the candidate; so "
        "nobody can tell whether the candidate is worse. `driver run` asks it once more, "
        "`driver run --force REASON` replaces it all the same"
    )


def engine_failed(replies: Replies) -> EngineUnavailable:
    """Return the error for champion or base model with too many rows without an answer."""
    missing = _missing(replies)
    roles = " and ".join(
        f"the {who.role} ({who.tag}) has none to {count}"
        for who, said in replies.items()
        if (count := len(_unanswered(said)))
    )
    rows = len(next(iter(replies.values())))
    return EngineUnavailable(
        f"{len(missing)} of {rows} test rows got no answer from the engine when asked again",
        why=f"{roles}; the first: {missing[0].reason}",
        todo="Look into the engine's log, or raise evaluate.timeout_s; then run again: only "
        "what has no answer yet is asked. evaluate.max_unanswered is the share that may be "
        'left out, and evaluate.baseline="" compares with no base model.',
    )


def left_out(replies: Replies, share: float) -> list[Question]:
    """Return the rows that champion or base model has no answer to, even when asked again.

    Raises `EngineUnavailable` if they are more than `share` of all.
    """
    missing = _missing(replies)
    if len(missing) > share * len(next(iter(replies.values()))):
        raise engine_failed(replies)
    return [reply.question for reply in missing]


def _missing(replies: Replies) -> list[Reply]:
    """Return a reply for each row that champion or base model has no answer to."""
    found: dict[str, Reply] = {}
    for who, said in replies.items():
        if who.role != "candidate":
            found |= {reply.question.id: reply for reply in _unanswered(said)}
    return list(found.values())


def _unanswered(said: Sequence[Reply]) -> list[Reply]:
    return [reply for reply in said if not reply.answered]


def own(replies: Replies, candidate: Contestant) -> list[Reply]:
    """Return the candidate's replies that count for it: all but those to rows that it has not
    answered, and the others, asked too, have not either.
    """
    others = [said for who, said in replies.items() if who != candidate]
    by_others = {reply.question.id for said in others for reply in said if reply.answered}
    return [
        reply
        for reply in replies[candidate]
        if reply.answered or not others or reply.question.id in by_others
    ]


def without(replies: Replies, questions: Sequence[Question]) -> dict[Contestant, list[Reply]]:
    """Return the replies to all other questions, for every model."""
    gone = {question.id for question in questions}
    return {
        who: [reply for reply in said if reply.question.id not in gone]
        for who, said in replies.items()
    }


def findings(counted: Sequence[Reply], questions: Sequence[Question]) -> list[Finding]:
    """Say on which rows nobody is compared, and what is held against the candidate.

    `counted` are the candidate's own replies. Empty if all answered.
    """
    found = []
    if questions:
        told = (
            "left out of every comparison, since the engine gave no answer of the champion's or "
            f"base model's: {_ids(questions)}"
        )
        found.append(Finding("answers", True, told))
    if missing := _unanswered(counted):
        ids = _ids([reply.question for reply in missing])
        told = f"counted as invalid, since the candidate gave no answer, asked again: {ids}"
        found.append(Finding("answers", True, told))
    return found


def _ids(questions: Sequence[Question]) -> str:
    shown = ", ".join(question.id for question in questions[:_NAMED])
    more = f" and {len(questions) - _NAMED} more" if len(questions) > _NAMED else ""
    return f"{len(questions)} row{'s'[: len(questions) > 1]} ({shown}{more})"
