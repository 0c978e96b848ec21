"""`driver task diff` and `plan`: what an edit of the task costs, told before it is made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import Field, create_model, model_validator

from contracts import files, stages
from contracts.errors import InputMissing
from contracts.label_cache import CACHE_FILE, LabelCache
from contracts.label_definition import Edit, FieldDefinition, LabelDefinition, compare
from contracts.params import TrainMetrics
from contracts.stage import OutputRef, Result
from contracts.stages import TRAIN
from driver import __main__ as cli
from driver.preview import comparison
from driver.report.display import Display
from driver.session import Session
from driver.settings import Settings
from driver.store import Store
from driver.task import cost, diff, noted
from driver.task.revision import labelling_at
from images.labeler import label as label_stage
from serving import teachers
from serving.teachers import TeacherServer
from tasks import Task
from tests.jobs import job_of
from tests.unit.edited_task import SECTION, TASK, answers, with_deadline
from tests.unit.labeler_stage import label, write_jsonl
from tests.unit.labelling import GOOD, Labelling, engine, items, stage
from tests.unit.scripted_engine import ScriptedEngine
from tests.unit.test_labels_known_items import snapshot

__all__ = ["engine", "stage"]


@pytest.fixture
def session(stage: Labelling, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Return a session over a workspace whose three items were labelled, in 30 s."""
    engine.script = answers
    stage.label()
    workspace = stage.folder
    snapshot(workspace, *items(3))
    for each in ("runs/20260101-120000", "store/label/f/out"):
        (workspace / each).mkdir(parents=True)
    noted.note(TASK, workspace / "runs/20260101-120000")
    report = json.loads((stage.out / "label_report.json").read_text(encoding="utf-8"))
    report["cost"] |= {"elapsed_s": 30.0, "items": 3}
    files.write_json(workspace / "store/label/f/out" / stages.LABEL_REPORT.filename, report)
    place = TeacherServer(engine, "scripted", "teacher:latest")
    monkeypatch.setattr(teachers, "connect_teachers", lambda *_: [place])
    settings = Settings.model_validate(
        {
            "workspace": str(workspace),
            "task": TASK.name,
            "label": {"teacher": "teacher"},
            "fetch": {"path": str(workspace)},
            "snapshot": {"items": ["items.jsonl"]},
        }
    )
    return Session(settings, Display())


