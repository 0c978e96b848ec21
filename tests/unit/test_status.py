"""`driver status`: a run's own notes, and what is said where they are damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import RunUnreadable
from contracts.files import ROOT
from driver.report import status
from driver.store import Run

STATE: dict[str, Any] = {
    "run": "r",
    "pid": 1,
    "stages": {
        "label": {"state": "done", "seconds": 75.5, "summary": "3 asked"},
        "train": {"state": "running", "reason": "labels has changed"},
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(tmp_path)
    made.write_state(STATE)
    made.log("label").write_text("eins\n", encoding="utf-8")
    return made


def changed(stage: str, **facts: Any) -> dict[str, Any]:
    return {**STATE, "stages": {**STATE["stages"], stage: facts}}


def test_it_shows_what_the_run_noted(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = (b'{"stage": "train", "done": 3, "total": 9, "unit": "steps"}\n', b"\xff\n")
    (run.folder / "events.jsonl").write_bytes(b"".join(events))
    assert status.show(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "1 min 16 s" in shown
    assert "interrupted" in shown
    assert "labels has changed" in shown


def test_a_run_that_was_killed_at_once_has_no_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.create(tmp_path)
    assert status.show(tmp_path) == 0
    assert run.id in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (json.dumps(changed("label", seconds="long")), "stages.label.seconds"),
        (json.dumps(changed("label", seconds=-1)), "stages.label.seconds"),
        (json.dumps(changed("label", seconds=float("inf"))), "stages.label.seconds"),
        (json.dumps(changed("label", state=["done"])), "stages.label.state"),
        (json.dumps({**STATE, "stages": {"label": 5}}), "stages.label"),
        (json.dumps({**STATE, "stages": []}), "stages"),
        ("[]", ""),
        ('{"run": "r"', "JSON"),
        ("", "JSON"),
    ],
)
def test_damaged_notes_are_named(run: Run, tmp_path: Path, text: str, why: str) -> None:
    (run.folder / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunUnreadable, match=r"run\.json is damaged") as caught:
        status.show(tmp_path)
    assert why in caught.value.why


def test_it_needs_the_workspace_alone(run: Run, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "driver", "status", "-w", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert run.id in done.stdout


@pytest.mark.parametrize(
    ("command", "code"), [(["status"], RunUnreadable.exit_code), (["logs"], 0), (["plan"], 0)]
)
def test_the_other_commands_do_without_the_notes(
    run: Run, tmp_path: Path, command: list[str], code: int
) -> None:
    (run.folder / "run.json").write_bytes(b"\xff{")
    sample = ROOT / "examples/liga-sample"
    config = tmp_path / "s.yaml"
    settings = {
        "runner": "process",
        "snapshot": {"items": [str(sample / "items.jsonl")]},
        "fetch": {"path": str(tmp_path)},
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "driver", *command, "-c", str(config), "-w", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
