"""The news task with one field more, as an edit of its files leaves it, and a teacher for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest
from pydantic import Field, create_model

from images.labeler import label as label_stage
from tasks import OnlyFor, Task, load_task
from tests.unit.labeler_stage import label
from tests.unit.labelling import GOOD, Labelling
from tests.unit.scripted_engine import ScriptedEngine

TASK = load_task("liga_relevance")
IRRELEVANT = json.dumps(label(None), ensure_ascii=False)
SECTION = "\n\n## deadline\nBis wann die Liga handeln muss; null, wenn kein Tag genannt ist."


def with_deadline(task: Task = TASK, section: str = SECTION) -> Task:
    """Return the task with the field `deadline`, as an edit of its files would leave it."""
    about = Field(
        title="Frist", description="Der Tag, bis zu dem die Liga handeln muss, oder null."
    )
    output = create_model("Edited", __base__=task.output, deadline=(date | None, about))
    prompt = task.label_prompt.replace("tags, reasoning", "tags, reasoning, deadline")
    assert prompt != task.label_prompt
    return replace(
        task,
        output=output,
        label_prompt=prompt + section,
        only_for={"deadline": OnlyFor(where={"relevant": True})},
    )


def answers(messages: list[dict[str, str]], _number: int) -> str:
    """Answer as a teacher would that is asked for the whole, or for the deadline alone."""
    if len(messages) > 2:
        return '{"deadline": "2026-03-31"}'
    return IRRELEVANT if "Fall 1." in messages[1]["content"] else GOOD


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Task], None]:
    return lambda task: monkeypatch.setattr(label_stage, "load_task", lambda _: task)


def labelled(stage: Labelling, engine: ScriptedEngine) -> list[bytes]:
    engine.script = answers
    assert stage.label().asked == 3
    return outputs(stage)


def outputs(stage: Labelling) -> list[bytes]:
    return [(stage.out / name).read_bytes() for name in ("labels.jsonl", "quarantine.jsonl")]
