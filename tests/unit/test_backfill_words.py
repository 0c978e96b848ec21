"""A field's words or its rows change after it was added: it alone is asked for again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from pydantic import Field, create_model

from contracts.label_definition import LabelDefinition, compare
from tasks import OnlyFor, Task
from tests.unit.edited_task import SECTION, TASK, edit, labelled, outputs, with_deadline
from tests.unit.labelling import Labelling, engine, stage
from tests.unit.scripted_engine import ScriptedEngine

__all__ = ["edit", "engine", "stage"]


def test_what_is_said_of_the_added_field_anew_asks_for_it_again_alone(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)
    edit(with_deadline())
    stage.label()
    edit(with_deadline(section=SECTION.replace("Bis wann", "Der Tag, bis zu dem")))
    metrics = stage.label()
    assert (metrics.asked, metrics.backfilled) == (0, 2)


def test_a_description_that_the_prompt_repeats_is_asked_for_again_alone(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)
    values = {"deadline": "2026-03-31", "place": "Mainz"}

    def completed(messages: list[dict[str, str]], _number: int) -> str:
        asked = messages[-1]["content"]
        return json.dumps({name: said for name, said in values.items() if f"- {name}:" in asked})

    engine.script, task = completed, with_deadline()
    for about in ("Der Ort.", "Der Ort des Geschehens."):
        place: Any = (str | None, Field(title="Ort", max_length=9, description=about))
        edit(
            replace(
                task,
                output=create_model("More", __base__=task.output, place=place),
                label_prompt=f"{task.label_prompt}\n- place: {about}",
            )
        )
        before, metrics = len(engine.asked), stage.label()
        assert (metrics.asked, metrics.backfilled) == (0, 3)
        values["deadline"] = "2026-04-30"
    asked = [list(each["schema"]["properties"]) for each in engine.asked[before:]]
    assert asked == [["place"]] * 3
    told = {row["label"]["deadline"] for row in stage.rows("labels")}
    assert told == {None, "2026-03-31"}, "an untouched field keeps its value"
    assert (stage.label().cached, len(engine.asked)) == (3, before + 3)


def test_a_row_completed_under_a_middle_definition_is_asked_again_in_other_words(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)
    task = with_deadline()
    edit(task)
    stage.label()
    never = OnlyFor(where={"relevant": None}, otherwise=None)
    for name, words, count in (("place", "anderen", 2), ("city", "anderen", 0), ("land", "3.", 2)):
        about = f"Der Tag mit {words} Worten."
        fields: dict[str, Any] = {
            name: (str | None, Field(title=name, max_length=9, description="Ein Ort.")),
            "deadline": (date | None, Field(title="Frist", description=about)),
        }
        task = replace(
            task,
            output=create_model("More", __base__=task.output, **fields),
            label_prompt=f"{task.label_prompt}\n{name}: ein Ort.",
            only_for={**task.only_for, name: never},
        )
        edit(task)
        before = len(engine.asked)
        metrics = stage.label()
        assert (metrics.asked, metrics.backfilled, metrics.derived) == (0, count, 3)
        for asked in engine.asked[before:]:
            assert list(asked["schema"]["properties"]) == ["deadline"]
            assert about in asked["messages"][-1]["content"]
        assert (stage.label().cached, len(engine.asked)) == (3, before + count)


def test_a_field_that_is_said_to_concern_every_row_is_asked_for_in_the_rest(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)
    edit(with_deadline())
    stage.label()
    edit(replace(with_deadline(), only_for={}))
    assert (stage.label().backfilled, len(engine.asked)) == (1, 6)
    edit(replace(with_deadline(), only_for={}, backfill_prompt="Anders gefragt:\n$fields"))
    assert (stage.label().backfilled, len(engine.asked)) == (3, 9)
    edit(with_deadline())
    assert (stage.label().cached, len(engine.asked)) == (3, 9)


def test_what_the_rest_decides_follows_the_task(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)
    edit(with_deadline())
    stage.label()
    before = outputs(stage)
    never = OnlyFor(where={"relevant": True}, otherwise="2099-12-31")
    edit(replace(with_deadline(), only_for={"deadline": never}))
    for _ in range(2):
        assert (stage.label().cached, len(engine.asked)) == (3, 5)
        assert stage.rows("labels")[1]["label"]["deadline"] == "2099-12-31"
    edit(with_deadline())
    assert (stage.label().cached, len(engine.asked)) == (3, 5)
    assert outputs(stage) == before


@pytest.mark.parametrize(
    ("words", "relabels"),
    [
        (("tags, reasoning", "tags, reasoning, deadline"), False),
        (("tags, reasoning", "tags,\nreasoning"), False),
        (("tags, reasoning", "tags, reasoning, place"), True),
        (("Im Zweifel true", "Im Zweifel eher true"), True),
        (("Im Zweifel true: ", ""), True),
    ],
)
def test_a_prompt_s_edit_belongs_to_the_field_that_it_names(
    words: tuple[str, str], relabels: bool
) -> None:
    old = LabelDefinition.of(TASK)
    new = LabelDefinition.of(
        replace(with_deadline(), label_prompt=TASK.label_prompt.replace(*words))
    )
    there, back = compare(old, new), compare(new, old)
    assert (there.added, back.removed) == (("deadline",), ("deadline",))
    assert there.relabels is back.relabels is relabels


@pytest.mark.parametrize(
    ("words", "relabels"),
    [
        (("", ""), False),
        (("deadline, reasoning", "deadline, Gründe"), True),
        (("Im Zweifel true", "Im Zweifel eher true"), True),
        (("## deadline\n", "## deadline\nIm Zweifel immer high. "), True),
    ],
)
def test_a_field_in_place_of_another_counts_as_both(words: tuple[str, str], relabels: bool) -> None:
    old = LabelDefinition.of(TASK)
    fields = {**old.fields, "deadline": old.fields["tags"]}
    del fields["tags"]
    start, end = (old.label_prompt.index(head) for head in ("## tags", "## reasoning"))
    section = (
        "## deadline\nBis zu diesem Tag muss die Liga handeln. Ohne Tag ist deadline null.\n\n"
    )
    prompt = old.label_prompt[:start] + section + old.label_prompt[end:]
    prompt = prompt.replace("tags, reasoning", "deadline, reasoning")
    prompt = prompt.replace(*words)
    new = old.model_copy(update={"fields": fields, "label_prompt": prompt})
    edit = compare(old, new)
    assert (edit.added, edit.removed) == (("deadline",), ("tags",))
    assert edit.relabels is relabels, edit.prompt
    renamed = re.sub(r"\btags\b", "deadline", old.label_prompt)
    assert not compare(
        old, old.model_copy(update={"fields": fields, "label_prompt": renamed})
    ).prompt
