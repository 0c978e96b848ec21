"""Answers side by side, for a person to read: the label, the candidate's, the champion's.

Where nothing is live yet, the base model takes the champion's place.

Chosen so that reading them pays, and always the same of the same answers: what the candidate does
worse than the champion, what is not valid, where both disagree, where both contradict the label
(which may be wrong itself), what got better; of each kind the gravest first, in turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from itertools import zip_longest
from typing import Any

Row = Mapping[str, Any]

SHOWN = 20
_TONES = {
    "worse than the {rival}": "bad",
    "not valid": "bad",
    "not as the {rival}": "note",
    "not as labelled": "note",
    "better than the {rival}": "good",
    "as labelled": "good",
}
"""Why an answer is shown, the most urgent first, and its tone."""
_WORSE, _INVALID, _APART, _WRONG, _BETTER, _RIGHT = _TONES
_NEAR = 0.1
"""Difference of two numbers up to which they count as the same answer."""
_LONGEST, _TITLE = 900, 80
"""Characters of a text that are shown, and of a question's first line."""
_ALIKE = 0.5
"""From this likeness on it is told which words of a text are others; below, all of them are."""
_TEXT = "text"
"""Kind of a field of which only compares whether it is there (images/labeler/fields.py)."""


@dataclass(frozen=True)
class Told:
    """What a model answered to a row: its fields, None where that is not valid."""

    fields: Mapping[str, Any] | None
    text: str
    reason: str


@dataclass(frozen=True)
class Case:
    """A row of the test split with its answers, and why it is worth a look."""

    id: str
    expected: Mapping[str, Any]
    candidate: Told
    rival: Told | None
    why: str
    """A key of `_TONES`."""
    weight: int
    """How much is wrong: by it the gravest come first."""


def choose(rows: Sequence[Row], kinds: Mapping[str, str], matters: Sequence[str]) -> list[Case]:
    """Return the cases to show, by urgency.

    `kinds` has the kind of each field, `matters` the measures that decide: a field that one of
    them is about counts double.
    """
    weights = {
        name: 2 if any(each.partition(".")[0] == name for each in matters) else 1 for name in kinds
    }
    queues: dict[str, list[Case]] = {why: [] for why in _TONES}
    for row in rows:
        case = _case(row, kinds, weights)
        queues[case.why].append(case)
    for queue in queues.values():
        queue.sort(key=lambda case: (-case.weight, case.id))
    urgent = [queue for why, queue in queues.items() if why != _RIGHT]
    turns = [case for turn in zip_longest(*urgent) for case in turn if case is not None]
    chosen = [*turns, *queues[_RIGHT]][:SHOWN]
    order = list(_TONES)
    return sorted(chosen, key=lambda case: (order.index(case.why), -case.weight, case.id))


def section(rows: Sequence[Row], scores: Mapping[str, Any], asked: Mapping[str, str]) -> str:
    """Return the markup; `asked` has the question by the row's id."""
    kinds = scores.get("fields", {})
    if not rows or not kinds:
        return ""
    cases = choose(rows, kinds, scores.get("matters", ()))
    rival = _rival(rows[0])
    shown = "".join(
        _markup(case, kinds, asked.get(case.id, ""), rival, opened=number == 0)
        for number, case in enumerate(cases)
    )
    return (
        f"<p>{len(cases)} of {len(rows)} test rows, those that most need a person's eye first. "
        f"What is not as labelled is named, with the label in brackets, and marked: numbers from a "
        f"difference of {_NEAR:g} on, texts where there should be one, or none. In texts the words "
        f"are marked that the label does not have.</p>{shown}"
    )


# --- which ---------------------------------------------------------------------------------------
def _case(row: Row, kinds: Mapping[str, str], weights: Mapping[str, int]) -> Case:
    expected, said = row["expected"], row["answers"]
    candidate, role = _told(said["candidate"]), _rival(row)
    rival = _told(said[role]) if role else None
    wrong = _wrong(expected, candidate, kinds, weights)
    theirs = _wrong(expected, rival, kinds, weights) if rival else None
    coarse = {name: kind for name, kind in kinds.items() if kind != "number"}
    apart = _wrong(rival.fields, candidate, coarse, weights) if rival and rival.fields else 0
    return Case(
        str(row["id"]),
        expected,
        candidate,
        rival,
        _why(wrong, theirs, apart, valid=candidate.fields is not None),
        max(wrong, theirs or 0, apart),
    )


def _why(wrong: int, theirs: int | None, apart: int, *, valid: bool) -> str:
    if theirs is not None and wrong > theirs:
        return _WORSE
    if not valid:
        return _INVALID
    if theirs is not None and wrong < theirs:
        return _BETTER
    if apart:
        return _APART
    return _WRONG if wrong else _RIGHT


def _rival(row: Row) -> str:
    """Return whom the candidate is shown beside, "" for nobody."""
    return next((role for role in ("champion", "baseline") if role in row["answers"]), "")


def _told(answer: Row) -> Told:
    fields = None
    if answer["valid"]:
        found = json.loads(answer["answer"])  # valid means: one JSON object
        fields = found if isinstance(found, dict) else None
    return Told(fields, str(answer["answer"]), str(answer["reason"]))


