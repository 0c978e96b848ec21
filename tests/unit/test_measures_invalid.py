"""No answer that can be read is rated below one that cannot, in any measure of any task."""

from __future__ import annotations

from typing import Any

import pytest
from annotated_types import MaxLen
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from images.labeler.fields import Kind, kinds
from images.labeler.measures import Judged, measures
from tasks import load_task
from tasks.definition import Task
from tasks.values import choices
from tests.unit import mixed_output

TASKS = [load_task("liga_relevance"), load_task("support_messages"), mixed_output.TASK]


def _values(task: Task, name: str, kind: Kind) -> st.SearchStrategy[Any]:
    """Return what a field can hold, as far as its own declaration bounds it."""
    field = task.output.model_fields[name]
    known = st.sampled_from(choices(field.annotation) or [False, True])
    if kind is Kind.NUMBER:
        return st.floats(0, 1)
    if kind is Kind.TEXT:
        return st.sampled_from(["", "a text"])
    if kind is Kind.CHOICES:
        most = next((each.max_length for each in field.metadata if isinstance(each, MaxLen)), None)
        return st.lists(known, unique=True, max_size=most)
    return known


def _answers(task: Task) -> st.SearchStrategy[BaseModel]:
    """Return answers with any value in any field: more than the task lets pass together."""
    fields = {name: _values(task, name, kind) for name, kind in kinds(task.output).items()}
    return st.fixed_dictionaries(fields).map(lambda given: task.output.model_construct(**given))


def _rows(task: Task) -> st.SearchStrategy[list[Judged]]:
    broken = st.sampled_from([(), ("a_rule",)])
    return st.lists(
        st.builds(Judged, _answers(task), st.none() | _answers(task), broken), min_size=1
    )


@pytest.mark.parametrize("task", TASKS, ids=lambda task: str(task.name))
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_an_answer_that_is_not_valid_is_never_better_than_one_that_is(
    task: Task, data: st.DataObject
) -> None:
    """Whatever was expected, whatever the other rows hold, and however wrong the valid one is."""
    rows = data.draw(_rows(task))
    first, others = rows[0], rows[1:]
    valid = Judged(first.expected, data.draw(_answers(task)), first.broken)
    by_valid = measures(task, [valid, *others])
    for name, measure in measures(task, [Judged(first.expected, None), *others]).items():
        worse = 1 if measure.higher_is_better else -1
        gain = worse * (measure.observed - by_valid[name].observed)
        assert gain <= 1e-9, f"{name}: {measure.observed}, and {by_valid[name].observed} if valid"
