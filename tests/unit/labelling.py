"""The label stage on a few items, before a teacher that answers by script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.stages import LABEL
from images.labeler import label as label_stage
from serving.engine import full_tag
from serving.teachers import TeacherServer
from tests.unit.labeler_stage import StageRun, label, read_jsonl, write_jsonl
from tests.unit.scripted_engine import ScriptedEngine

DEFAULTS = {"teacher": "teacher", "min_labelled": 0, "patience_s": 0, "concurrency": 1}
GOOD = json.dumps(label("high"), ensure_ascii=False)
PLACEHOLDER = json.dumps(label("high", summary="Keine Zusammenfassung verfügbar."))


def items(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"i{n}", "title": f"Kürzung {n}", "content": f"Das Land kürzt Mittel, Fall {n}."}
        for n in range(count)
    ]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    double = ScriptedEngine(lambda _messages, _number: GOOD)
    monkeypatch.setattr(
        label_stage,
        "connect_teachers",
        lambda _environ, _workspace, name: [TeacherServer(double, "scripted", full_tag(name))],
    )
    return double


class Labelling(StageRun):
    def __init__(self, folder: Path, count: int = 3) -> None:
        super().__init__(LABEL, folder)
        write_jsonl(folder / "items.jsonl", items(count))
        write_jsonl(folder / "reviewed.jsonl", [])

    def label(self, **params: Any) -> Any:
        return self.run(label_stage.work, **{**DEFAULTS, **params})

    def rows(self, name: str) -> list[dict[str, Any]]:
        return read_jsonl(self.out / f"{name}.jsonl")


@pytest.fixture
def stage(tmp_path: Path) -> Labelling:
    return Labelling(tmp_path)
