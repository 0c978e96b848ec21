"""A field is added to the news task, and taken away again: who is asked what."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, StringConstraints, create_model, model_validator

from contracts.errors import EngineUnavailable, ItemsInvalid
from contracts.label_cache import CACHE_FILE, Imported, LabelCache
from driver import labels
from tasks import Task, Violation
from tests.unit.edited_task import SECTION, TASK, answers, edit, labelled, outputs, with_deadline
from tests.unit.labeler_stage import label, write_jsonl
from tests.unit.labelling import Labelling, engine, items, stage
from tests.unit.scripted_engine import ScriptedEngine

__all__ = ["edit", "engine", "stage"]


def test_an_added_field_is_asked_for_alone_and_once_for_each_row_that_has_it(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    before = labelled(stage, engine)
    edit(with_deadline())
    metrics = stage.label()
    assert (metrics.asked, metrics.backfilled, metrics.cached, metrics.derived) == (0, 2, 1, 3)
    for asked, case in zip(engine.asked[3:], ("Fall 0.", "Fall 2."), strict=True):
        assert list(asked["schema"]["properties"]) == asked["schema"]["required"] == ["deadline"]
        system, item, answer, question = asked["messages"]
        assert system["content"].endswith("genannt ist.")
        assert case in item["content"]
        assert json.loads(answer["content"]) == label("high")
        assert "- deadline: Der Tag" in question["content"]
    rows = stage.rows("labels")
    assert [row["label"]["deadline"] for row in rows] == ["2026-03-31", None, "2026-03-31"]
    assert list(rows[0]["label"]) == [*TASK.output.model_fields, "deadline"]
    assert rows[0]["derived"]["fields"] == ["deadline"]
    assert "backfill" not in rows[1]["derived"]
    report = json.loads((stage.out / "label_report.json").read_text())
    assert report["derived"]["fields"] == {"deadline": 2}
    assert (report["derived"]["items"], report["derived"]["requests"]) == (3, 2)
    assert report["cost"]["requests"] == 0

    after = outputs(stage)
    assert stage.label().cached == 3
    assert outputs(stage) == after
    edit(TASK)
    assert stage.label().cached == 3
    assert outputs(stage) == before
    edit(with_deadline())
    assert stage.label().cached == 3
    assert outputs(stage) == after
    assert len(engine.asked) == 5


def test_a_removed_field_asks_nobody(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    edit(with_deadline())
    whole = json.dumps({**label("high"), "deadline": None})
    engine.script = lambda _messages, _number: whole
    assert stage.label().asked == 3
    edit(TASK)
    engine.alive = False
    metrics = stage.label()
    assert (metrics.cached, metrics.derived) == (3, 3)
    assert [row["label"] for row in stage.rows("labels")] == [label("high")] * 3


def test_a_second_field_starts_from_the_completed_rows(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)
    first = with_deadline()
    edit(first)
    stage.label()
    about = Field(title="Ort", max_length=20, description="Wo es spielt.")
    second = replace(
        first,
        output=create_model("Twice", __base__=first.output, place=(str | None, about)),
        label_prompt=first.label_prompt + "\n\n## place\nDer Ort.",
    )
    edit(second)
    engine.script = lambda _messages, _number: '{"place": "Kassel"}'
    assert stage.label().backfilled == 3
    assert {tuple(asked["schema"]["required"]) for asked in engine.asked[5:]} == {("place",)}
    rows = [row["label"] for row in stage.rows("labels")]
    assert [row["deadline"] for row in rows] == ["2026-03-31", None, "2026-03-31"]
    assert {row["place"] for row in rows} == {"Kassel"}


def test_a_changed_meaning_labels_anew_and_so_does_the_setting(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)
    edit(
        replace(TASK, label_prompt=TASK.label_prompt.replace("Im Zweifel true", "Im Zweifel false"))
    )
    assert stage.label().asked == 3
    edit(with_deadline())
    whole = json.dumps({**label("high"), "deadline": None})
    engine.script = lambda _messages, _number: whole
    assert stage.label(backfill=False).asked == 3


def test_a_stop_in_the_middle_asks_nothing_twice(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)
    edit(with_deadline())

    def dies(messages: list[dict[str, str]], number: int) -> Any:
        if number == 4:
            engine.alive = False
            return EngineUnavailable("connection refused")
        return answers(messages, number)

    engine.script = dies
    with pytest.raises(EngineUnavailable, match="the engine is gone"):
        stage.label()
    engine.alive, engine.script = True, answers
    metrics = stage.label()
    assert (metrics.cached, metrics.backfilled, metrics.asked) == (2, 1, 0)
    contents = [asked["messages"][1]["content"] for asked in engine.asked[3:]]
    assert sum("Fall 0." in each for each in contents) == 1


def test_an_unusable_field_is_corrected_and_at_last_quarantined(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)
    edit(with_deadline())
    engine.script = lambda messages, _number: (
        '{"deadline": "bald"}' if "Fall 0." in messages[1]["content"] else answers(messages, 0)
    )
    metrics = stage.label(max_attempts=2)
    assert metrics.quarantined == 1
    assert [len(asked["messages"]) for asked in engine.asked[3:]] == [4, 6, 4]
    (row,) = stage.rows("quarantine")
    assert [each["text"] for each in row["attempts"]] == ['{"deadline": "bald"}'] * 2
    assert "deadline: " in row["attempts"][0]["broken"][0]
    assert stage.label(max_attempts=2).quarantined == 1
    assert len(engine.asked) == 6


def test_an_answer_that_breaks_todays_rules_itself_is_asked_as_a_whole(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)

    def check(item: Any, answer: Any) -> list[Violation]:
        broken = "Fall 2." in item.content and answer.tags == ["Haushalt"]
        return [Violation("tags", "error", "other tags")] if broken else TASK.check(item, answer)

    edit(replace(with_deadline(), check=check))
    other = json.dumps({**label("high", tags=["Etat"]), "deadline": None})
    engine.script = lambda messages, number: (
        other if len(messages) == 2 else answers(messages, number)
    )
    metrics = stage.label()
    assert (metrics.backfilled, metrics.asked, metrics.quarantined) == (1, 1, 0)
    assert stage.label().cached == 3


def test_one_is_too_where_the_added_field_cannot_be_null(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)

    def check(_item: Any, answer: Any) -> list[Violation]:
        broken = answer.tags == ["Haushalt"]
        return [Violation("tags", "error", "other tags")] if broken else []

    deadline = (date, Field(title="Frist", description="Der Tag."))
    output = create_model("NotNull", __base__=TASK.output, deadline=deadline)
    edit(replace(with_deadline(), output=output, check=check, only_for={}))
    other = json.dumps({**label("high", tags=["Etat"]), "deadline": "2026-03-31"})
    engine.script = lambda messages, number: (
        other if len(messages) == 2 else answers(messages, number)
    )
    metrics = stage.label(max_attempts=2)
    assert (metrics.asked, metrics.quarantined) == (3, 0)
    assert [len(asked["messages"]) for asked in engine.asked].count(2) == 3 + 3
    assert (stage.label(max_attempts=2).cached, len(engine.asked)) == (3, 3 + 3 * (2 + 1))


def _needs_deadline(answer: Any) -> Any:
    if answer.relevant and answer.deadline is None:
        raise ValueError("a relevant item has a deadline; elsewhere it is null")
    return answer


def _with_validator(check: Callable[[Any], Any]) -> Task:
    task = with_deadline()
    kept: dict[str, Any] = {"_whole": model_validator(mode="after")(check)}
    return replace(task, output=create_model("Checked", __base__=task.output, __validators__=kept))


def test_a_validator_that_needs_the_added_field_does_not_reject_the_answer_of_before(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    write_jsonl(stage.folder / "reviewed.jsonl", [{"id": "i0", "label": label("low")}])
    engine.script = answers
    assert stage.label().asked == 2
    edit(_with_validator(_needs_deadline))
    metrics = stage.label()
    assert (metrics.asked, metrics.backfilled, metrics.quarantined) == (0, 2, 0)
    rows = [(row["origin"], row["label"]["deadline"]) for row in stage.rows("labels")]
    assert rows == [("reviewed", "2026-03-31"), ("teacher", None), ("teacher", "2026-03-31")]


def test_an_answer_that_no_added_field_completes_is_asked_as_a_whole(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    labelled(stage, engine)

    def other_tags(answer: Any) -> Any:
        if answer.tags == ["Haushalt"]:
            raise ValueError("other tags")
        return answer

    edit(_with_validator(other_tags))
    whole = json.dumps({**label("high", tags=["Etat"]), "deadline": None})
    engine.script = lambda messages, number: (
        whole if len(messages) == 2 else answers(messages, number)
    )
    metrics = stage.label(max_attempts=2)
    assert (metrics.asked, metrics.quarantined) == (3, 0)


def test_limits_are_asked_about_only_where_they_are_broken(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    engine.script = lambda messages, _number: json.dumps(
        label("high", tags=["Haushalt" if "Fall 0." in messages[1]["content"] else "Etat"])
    )
    stage.label()
    short = Annotated[str, StringConstraints(min_length=1, max_length=5)]
    tags = (list[short], Field(max_length=8, title="Schlagworte"))
    edited = replace(TASK, output=create_model("Short", __base__=TASK.output, tags=tags))
    assert edited.schema() != TASK.schema()
    edit(edited)
    metrics = stage.label(max_attempts=1)
    assert (metrics.cached, metrics.asked) == (2, 1)


def test_what_a_person_has_said_is_completed_and_stays_a_review(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    reviews = [{"id": "i0", "label": label("low")}, {"id": "i1", "label": label(None)}]
    write_jsonl(stage.folder / "reviewed.jsonl", [*reviews, {"id": "i2", "label": label("high")}])
    assert stage.label().reviewed == 3
    before = outputs(stage)
    edit(with_deadline())
    engine.script = answers
    metrics = stage.label()
    assert (metrics.reviewed, metrics.backfilled, metrics.asked) == (3, 2, 0)
    rows = stage.rows("labels")
    assert [(row["origin"], row["label"]["deadline"]) for row in rows] == [
        ("reviewed", "2026-03-31"),
        ("reviewed", None),
        ("reviewed", "2026-03-31"),
    ]
    assert rows[0]["derived"]["from"] == "review"
    assert (stage.label().reviewed, len(engine.asked)) == (3, 2)
    edit(TASK)
    assert stage.label().reviewed == 3
    assert outputs(stage) == before
    write_jsonl(stage.folder / "reviewed.jsonl", [{"id": "i0", "label": {"relevant": True}}])
    with pytest.raises(ItemsInvalid, match="is no label"):
        stage.label()


def test_what_was_imported_is_completed_and_stays_imported(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None]
) -> None:
    digests = [TASK.item_digest(TASK.item.model_validate(row)) for row in items(3)]
    given = (label("low"), label(None), label("high"))
    with LabelCache(stage.folder / CACHE_FILE) as cache:
        rows = zip(digests, map(json.dumps, given), strict=True)
        cache.put_imported(Imported(item, text, "old.jsonl") for item, text in rows)
    assert stage.label().imported == 3
    before = outputs(stage)
    edit(with_deadline())
    engine.script = answers
    for _ in range(2):
        metrics = stage.label()
        assert (metrics.imported, metrics.asked, len(engine.asked)) == (3, 0, 2)
    assert [row["label"]["priority"] for row in stage.rows("labels")] == ["low", None, "high"]
    edit(TASK)
    assert stage.label().imported == 3
    assert outputs(stage) == before


def test_what_was_asked_under_goes_along_with_an_export(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None], tmp_path: Path
) -> None:
    labelled(stage, engine)
    edit(with_deadline())
    stage.label()
    after = outputs(stage)
    labels.export(stage.folder, tmp_path / "all.jsonl")
    other = Labelling(tmp_path / "other")
    found = labels.take(other.folder, TASK, [tmp_path / "all.jsonl"])
    assert (found.answers, found.refused_rows) == (5, 0)
    assert other.label().cached == 3
    assert outputs(other) == after
    edit(with_deadline(section=SECTION + " deadline ist ein Tag."))
    assert other.label().backfilled == 2


@pytest.mark.parametrize(
    "origin",
    ["[", "{}", '{"from": "k", "attempt": "0"}', '{"from": "k", "attempt": 0, "backfill": []}'],
)
def test_a_damaged_derived_row_or_definition_costs_no_more_than_itself(
    stage: Labelling, engine: ScriptedEngine, edit: Callable[[Task], None], origin: str
) -> None:
    labelled(stage, engine)
    edit(with_deadline())
    stage.label()
    after = outputs(stage)
    with LabelCache(stage.folder / CACHE_FILE) as cache, cache._database:
        cache._database.execute("UPDATE derived SET origin = ?, answer = '{'", (origin,))
        cache._database.execute("INSERT INTO definitions VALUES ('p', 'a', '{')")
    assert stage.label().cached == 3
    assert outputs(stage) == after
    assert len(engine.asked) == 5
