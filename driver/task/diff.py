"""`driver task diff`: what has changed in the task, and what labelling and training it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from contracts import stages
from contracts.label_definition import Edit, Insertion, LabelDefinition, compare
from driver.store import Run
from driver.task import cost, noted
from driver.task.revision import labelling_at

if TYPE_CHECKING:
    from driver.session import Session

_UNTOLD = "the label prompt does not say so: only who was asked for it alone is asked again"
_ANEW = "no answer of before can stand: every row is labelled anew"
_SAME = "what labels rest on is the same"


def show(session: Session, since: str, *, as_json: bool) -> int:
    """Print what has changed since a run (the last one, if not named) or a revision of git."""
    name, old = since_when(session, since)
    now = LabelDefinition.of(session.task)
    edit, price = compare(old, now), cost.of(session)
    training = _training(session, edit, price)
    if as_json:
        found: dict[str, Any] = {
            "since": name,
            "edit": {**asdict(edit), "relabels": edit.relabels},
            "rows": asdict(price.rows) if price else None,
            "fields": price.fields if price else None,
            "seconds": price.seconds if price else None,
            "training": training,
        }
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    print(f"{session.task.name}, since {name}:")
    for what, effect in effects(edit, now, price.rows if price else None):
        print(f"  {what}: {effect}")
    for each in edit.own:
        print(_own(each))
    print(price.text() if price else cost.uncounted(session))
    print(f"train: {training}")
    return 0


def since_when(session: Session, since: str) -> tuple[str, LabelDefinition]:
    """Return what labels rested on at a run, the last one if none is named, or at a revision.

    With what to call it. Raises `InputMissing` for what is neither, or has not noted it.
    """
    task = session.task.name
    if not since or (session.workspace / "runs" / since).is_dir():
        run = Run.named(session.workspace, since)
        return f"run {run.id}", noted.labelling_of(run, task)
    return f"revision {since}", labelling_at(since, task)


def effects(
    edit: Edit, now: LabelDefinition, rows: cost.Rows | None = None
) -> Iterator[tuple[str, str]]:
    """Yield each part that has changed, and what that does to labels, by what was counted.

    The edit is one since some moment, and rows are counted by all answers that are kept: older
    ones can stand where those of that moment cannot.
    """
    if edit.is_nothing:
        yield "nothing", _of_nothing(rows)
    yield from _of_fields(edit, now, rows)
    yield from ((f"label prompt, {words}", _of_answers(rows)) for words in edit.prompt)
    if edit.correction:
        yield "correction prompt", "only rows whose answer followed the old one are asked again"
    yield from (
        (f"rule {name}", "only rows that break it now are asked again") for name in edit.rules
    )
    if edit.whole:
        yield "an answer as a whole", "only rows that do not keep it are asked again"


def _of_nothing(rows: cost.Rows | None) -> str:
    """Return what is to be said where the words are the same: the code behind them may not be."""
    if rows is None or not (rows.broken or rows.outdated or rows.completed):
        return _SAME
    if rows.broken:
        return f"{_SAME} by its words; {rows.broken} rows break what rules and validators ask now"
    return f"{_SAME}; not every row was labelled by it yet"


def _of_answers(rows: cost.Rows | None) -> str:
    """Return what becomes of rows where answers of the moment compared with cannot stand."""
    if rows is None or (rows.outdated and not rows.kept + rows.completed):
        return _ANEW
    return f"{rows.outdated or 'no'} rows are labelled anew: older answers can stand for the others"


def _of_fields(
    edit: Edit, now: LabelDefinition, rows: cost.Rows | None
) -> Iterator[tuple[str, str]]:
    with_all = rows is not None and rows.outdated and not rows.completed
    for name in edit.added:
        alone = f"it is asked for alone, for {_rows_with(name, now)}"
        yield f"field {name} is new", "it is asked for with all others" if with_all else alone
    for name in edit.removed:
        yield f"field {name} is gone", "nobody is asked; the answers of before stand without it"
    for name in edit.changed:
        yield f"field {name} takes other values", _of_answers(rows)
    for name in edit.limits:
        yield f"field {name} has other limits", "only rows that do not keep them are asked again"
    told = "see the label prompt" if edit.prompt else _UNTOLD
    for name in edit.described:
        yield f"field {name} is described otherwise", told


def _own(words: Insertion) -> str:
    """Return the words that count as an added field's, as they stand in the prompt."""
    first, last = words.first_line, words.last_line
    place = f"line {first}" if first == last else f"lines {first} to {last}"
    head = f"  words on {', '.join(words.fields)} alone, {place} of the label prompt:"
    return "\n".join([head, *(f"    | {line}".rstrip() for line in words.text.splitlines())])


def _rows_with(name: str, now: LabelDefinition) -> str:
    only = now.only_for.get(name)
    if only is None:
        return "every row"
    return "rows with " + ", ".join(f"{key} {json.dumps(v)}" for key, v in only.where.items())


def _training(session: Session, edit: Edit, price: cost.Cost | None) -> str:
    """Return whether the training has to be repeated, and why."""
    trained = {job.task_digest for job, _ in session.store.executions(stages.TRAIN.name)}
    if not trained:
        return "never finished yet"
    if session.task_digest not in trained:
        return "has to be repeated: a model is trained for one definition of the task"
    asked = price and (price.rows.completed or price.rows.labelled)
    if asked or edit.added or edit.removed:
        return "has to be repeated if the labels change"
    return "need not be repeated"
