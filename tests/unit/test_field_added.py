"""A field is added to the news task in a copy of the checkout, in its files and only there.

The label stage runs as the process that the driver starts, before a DOUBLE of a teacher's server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import files
from contracts.params import LabelParams
from contracts.stages import ITEMS, LABEL, LABELS, QUARANTINE, REVIEWED
from driver.store import Store
from tests import added_field
from tests.jobs import inputs_in, job_of
from tests.services.simulated_teacher import MODEL, Asked, SimulatedTeacher
from tests.unit.labeler_stage import label, read_jsonl
from tests.unit.labelling import items

COUNT = 6


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("contracts", "images", "serving", "tasks"):
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(files.ROOT / name, tmp_path / "checkout" / name, ignore=left_out)
    return tmp_path / "checkout"


@pytest.fixture
def teacher() -> Iterator[SimulatedTeacher]:
    with SimulatedTeacher(_answer) as started:
        yield started


def _answer(asked: Asked) -> str:
    """Return a label, relevant for every second item; of the new field a day."""
    if "deadline" in asked.messages[-1]["content"]:
        return '{"deadline": "2026-03-31"}'
    relevant = any(f"Fall {n}." in asked.item for n in range(0, COUNT, 2))
    return json.dumps(label("high" if relevant else None), ensure_ascii=False)


def _start(
    checkout: Path, workspace: Path, fingerprint: str, teacher: SimulatedTeacher
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start the stage as a process of the checkout; return it, and where it publishes."""
    params = LabelParams(teacher=MODEL, min_labelled=1, concurrency=1)
    job = job_of(
        LABEL,
        params,
        inputs_in(workspace, LABEL),
        fingerprint=fingerprint,
        code_digest=files.code_digest(*LABEL.code),
    )
    path = Store(workspace).prepare(job)
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
        "RETRAIN_TEACHERS": teacher.word("ollama"),
    }
    command = [sys.executable, "-m", "images.labeler", str(path)]
    started = subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
    return started, path.parent / "out"


def _label(checkout: Path, workspace: Path, fingerprint: str, teacher: SimulatedTeacher) -> Path:
    started, out = _start(checkout, workspace, fingerprint, teacher)
    assert started.wait(timeout=120) == 0
    return out


def _workspace(folder: Path) -> Path:
    files.write_jsonl(folder / ITEMS.filename, items(COUNT))
    files.write_jsonl(folder / REVIEWED.filename, [])
    return folder


def test_the_field_is_asked_for_alone_and_gone_it_is_as_if_it_had_not_been(
    checkout: Path, tmp_path: Path, teacher: SimulatedTeacher
) -> None:
    workspace = _workspace(tmp_path / "workspace")
    before = _label(checkout, workspace, "f1", teacher)
    assert teacher.load.requests == COUNT

    added_field.add(checkout)
    teacher.reset()
    added = _label(checkout, workspace, "f2", teacher)
    assert teacher.load.requests == COUNT // 2
    assert set(teacher.load.by_item.values()) == {1}
    labels = read_jsonl(added / LABELS.filename)
    assert [row["label"]["deadline"] for row in labels] == ["2026-03-31", None] * (COUNT // 2)
    for then, now in zip(read_jsonl(before / LABELS.filename), labels, strict=True):
        assert now["label"] | then["label"] == now["label"]

    added_field.remove(checkout)
    teacher.reset()
    removed = _label(checkout, workspace, "f3", teacher)
    assert teacher.load.requests == 0
    for artifact in (LABELS, QUARANTINE):
        assert (removed / artifact.filename).read_bytes() == (
            before / artifact.filename
        ).read_bytes()


def test_a_sigkill_among_the_questions_costs_the_one_under_way(
    checkout: Path, tmp_path: Path, teacher: SimulatedTeacher
) -> None:
    workspace = _workspace(tmp_path / "workspace")
    _label(checkout, workspace, "f1", teacher)
    added_field.add(checkout)
    teacher.reset()
    met, killed = threading.Event(), threading.Event()

    def waits(asked: Asked) -> str:
        if asked.number == 1 and not killed.is_set():
            met.set()
            killed.wait(timeout=60)
        return _answer(asked)

    teacher.script = waits
    started, _ = _start(checkout, workspace, "f2", teacher)
    assert met.wait(timeout=60)
    started.kill()
    started.wait()
    killed.set()
    out = _label(checkout, workspace, "f2", teacher)
    assert sorted(teacher.load.by_item.values()) == [1, 1, 2]
    rows = read_jsonl(out / LABELS.filename)
    assert [row["label"]["deadline"] for row in rows] == ["2026-03-31", None] * (COUNT // 2)


def test_the_sample_s_generator_gives_the_field_to_each_label(checkout: Path) -> None:
    sample = checkout / "examples/liga-sample"
    shutil.copytree(files.ROOT / "examples/liga-sample", sample)
    then = read_jsonl(sample / "labels.jsonl")
    added_field.add(checkout)
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, sample / "generate.py"], check=True, env=environment)
    now = read_jsonl(sample / "labels.jsonl")
    assert [row["label"] for row in now] == [{**row["label"], "deadline": None} for row in then]