def _told(session: Session, task: Task, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    session.task = task
    session.__dict__.pop("label_digest", None)
    capsys.readouterr()
    assert diff.show(session, "", as_json=True) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _rows(**counts: int) -> dict[str, int]:
    return {**dict.fromkeys(cost.Rows.__dataclass_fields__, 0), **counts}


def test_an_added_field_costs_a_question_for_each_row_that_has_it(
    session: Session,
    stage: Labelling,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _told(session, TASK, capsys)["rows"] == _rows(kept=3)
    told = _told(session, with_deadline(), capsys)
    assert told["rows"] == _rows(kept=1, completed=2)
    assert (told["fields"], told["seconds"]) == (["deadline"], 20)
    assert told["edit"]["added"] == ["deadline"]
    diff.show(session, "20260101-120000", as_json=False)
    said = capsys.readouterr().out
    assert "field deadline is new: it is asked for alone, for rows with relevant true" in said
    assert "2 are asked for deadline alone; at most 20 s by the pace" in said
    last = with_deadline().label_prompt.count("\n") + 1
    assert (
        f"words on deadline alone, lines {last - 1} to {last} of the label prompt:\n"
        "    | ## deadline\n    | Bis wann die Liga handeln muss; null," in said
    )
    monkeypatch.setattr(label_stage, "load_task", lambda _: with_deadline())
    assert stage.label().backfilled == 2
    assert _told(session, with_deadline(), capsys)["rows"] == _rows(kept=3)
    assert _told(session, TASK, capsys)["rows"] == _rows(kept=3)


def test_the_count_is_what_the_stage_then_asks(
    session: Session,
    stage: Labelling,
    engine: ScriptedEngine,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompt = TASK.label_prompt.replace("Im Zweifel true", "Im Zweifel false")
    edits = [
        replace(TASK, label_prompt=prompt),
        replace(TASK, correction_prompt="Anders: $reasons"),
        with_deadline(section=SECTION + " Nie geraten; deadline ist ein Tag."),
    ]
    for edited in edits:
        rows = _told(session, edited, capsys)["rows"]
        monkeypatch.setattr(label_stage, "load_task", lambda _, task=edited: task)
        metrics = stage.label()
        assert rows["completed"] == metrics.backfilled
        assert rows["outdated"] + rows["broken"] + rows["new"] == metrics.asked
        assert rows["kept"] == metrics.cached
    snapshot(stage.folder, *items(4))
    assert _told(session, edits[-1], capsys)["rows"] == _rows(kept=3, new=1)
    assert engine.alive


def test_what_is_said_of_an_edit_is_what_is_counted(
    session: Session,
    stage: Labelling,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers of before a run may stand where those of the run cannot."""

    def said(task: Task) -> str:
        _told(session, task, capsys)
        diff.show(session, "", as_json=False)
        return capsys.readouterr().out

    reworded = replace(TASK, label_prompt=TASK.label_prompt.replace("Im Zweifel", "Zur Not"))
    assert "- Im Zweifel + Zur Not: no answer of before can stand: every row" in said(reworded)
    both = with_deadline(replace(TASK, label_prompt=reworded.label_prompt))
    assert "field deadline is new: it is asked for with all others" in said(both)
    monkeypatch.setattr(label_stage, "load_task", lambda _: with_deadline())
    stage.label()
    run = session.workspace / "runs/20260102-120000"
    run.mkdir()
    noted.note(with_deadline(), run)
    told = said(with_deadline(section=SECTION.replace("ein Tag", "ein Tag im Text")))
    assert "label prompt, + im Text: no rows are labelled anew: older answers can stand" in told
    assert "every row" not in told
    assert "2 are asked for deadline alone" in told

    class Stricter(TASK.output):  # type: ignore[misc, name-defined]
        @model_validator(mode="after")
        def _no_doubles(self) -> Self:
            """Refuse a list that names something twice."""
            if self.relevant:
                raise ValueError("twice")
            return self

    noted.note(TASK, run)
    monkeypatch.setattr(Session, "label_digest", "another")  # as the edit of its file leaves it
    told = said(replace(TASK, output=Stricter))
    assert "what labels rest on is the same by its words; 2 rows break what rules" in told
    assert "2 are labelled (2 whose answers break what is asked today)" in told


def test_reviews_that_lack_the_field_are_counted(
    session: Session, stage: Labelling, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stage.folder / "store/snapshot/f/out" / stages.REVIEWED.filename
    write_jsonl(out, [{"id": f"i{n}", "label": label("low")} for n in range(3)])
    assert _told(session, TASK, capsys)["rows"] == _rows(reviewed=3)
    assert _told(session, with_deadline(), capsys)["rows"] == _rows(completed=3)
    write_jsonl(out, [{"id": "i0", "label": label(None)}, {"id": "i1", "label": label("low")}])
    # i0 is whole, but one of the reviews that the teacher is held against: its own answer is not.
    assert _told(session, with_deadline(), capsys)["rows"] == _rows(completed=3, reviewed=1)


def test_reviews_that_the_task_takes_no_more_are_told(
    session: Session, stage: Labelling, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stage.folder / "store/snapshot/f/out" / stages.REVIEWED.filename
    short = label("low", summary="Kürzung.")
    rows = [{"id": f"i{n}", "label": short if n else label("low")} for n in range(3)]
    write_jsonl(out, rows)
    summary: Any = (str | None, Field(title="Text", max_length=9))
    narrower = replace(TASK, output=create_model("Narrower", __base__=TASK.output, summary=summary))
    assert _told(session, narrower, capsys)["rows"] == _rows(reviewed=2, refused=1)


def test_a_revision_is_read_by_its_own_code(tmp_path: Path) -> None:
    for name in ("tasks", "contracts"):
        shutil.copytree(
            files.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    by = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.hooksPath=/dev/null"]
    for words in (["init", "-q"], ["add", "tasks"], [*by, "commit", "-q", "-m", "as it is"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    shutil.rmtree(tmp_path / "tasks" / TASK.name)
    assert labelling_at("HEAD", TASK.name, tmp_path) == LabelDefinition.of(TASK)
    with pytest.raises(InputMissing, match="HEAD~1 is no run"):
        labelling_at("HEAD~1", TASK.name, tmp_path)
    with pytest.raises(InputMissing, match="HEAD is no run") as raised:
        labelling_at("HEAD", "other", tmp_path)
    assert "unknown task 'other'" in raised.value.why
    with pytest.raises(InputMissing, match="no revision"):
        labelling_at("--output=x", TASK.name, tmp_path)


def test_a_run_of_before_these_notes_is_named(session: Session) -> None:
    note = session.workspace / "runs/20260101-120000/task.json"
    old = json.loads(note.read_text(encoding="utf-8"))
    del old["labelling"]
    files.write_json(note, old)
    with pytest.raises(InputMissing, match="run 20260101-120000 has not noted"):
        diff.show(session, "", as_json=False)


def test_each_kind_of_edit_says_what_it_does() -> None:
    old = LabelDefinition.of(TASK)
    first, *_ = TASK.rules
    told = old.model_copy(update={"rules": {**old.rules, first.id: "error: anders"}})
    edit = compare(old, told)
    assert list(diff.effects(edit, told)) == [
        (f"rule {first.id}", "only rows that break it now are asked again")
    ]
    assert "what labels rest on is the same" in dict(diff.effects(compare(old, old), old)).values()


@pytest.mark.parametrize(
    ("then", "now", "changed"),
    [
        ({"maximum": 100}, {"maximum": 50}, False),
        ({"minimum": 0, "maximum": 1}, {"minimum": 0, "maximum": 100}, True),
        ({"maximum": 1}, {}, True),
        ({"maxLength": 90}, {"maxLength": 9, "pattern": "^[0-9-]+$"}, True),
        ({"items": {"maxLength": 90}}, {"items": {"maxLength": 9}}, False),
        ({"properties": {"minimum": {}}}, {"properties": {"maximum": {}}}, True),
        ({"properties": {"a": {"maxLength": 9}}}, {"properties": {"a": {}}}, False),
    ],
)
def test_a_limit_is_one_only_where_the_values_mean_the_same(
    then: dict[str, Any], now: dict[str, Any], changed: bool
) -> None:
    bare = LabelDefinition.of(TASK)
    old, new = (
        bare.model_copy(update={"fields": {"f": FieldDefinition(values=each, meaning="")}})
        for each in (then, now)
    )
    edit = compare(old, new)
    assert (edit.changed, edit.limits) == ((("f",), ()) if changed else ((), ("f",)))


def test_the_commands_and_the_plan_say_so(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "retrain.yaml"
    settings.write_text(
        f"workspace: {session.workspace}\nlabel: {{teacher: teacher}}\nrunner: process\n"
        f"fetch: {{path: {tmp_path}}}\nsnapshot: {{items: [{tmp_path}/items.jsonl]}}\n"
    )
    named = ["-c", str(settings)]
    assert cli.main(["task", "diff", "20260101-120000", *named]) == 0
    assert "nothing: what labels rest on is the same" in capsys.readouterr().out
    assert cli.main(["label", "--since", "20260101-120000", *named]) == 10
    assert "belong to --preview" in capsys.readouterr().err
    assert cli.main(["label", "--preview", "0", *named]) == 10
    assert cli.main(["plan", *named]) == 0
    said = capsys.readouterr().out
    assert "label: 3 rows keep their labels; the teacher is asked nothing" in said


def test_an_older_training_for_the_task_as_it_is_counts(session: Session) -> None:
    """After an edit is taken back, the model of before is there still."""
    outputs = {
        each.name: OutputRef(path=each.filename, digest="", bytes=1) for each in TRAIN.outputs
    }
    metrics = TrainMetrics(
        backend="peft",
        steps=1,
        rows=1,
        dropped=0,
        train_loss=1,
        validation_loss=1,
        trained_tokens=1,
        peak_memory_mib=0,
    )
    for age, digest in ((0, "another"), (60, session.task_digest)):
        job = job_of(TRAIN, fingerprint=digest, task_digest=digest)
        path = Store(session.workspace).prepare(job).parent / "result.json"
        result = Result(
            stage=TRAIN.name,
            fingerprint=digest,
            finished_at="2026-11-27T21:00:00Z",
            seconds=1,
            outputs=outputs,
            metrics=metrics.model_dump(mode="json"),
        )
        files.write_json(path, result.model_dump(mode="json"))
        os.utime(path, (path.stat().st_mtime - age,) * 2)
        told = diff._training(session, Edit(), None)
        assert ("has to be repeated" in told) is (digest == "another")


def test_the_teacher_is_looked_for_where_the_settings_say(
    session: Session, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def connect(environ: Mapping[str, str], *_: object) -> list[TeacherServer]:
        asked.append(environ.get("RETRAIN_TEACHERS", ""))
        return [TeacherServer(engine, "scripted", "teacher:latest")]

    monkeypatch.setattr(teachers, "connect_teachers", connect)
    session.settings = session.settings.model_copy(update={"teachers": ("10.0.0.9:11434",)})
    cost.of(session)
    comparison.preview(session, 1, ("run r1", LabelDefinition.of(TASK)), lambda *_: None)
    assert asked == ["10.0.0.9:11434"] * 2


def test_before_a_teacher_was_asked_it_counts_by_items_and_reviews(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, started = session.workspace / CACHE_FILE, "label: no teacher was asked yet"
    cache.unlink()
    told = "label: nothing was labelled yet: of the 3 items of the last snapshot 0 are reviewed"
    assert told in _said(session, capsys)
    assert not cache.exists()
    with LabelCache(cache) as empty:
        empty.note_definition(LabelDefinition.of(TASK))
    assert f"{started}; 3 rows are labelled (3 never labelled)" in _said(session, capsys)
    last = session.store.latest(stages.SNAPSHOT.name)
    assert last is not None
    reviewed = session.workspace / last[1].outputs[stages.REVIEWED.name].path
    write_jsonl(reviewed, [{"id": items(3)[0]["id"], "label": json.loads(GOOD)}])
    session.task = with_deadline()
    assert f"{started}; 1 rows are asked for deadline alone; 2 are" in _said(session, capsys)
    with LabelCache(cache) as other:
        other.put_teachers({"elsewhere": "digest"})
    assert "it is not known which model answers at these servers" in _said(session, capsys)
    shutil.rmtree(session.workspace / "store/snapshot")
    assert "there is no snapshot of the items yet" in _said(session, capsys)


def test_the_line_counts_the_rows_of_each_field() -> None:
    rows = cost.Rows(completed=119)
    assert (
        "119 rows are asked for ordered (37), stars (119) alone"
        in cost.Cost(rows, {"ordered": 37, "stars": 119}, None, at_most=False).text()
    )
    assert (
        "asked for due, stars alone"
        in cost.Cost(rows, {"due": 119, "stars": 119}, None, at_most=False).text()
    )


def _said(session: Session, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    diff.show(session, "", as_json=False)
    return capsys.readouterr().out
