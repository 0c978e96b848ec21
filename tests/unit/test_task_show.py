"""`driver task show`: what the task is, and what of it has changed since the last run."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts import files, stages
from contracts.params import FetchMetrics, FetchParams
from contracts.stage import OutputRef, Result
from driver import __main__ as cli
from driver.store import Run, Store
from driver.task import noted, tokens
from tasks import load_task
from tests.jobs import job_of
from tests.unit.finished_run import FinishedRun

TASK = load_task("liga_relevance")
_DEMO = str(files.ROOT / "examples/liga-sample/demo.yaml")


def _shown(capsys: pytest.CaptureFixture[str], workspace: Path, *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["task", "show", "--json", "-c", _DEMO, "-w", str(workspace), *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_all_of_the_task_is_in_the_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _shown(capsys, tmp_path)
    assert [field["name"] for field in found["fields"]] == list(TASK.output.model_fields)
    assert found["fields"][5] == {
        "name": "priority",
        "title": "Priorität",
        "type": "choice",
        "nullable": True,
        "values": "one of high, medium, low, or null",
        "kept_in": "column, 20 characters",
        "meaning": TASK.output.model_fields["priority"].description,
    }
    assert [rule["id"] for rule in found["rules"]] == [rule.id for rule in TASK.rules]
    assert found["values"]["Arbeitskreis"]["AK2"] == "Migration und Flucht"
    assert found["last_run"] is None
    assert {digest["changed"] for digest in found["digests"].values()} == {None}
    assert found["digests"]["task"]["now"] == TASK.digest()
    assert found["digests"]["labels"]["now"] == TASK.label_digest()
    assert len(found["as_a_whole"]) == 3
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_plain_where_it_is_piped_and_tables_on_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "driver", "task", "show", "-c", _DEMO, "-w", str(tmp_path)]
    piped = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "\nrelevance_score\tnumber, 0 to 1\tmetadata.llm_analysis\t" in piped
    assert "\nscore-side\terror\t" in piped
    assert "\x1b" not in piped
    assert "│" not in piped
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140"}
    with subprocess.Popen(command, stdout=theirs, env=environment) as shown:
        os.close(theirs)
        said = b""
        while chunk := _read(ours):
            said += chunk
    os.close(ours)
    assert shown.returncode == 0
    assert "relevance_score" in said.decode()
    assert "│" in said.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def test_what_has_changed_since_the_last_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.create(tmp_path)
    noted.note(TASK, run.folder)
    found = _shown(capsys, tmp_path)
    assert found["last_run"] == run.id
    assert {digest["changed"] for digest in found["digests"].values()} == {False}
    noted.note(replace(TASK, system_prompt="Antworte."), run.folder)
    digests = _shown(capsys, tmp_path)["digests"]
    changed = {name for name, digest in digests.items() if digest["changed"]}
    assert changed == {"task", "system prompt"}
    noted.note(replace(TASK, name="liga_relevance", label_prompt="Antworte."), run.folder)
    digests = _shown(capsys, tmp_path)["digests"]
    changed = {name for name, digest in digests.items() if digest["changed"]}
    assert changed == {"task", "labels", "label prompt"}


def test_a_run_of_before_these_notes_has_its_jobs(finished_run: FinishedRun) -> None:
    store = Store(finished_run.workspace)
    run = Run.named(finished_run.workspace)
    assert not (run.folder / noted.FILE).exists()
    found = noted.digests_of(run, store, TASK.name)
    assert found == {"task": TASK.digest(), "labels": TASK.label_digest()}
    assert noted.digests_of(run, store, "another") == {}


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    (run.folder / noted.FILE).write_text("{", encoding="utf-8")
    assert cli.main(["task", "show", "-c", _DEMO, "-w", str(tmp_path)]) == 36


def test_another_task_s_run_says_nothing_of_this_one(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    noted.note(TASK, run.folder)
    text = (run.folder / noted.FILE).read_text(encoding="utf-8")
    (run.folder / noted.FILE).write_text(text.replace("liga_relevance", "x"), encoding="utf-8")
    assert noted.digests_of(run, Store(tmp_path), TASK.name) == {}


def test_tokens_are_counted_by_the_base_s_own_tokenizer(
    tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_path = tokens.ruler(tmp_path, FetchParams(path=str(tiny_base)))
    assert by_path.exact
    assert by_path.count("<|im_start|><|im_end|>") == 2
    shown = _shown(capsys, tmp_path, "--set", f"fetch.path={tiny_base}")
    assert shown["prompts"]["system"] == {
        "characters": len(TASK.system_prompt),
        "tokens": by_path.count(TASK.system_prompt),
    }
    assert str(tiny_base) in shown["tokens_counted"]
    estimated = tokens.ruler(tmp_path, FetchParams(path=str(tmp_path)))
    assert not estimated.exact
    assert "not on this host" in estimated.by
    for text in (TASK.system_prompt, TASK.label_prompt, TASK.correction_prompt):
        assert estimated.count(text) == pytest.approx(by_path.count(text), rel=0.1)


def test_a_tokenizer_of_the_workspace_or_the_cache_is_found(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = FetchParams(model="org/base", revision="a" * 40)
    assert not tokens.ruler(tmp_path, wanted).exact
    cached = tmp_path / "hub/models--org--base"
    snapshot = cached / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").symlink_to(tiny_base / "tokenizer.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert tokens.ruler(tmp_path, wanted).exact
    other = wanted.model_copy(update={"revision": "b" * 40})
    assert not tokens.ruler(tmp_path, other).exact


def test_a_tokenizer_that_was_fetched_is_found(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    wanted = FetchParams(model="org/base", revision="a" * 40)
    store = Store(tmp_path)
    place = store.prepare(job_of(stages.FETCH, wanted)).parent
    (place / "out").mkdir()
    base = shutil.copytree(tiny_base, place / "out/base", ignore=lambda *_: ["model.safetensors"])
    result = Result(
        stage="fetch",
        fingerprint="f",
        outputs={"base": OutputRef(path="store/fetch/f/out/base", digest="", bytes=0)},
        metrics=FetchMetrics(model="org/base", files=1, bytes=1).model_dump(),
        finished_at="2026-11-27T00:00:00+00:00",
        seconds=0,
    )
    files.write_json(place / "result.json", result.model_dump(mode="json"))
    assert str(base / "tokenizer.json") in tokens.ruler(tmp_path, wanted).by
    other = wanted.model_copy(update={"model": "org/other"})
    assert not tokens.ruler(tmp_path, other).exact