def _wrong(
    expected: Mapping[str, Any] | None,
    told: Told,
    kinds: Mapping[str, str],
    weights: Mapping[str, int],
) -> int:
    """Return the weight of the fields that differ; all of them where there is no answer."""
    if expected is None or told.fields is None:
        return sum(weights.values())
    return sum(
        weights[name]
        for name, kind in kinds.items()
        if differs(expected.get(name), told.fields.get(name), kind)
    )


def differs(expected: Any, answered: Any, kind: str) -> bool:
    """Return whether an answer is another one: of a text only compares whether it is there."""
    if kind == _TEXT:
        return bool(expected) != bool(answered)
    if kind == "number" and None not in (expected, answered):
        return abs(float(expected) - float(answered)) > _NEAR
    if kind == "choices":
        return set(map(str, expected or ())) != set(map(str, answered or ()))
    return bool(expected != answered)


# --- how it looks --------------------------------------------------------------------------------
def _markup(
    case: Case, kinds: Mapping[str, str], question: str, rival: str, *, opened: bool
) -> str:
    told = {"candidate": case.candidate} | ({rival: case.rival} if case.rival else {})
    why = case.why.format(rival=rival)
    first = _cut(question.partition("\n")[0], _TITLE)
    heads = "".join(f'<th scope="col"><span class="{role}">{role}</span>' for role in told)
    lines = "".join(_field(name, kind, case.expected, told) for name, kind in kinds.items())
    invalid = "".join(
        f'<p class="soft"><b class="{role}">{role}</b> gave no valid answer: '
        f"{escape(each.reason)}</p><pre>{escape(_cut(each.text))}</pre>"
        for role, each in told.items()
        if each.fields is None
    )
    article = f'<div class="article" tabindex="0">{escape(_cut(question, 3 * _LONGEST))}</div>'
    return (
        f'<details class="answer"{" open" if opened else ""}><summary><b>{escape(case.id)}</b>'
        f'<span class="why {_TONES[case.why]}">{escape(why)}</span> {escape(first)}'
        f'<span class="soft">{escape(_apart(case, kinds, rival))}</span></summary>'
        f"{article if question else ''}{invalid}"
        f'<div class="scroll" tabindex="0"><table><tr><th scope="col">field<th scope="col">label'
        f"{heads}</tr>{lines}</table></div></details>"
    )


def _field(name: str, kind: str, expected: Mapping[str, Any], told: Mapping[str, Told]) -> str:
    cells = [_cell("label", "same", escape(_text(expected.get(name))))]
    for role, each in told.items():
        if each.fields is None:
            cells.append(_cell(role, "same", "–"))
            continue
        value = each.fields.get(name)
        state = "differs" if differs(expected.get(name), value, kind) else "same"
        shown = (
            _marked(_text(expected.get(name)), _text(value))
            if kind == _TEXT
            else escape(_text(value))
        )
        cells.append(_cell(role, state, shown))
    return f'<tr><th scope="row">{escape(name)}{"".join(cells)}</tr>'


def _cell(role: str, state: str, shown: str) -> str:
    """Return a cell of markup; whose it is stands in it too, for screens without columns."""
    of = f'<span class="of {role}" aria-hidden="true">{role}</span>'
    return f'<td class="{state}">{of}<span class="said">{shown}</span>'


def _apart(case: Case, kinds: Mapping[str, str], rival: str) -> str:
    """Return in a line what is not as labelled, by model, with the label in brackets."""
    said = {"candidate": case.candidate} | ({rival: case.rival} if case.rival else {})
    told = []
    for role, each in said.items():
        if each.fields is None:
            told.append(f"{role}: not valid")
            continue
        wrong = [
            f"{name} {_brief(each.fields.get(name))} ({_brief(case.expected.get(name))})"
            for name, kind in kinds.items()
            if kind != _TEXT and differs(case.expected.get(name), each.fields.get(name), kind)
        ]
        if wrong:
            told.append(f"{role}: {', '.join(wrong)}")
    return " · ".join(told)


def _brief(value: Any) -> str:
    return _text(value) if not isinstance(value, list) else "+".join(map(str, value)) or "none"


def _text(value: Any) -> str:
    if value in (None, "", []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return _cut("; ".join(map(str, value)))
    return _cut(f"{value:g}" if isinstance(value, float) else str(value))


def _cut(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest].rstrip()} …"


def _marked(expected: str, answered: str) -> str:
    """Return a text as markup, the words marked that the other lacks; none if most are."""
    ours, theirs = answered.split(), expected.split()
    matcher = SequenceMatcher(None, theirs, ours, autojunk=False)
    if matcher.ratio() < _ALIKE:
        return escape(answered)
    return " ".join(_words(matcher, ours))


def _words(matcher: SequenceMatcher[str], ours: Sequence[str]) -> Iterator[str]:
    for what, _, _, start, end in matcher.get_opcodes():
        if start < end:
            text = escape(" ".join(ours[start:end]))
            yield text if what == "equal" else f"<mark>{text}</mark>"
