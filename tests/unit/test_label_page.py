"""`driver labels report`: the page says what the stage's report says, of a failed stage too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import FileUnusable, InputMissing, LabelsMissing
from contracts.stages import LABEL
from driver.report import labels
from images.labeler import label as label_stage
from serving.teachers import TeacherServer
from tests.unit.labeler_stage import StageRun, label, write_jsonl
from tests.unit.scripted_engine import ScriptedEngine

GOOD = json.dumps(label("high"))
PLACEHOLDER = json.dumps(label("high", summary="Keine Zusammenfassung verfügbar."))


def script(messages: list[dict[str, str]], _number: int) -> str:
    """Answer the third item never well, the second one when asked again."""
    asked = messages[1]["content"]
    good = "Fall 2" not in asked and ("Fall 1" not in asked or len(messages) > 2)
    return GOOD if good else PLACEHOLDER


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageRun:
    engine = ScriptedEngine(script)
    servers = [TeacherServer(engine, "scripted", "teacher:latest")]
    monkeypatch.setattr(label_stage, "connect_teachers", lambda *_: servers)
    run = StageRun(LABEL, tmp_path / "store/label/f1")
    texts = [f"Das Land kürzt <b>Mittel</b>, Fall {n}." for n in range(4)]
    rows = [{"id": f"i{n}", "title": "Kürzung", "content": text} for n, text in enumerate(texts)]
    write_jsonl(run.folder / "items.jsonl", rows)
    write_jsonl(run.folder / "reviewed.jsonl", [{"id": "i3", "label": label(None)}])
    return run


def test_the_page_shows_what_the_report_holds(stage: StageRun, tmp_path: Path) -> None:
    stage.run(label_stage.work, teacher="teacher", min_labelled=0, max_attempts=2)
    stage.out.rename(stage.folder / "out")
    (stage.folder / "result.json").write_text("{}")
    page = tmp_path / "labels.html"
    assert labels.write(tmp_path, page) == stage.folder / "out"
    text = page.read_text(encoding="utf-8")
    assert "3 of 4 items have a label (2 teacher, 1 reviewed); 1 are in quarantine." in text
    assert '<td>placeholder<td>error<td class="number">2<td class="number">1' in text
    assert '<td>placeholder<td class="number">1' in text, "the reason of the quarantine"
    assert "The teacher and the reviews: 1 items" in text
    assert "<td>relevance_score.brier (less is better)<td" in text
    assert "<b>i3</b>: reviewed as irrelevant, the teacher says high" in text
    assert "The teacher's answers for 4 items cost 6 requests" in text
    assert "The last start asked for 3 of these items" in text
    assert "&lt;b&gt;Mittel" in text
    assert "<b>Mittel" not in text
    assert "The stage failed" not in text


def test_a_failed_stage_has_a_page_too(stage: StageRun, tmp_path: Path) -> None:
    with pytest.raises(LabelsMissing, match="3 of 4") as caught:
        stage.run(label_stage.work, teacher="teacher", min_labelled=1)
    assert "labels report" in caught.value.todo
    labels.write(tmp_path, tmp_path / "labels.html")
    assert "The stage failed" in (tmp_path / "labels.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["{", '{"items": 3}', "[]", "5"])
def test_a_report_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "store/label/f1/out/label_report.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileUnusable, match=r"label_report\.json"):
        labels.write(tmp_path, tmp_path / "labels.html")


def test_without_a_report_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputMissing) as caught:
        labels.write(tmp_path, tmp_path / "labels.html")
    assert "stage label" in caught.value.todo


def test_a_warning_that_an_earlier_version_did_not_count_is_shown(
    stage: StageRun, tmp_path: Path
) -> None:
    """It wrote null where one answer had the warning."""
    stage.run(label_stage.work, teacher="teacher", min_labelled=0, max_attempts=2)
    path = stage.out / "label_report.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    report["rules"].append({"rule": "no-tags", "severity": "warning", "after_retry": None})
    path.write_text(json.dumps(report), encoding="utf-8")
    labels.write(tmp_path, tmp_path / "labels.html")
    assert "<td>no-tags<td>warning<td>–<td>–" in (tmp_path / "labels.html").read_text()
