"""The answer that the backend holds of an item, and whether it is one that the task demands."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from driver.adapters.items import analysis_of, storage_of, stored_answer, textless, with_nulls
from tasks import InvalidAnswer, Task

Row = dict[str, Any]


def stored(task: Task, before: Row, after: Row) -> BaseModel:
    """Return the answer that the new analysis of an item has stored; `InvalidAnswer` says what is
    wrong with it.
    """
    answer = answer_in(task, before, after)
    if missing := [name for name in task.output.model_fields if name not in answer]:
        raise InvalidAnswer(f"the analysis has no {', '.join(missing)}")
    try:
        output = task.parse(json.dumps(answer))
    except InvalidAnswer as error:
        raise InvalidAnswer(f"the answer is not valid: {error}") from error
    if lost := [n for n in storage_of(task).columns if answer.get(n) and not after.get(n)]:
        raise InvalidAnswer(f"the item has not got the answer's {', '.join(lost)}")
    return output


def answer_in(task: Task, before: Row, after: Row) -> Row:
    """Return the answer that the new analysis of an item has stored, as far as it is there.

    The analysis counts where it has fields of the item too: the item's own may still be the old
    ones. Elsewhere the item counts, but for texts that an answer without any has left as they were.
    """
    storage, fields = storage_of(task), task.output.model_fields
    analysis = analysis_of(after, storage)
    if any(name in analysis for name in storage.edited):
        answer = {name: analysis[name] for name in fields if name in analysis}
        return with_nulls(answer, storage)
    answer = stored_answer(after, fields, storage)
    if textless(answer, storage):
        kept = [n for n in storage.left_over if after.get(n) == before.get(n)]
        answer |= dict.fromkeys(kept)
    return answer
