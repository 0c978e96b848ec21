"""`driver label --preview`: a few rows under the task as it was and as it is."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.entrypoint import StageContext, execute
from contracts.errors import EngineUnavailable, InputMissing, SettingsInvalid
from contracts.label_definition import LabelDefinition
from contracts.params import LabelMetrics, LabelParams
from contracts.stages import LABEL
from driver.preview import command, comparison
from driver.preview.chosen import choose
from driver.report import preview as shown
from driver.report.display import LastingConsole
from driver.session import Session
from driver.store import Store
from images.labeler import label as label_stage
from serving import teachers
from serving.engine import AnswerCutOff
from serving.teachers import TeacherServer
from tasks.definition import Task
from tests.jobs import inputs_in, job_of
from tests.unit.edited_task import IRRELEVANT, TASK, answers, with_deadline
from tests.unit.labeler_stage import label, write_jsonl
from tests.unit.labelling import GOOD, PLACEHOLDER, Labelling, engine, items, stage
from tests.unit.scripted_engine import ScriptedEngine
from tests.unit.test_labels_known_items import snapshot
from tests.unit.test_task_diff import session

__all__ = ["engine", "session", "stage"]

OLD = ("run r1", LabelDefinition.of(TASK))
OTHER = replace(TASK, label_prompt=TASK.label_prompt.replace("Im Zweifel true", "Im Zweifel false"))


@pytest.fixture(autouse=True)
def _teacher(monkeypatch: pytest.MonkeyPatch, engine: ScriptedEngine) -> None:
    place = TeacherServer(engine, "scripted", "teacher:latest")
    monkeypatch.setattr(teachers, "connect_teachers", lambda *_: [place])


def _previewed(session: Session, count: int = 20) -> comparison.Preview:
    return comparison.preview(session, count, OLD, lambda *_: None)


def test_only_the_new_prompt_is_asked_and_that_once(
    session: Session,
    stage: Labelling,
    engine: ScriptedEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, asked = stage.rows("labels"), len(engine.asked)
    session.task = OTHER
    changed = json.dumps(label("low", tags=["<b>Etat</b>"], summary="Keine Zusammenfassung."))
    engine.script = lambda messages, number: (
        changed if "Fall 0." in messages[1]["content"] else answers(messages, number)
    )
    found = _previewed(session)
    assert found.asked == len(engine.asked) - asked == 3
    assert {each["messages"][0]["content"] for each in engine.asked[asked:]} == {OTHER.label_prompt}
    assert stage.rows("labels") == before
    (row,) = [each for each in found.rows if each.row.item.id == "i0"]
    assert [name for name in found.fields if row.differs(name)] == ["summary", "priority", "tags"]
    assert any(each.startswith("placeholder:") for each in row.new.broken)
    assert not row.old.broken
    assert _previewed(session).asked == 0
    markup = shown.markup(found, OTHER)
    assert "<mark>low</mark>" in markup
    assert "<b>Etat</b>" not in markup
    # The label stage takes the same answers: it asks again only about the one that breaks a rule.
    monkeypatch.setattr(label_stage, "load_task", lambda _: OTHER)
    engine.script = lambda _messages, _number: GOOD
    metrics = stage.label()
    assert (metrics.cached, metrics.asked) == (2, 1)
    assert len(engine.asked) == asked + 4


def test_an_added_field_is_previewed_alone(
    session: Session,
    stage: Labelling,
    engine: ScriptedEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = len(engine.asked)
    session.task = with_deadline()
    found = _previewed(session)
    assert found.asked == 2
    assert {tuple(each["schema"]["required"]) for each in engine.asked[asked:]} == {("deadline",)}
    news = {each.row.item.id: each.new.fields for each in found.rows}
    assert [(news[each] or {})["deadline"] for each in ("i0", "i1", "i2")] == [
        "2026-03-31",
        None,
        "2026-03-31",
    ]
    assert not any(each.old.broken or each.new.broken for each in found.rows)
    monkeypatch.setattr(label_stage, "load_task", lambda _: with_deadline())
    assert (stage.label().cached, len(engine.asked)) == (3, asked + 2)


def test_what_is_known_needs_no_teacher_and_a_failure_keeps_the_rest(
    session: Session, engine: ScriptedEngine
) -> None:
    session.task, asked = OTHER, len(engine.asked)
    engine.script = lambda messages, number: (
        EngineUnavailable("connection refused") if number == asked else answers(messages, number)
    )
    with pytest.raises(EngineUnavailable):
        _previewed(session)
    kept = len(engine.asked) - asked - 1
    assert _previewed(session).asked == 3 - kept
    engine.alive = False
    assert _previewed(session).asked == 0


@pytest.mark.parametrize("task", [OTHER, with_deadline()])
def test_an_answer_that_is_cut_off_is_shown_as_such_and_the_rest_goes_on(
    session: Session, engine: ScriptedEngine, task: Task
) -> None:
    session.task = task
    engine.script = lambda messages, number: (
        AnswerCutOff("ended before it was done")
        if "Fall 0." in messages[1]["content"]
        else answers(messages, number)
    )
    told = {each.row.item.id: each.new for each in _previewed(session).rows}
    assert told["i0"].broken[0].startswith("cut off: the engine has ended it twice")
    assert told["i1"].fields
    assert told["i2"].fields


def test_rows_are_of_every_class_and_some_broke_a_rule(
    session: Session, stage: Labelling, engine: ScriptedEngine
) -> None:
    write_jsonl(stage.folder / "items.jsonl", items(12))
    snapshot(stage.folder, *items(12))
    kinds = {"Fall 9.": PLACEHOLDER, "Fall 1.": IRRELEVANT, "Fall 3.": json.dumps(label("low"))}
    engine.script = lambda messages, _number: next(
        (each for case, each in kinds.items() if case in messages[1]["content"]), GOOD
    )
    stage.label()
    _publish(stage)
    found = choose(session, 4)
    assert found[0].item.id == "i9"
    assert [each.why for each in found] == ["in quarantine", "high", "irrelevant", "low"]
    assert choose(session, 4) == found
    assert len({each.item.id for each in choose(session, 20)}) == 12


def _publish(stage: Labelling) -> None:
    """Let what was labelled be the result of the label stage."""
    folder = stage.folder / "store" / LABEL.name / "g"
    job = job_of(LABEL, inputs=inputs_in(stage.folder, LABEL), fingerprint="g")

    def work(context: StageContext[LabelParams]) -> LabelMetrics:
        for each in LABEL.outputs:
            shutil.copy(stage.out / each.filename, context.output(each))
        return LabelMetrics(reviewed=0, cached=0, asked=12, quarantined=1)

    Store(stage.folder).prepare(job)
    execute(LABEL, job, stage.folder, folder, work, lambda _: None)


def test_the_command_prints_and_writes(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session.task = with_deadline()
    assert command.show(session, 20, "20260101-120000", tmp_path / "p.html") == 0
    said = capsys.readouterr().out
    assert "deadline\t–\t2026-03-31" in said
    assert "3 rows, 3 with different answers" in said
    assert "<mark>2026-03-31</mark>" in (tmp_path / "p.html").read_text(encoding="utf-8")
    with pytest.raises(SettingsInvalid, match="from 1 on"):
        command.show(session, 0, "", None)
    for each in (tmp_path / "store" / "snapshot").glob("*/result.json"):
        each.unlink()
    with pytest.raises(InputMissing, match="no items"):
        command.show(session, 20, "20260101-120000", None)


def test_a_terminal_gets_a_table_for_each_row(session: Session) -> None:
    session.task = with_deadline()
    out = io.StringIO()
    shown.show(_previewed(session), LastingConsole(file=out, force_terminal=True, width=90))
    said = out.getvalue()
    assert re.search(r"deadline.*│.*–.*│.*2026-03-31", said)
    assert re.search(r"run r1.*┃.*now", said)
