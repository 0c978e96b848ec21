"""A task's own functions, tried out before anything is started: on its canary and on made answers.

An answer that a validator refuses is no fault, whatever ties the fields together. A fault is an
error of another kind, or a result that is none: it would end a run hours later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import product
from types import GenericAlias, new_class
from typing import Any, NamedTuple, cast, get_args

from pydantic import BaseModel, create_model

from contracts.errors import TaskInvalid
from driver.task import made
from tasks import InvalidAnswer, Task, Violation, faults
from tasks.values import few_values

_CHECKED = 24
"""Answers that the label rules are tried on, those of each size first."""
_MOST_COMBINATIONS = 4096
_SHOWN = 120
_MORE = "*"
_GETS = "Correct that line: the function gets every item and every answer that the task takes."
_REFUSES = "Correct that line; a validator refuses an answer by a ValueError, and by nothing else."


class _Result(NamedTuple):
    """What a function of a task has to return."""

    words: str
    fits: Callable[[Any], bool]


_TEXT = _Result("a text", lambda found: isinstance(found, str))
_OF_AN_ITEM = {
    "user_message": _TEXT,
    "text_of": _TEXT,
    "time_of": _Result(
        "a moment with its time zone, or None",
        lambda found: found is None or (isinstance(found, datetime) and found.tzinfo is not None),
    ),
}
_OF_AN_ANSWER = {
    "stratum": _TEXT,
    "positive": _Result("True or False", lambda found: isinstance(found, bool)),
    "facets": _Result(
        "a frozenset of texts",
        lambda found: isinstance(found, frozenset) and all(isinstance(x, str) for x in found),
    ),
}
_VIOLATIONS = _Result(
    "a list of Violation(…)",
    lambda found: isinstance(found, list) and all(isinstance(x, Violation) for x in found),
)


def try_out(task: Task) -> None:
    """Raise `TaskInvalid` where a function of the task fails, or gives what no run could use."""
    for name, result in _OF_AN_ITEM.items():
        _require(task, name, result, task.canary)
    _refuse_markup(task)
    schema = task.schema()
    _refuse_cut_answers(task, schema)
    for number, answer in enumerate(_taken(task, made.answers(schema))):
        for name, result in _OF_AN_ANSWER.items():
            _require(task, name, result, answer)
        if number < _CHECKED:
            _require(task, "check", _VIOLATIONS, task.canary, answer)
        _require_read_back(task, answer)
        if number == 0:
            _ = [*_taken(task, made.uneven(schema, answer.model_dump(mode="json")))]
    _refuse_lists_of_doubles(task, schema)
    _refuse_unknown_strata(task, schema)


def doubts(task: Task) -> str:
    """Return in one line that the output model takes no made answer, with its own words; "" if it
    takes one."""
    reason = ""
    for each in made.answers(task.schema()):
        try:
            task.parse(made.text_of(each))
        except InvalidAnswer as error:
            reason = str(error)
        else:
            return ""
    return (
        f"{faults.file_of(task.output)}: {task.output.__name__} takes none of the answers made to "
        f"try it out ({reason}): see that it takes any, as the functions were tried on none"
    )


def _require(task: Task, name: str, result: _Result, *given: BaseModel) -> None:
    on = _short(str(given[-1]))
    try:
        found = getattr(task, name)(*given)
    except Exception as error:
        raise faults.from_error(task.name, error, f"fails in {name}", on, _GETS) from error
    if not result.fits(found):
        raise TaskInvalid(
            f"tasks/{task.name}/__init__.py: {name} gives {_short(repr(found))}",
            why=f"it has to be {result.words}; on {on}",
            todo=f"Let {name} return {result.words}.",
        )


def _taken(task: Task, answers: Iterable[dict[str, Any]]) -> Iterator[BaseModel]:
    """Yield the answers that the output model takes."""
    for each in answers:
        text = made.text_of(each)
        try:
            answer: object = task.parse(text)
        except InvalidAnswer:
            continue
        except Exception as error:
            what = "fails in a validator"
            raise faults.from_error(task.name, error, what, _short(text), _REFUSES) from error
        if not isinstance(answer, task.output):
            raise TaskInvalid(
                f"{faults.file_of(task.output)}: a validator returns {_short(repr(answer))}",
                why=f"what it returns is the answer; on {_short(text)}",
                todo="Let each validator of the model end with `return self`.",
            )
        _refuse_changes(task, each, answer)
        yield answer


def _refuse_changes(task: Task, given: dict[str, Any], answer: BaseModel) -> None:
    """Refuse a model whose answer is another than what was given: the label would be, too."""
    try:
        read = answer.model_dump(mode="json")
    except Exception:  # noqa: BLE001  # told where it is written
        return
    for name in (name for name, value in given.items() if read.get(name, value) != value):
        raise TaskInvalid(
            f"{faults.file_of(task.output)}: {task.output.__name__} changes {name}",
            why=f"{_short(repr(given[name]))} becomes {_short(repr(read[name]))}, and nothing of "
            "an answer is ever repaired",
            todo="Let the validator return the value as it is, and refuse by a ValueError what it "
            "would change.",
        )


def _require_read_back(task: Task, answer: BaseModel) -> None:
    """Refuse a model that does not read what it writes: no label of it could be learned."""
    text = str(answer)
    try:
        text = task.answer_text(answer)
        task.parse(text)
    except InvalidAnswer as error:
        raise TaskInvalid(
            f"{faults.file_of(task.output)}: {task.output.__name__} refuses an answer of its own",
            why=f"{error}; the answer as it is written: {_short(text)}",
            todo="Let the model write the fields of an answer as it reads them.",
        ) from error
    except Exception as error:
        what = "fails where an answer is written"
        raise faults.from_error(task.name, error, what, _short(text), _GETS) from error


def _refuse_cut_answers(task: Task, schema: dict[str, Any]) -> None:
    least = made.least_tokens(schema)
    if least > task.serving.num_predict:
        raise TaskInvalid(
            f"tasks/{task.name}/__init__.py: serving, num_predict is {task.serving.num_predict}",
            why=f"the shortest answer has {least} tokens at least",
            todo="Raise num_predict to the tokens of the longest answer.",
        )


def _refuse_markup(task: Task) -> None:
    message = task.user_message(task.canary)
    for sign in (each for each in (*task.chat.control_tokens, "\0") if each in message):
        raise TaskInvalid(
            f"tasks/{task.name}/canary.json: what a model is shown of it holds {sign!r}",
            why="a model would read its own markup there, or no server take the text",
            todo="Take it out there, or of what user_message writes.",
        )


# --- what an answer can be -----------------------------------------------------------------------
def _refuse_lists_of_doubles(task: Task, schema: dict[str, Any]) -> None:
    """Refuse a list that must name more than its enum has, where a validator refuses doubles."""
    for name, child in schema["properties"].items():
        values, least = child.get("items", {}).get("enum", []), child.get("minItems", 0)
        if not 0 < len(values) < least:
            continue
        # The same validators, without the list's own limits.
        entry = get_args(task.output.model_fields[name].annotation)[0]
        field: dict[str, Any] = {name: (GenericAlias(list, (entry,)), ...)}
        free = create_model("Free", __base__=task.output, **field)
        once = [{**each, name: values[:1]} for each in made.answers(schema)]
        doubled = [{**each, name: values[:1] * 2} for each in once]
        if _any_fits(free, once) and not _any_fits(free, doubled):
            raise TaskInvalid(
                f"{faults.file_of(task.output)}: {name} has at least {least} entries",
                why=f"there are {len(values)} values, and a validator refuses one that is there "
                "twice: no answer has both",
                todo=f"Let min_length be {len(values)} at most.",
            )


def _any_fits(model: type[BaseModel], answers: Iterable[dict[str, Any]]) -> bool:
    for each in answers:
        try:
            model.model_validate_json(made.text_of(each), strict=True)
        except Exception:  # noqa: BLE001, S112  # refused; what fails otherwise was told before
            continue
        return True
    return False


def _refuse_unknown_strata(task: Task, schema: dict[str, Any]) -> None:
    known = _strata(task, schema)
    if known and (unknown := sorted(task.canary_strata - known)):
        raise TaskInvalid(
            f"tasks/{task.name}/__init__.py: canary_strata names {', '.join(unknown)}",
            why="stratum returns that for no answer",
            todo=f"Name some of: {', '.join(sorted(known))}.",
        )


def _strata(task: Task, schema: dict[str, Any]) -> frozenset[str]:
    """Return all that `stratum` can return, and maybe more; empty where nobody can tell.

    It is asked for each combination of the values of those fields that it reads. Validators are
    passed by, so that no answer that they take is missing.
    """
    fields = schema["properties"]
    few = {name: few_values(task.output, name, child) for name, child in fields.items()}
    some: dict[str, Any] = {name: values[0] if values else None for name, values in few.items()}
    read: set[str] = set()
    model = _watched(task.output, read)
    while True:
        asked, found = sorted(read), set()
        values = [few.get(name) or [] for name in asked]
        if not 0 < math.prod(map(len, values)) <= _MOST_COMBINATIONS:
            return frozenset()
        for each in product(*values):
            answer = model.model_construct(**{**some, **dict(zip(asked, each, strict=True))})
            read.discard(_MORE)  # what made it
            with suppress(Exception):  # of a combination that a validator refuses
                found.add(task.stratum(answer))
            if _MORE in read:
                return frozenset()
        if sorted(read) == asked:
            return frozenset(found)


def _watched(output: type[BaseModel], read: set[str]) -> type[BaseModel]:
    """Return a class of answers that notes which fields are read, `_MORE` for all at once."""

    def look(answer: BaseModel, name: str) -> Any:
        if name in output.model_fields:
            read.add(name)
        elif hasattr(BaseModel, name) and name != "__class__":  # model_dump, __dict__ and the like
            read.add(_MORE)
        return output.__getattribute__(answer, name)

    watched = new_class("Watched", (output,), {}, lambda body: body.update(__getattribute__=look))
    return cast("type[BaseModel]", watched)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
