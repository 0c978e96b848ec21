"""The whole pipeline on a bare machine: the demo, shrunk. All is real but the size."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts import files
from contracts.stage import Result
from driver.pipeline import stages_for
from driver.settings import load
from driver.store import Run, Store
from tasks import known_tasks
from tests.small_demo import FIRST, SAMPLE, SmallDemo
from tests.smoke.browser import complaints, look

STAGES = stages_for(load(SAMPLE / "demo.yaml", (), {}))
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Host:
    """A folder with the small demo, and what the driver makes of it."""

    folder: Path
    demo: SmallDemo

    def driver(
        self, *words: str, settings: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Call `python -m driver` as a user does."""
        command = self.demo.command(*words, settings=settings)
        return subprocess.run(command, cwd=files.ROOT, capture_output=True, text=True, check=False)

    @property
    def workspace(self) -> Path:
        """Where everything lies."""
        return self.demo.workspace

    def runs(self) -> list[str]:
        """Return the names of the runs so far."""
        return sorted(path.name for path in (self.workspace / "runs").iterdir())

    def result(self, stage: str) -> Result:
        """Return the newest result of a stage."""
        found = Store(self.workspace).latest(stage)
        assert found is not None, f"{stage} has no result"
        return found[1]

    def plan(self, *settings: str) -> dict[str, tuple[str, str]]:
        """Return `driver plan` as {stage: (action, why)}."""
        done = self.driver("plan", settings=settings)
        assert done.returncode == 0, done.stderr
        rows = re.findall(r"│ (\w+) +│ (\w+) +│ (.+?) *│", done.stdout)
        return {stage: (action, why) for stage, action, why in rows}


def _run_once(folder: Path, base: Path, *settings: str, task: str = FIRST) -> Host:
    (folder / "base").symlink_to(base)
    few = ("train.max_steps=70", "train.eval_steps=35", "evaluate.limit=4", *settings)
    demo = SmallDemo.make(folder, folder / "base", folder / "workspace", *few, task=task)
    made = Host(folder, demo)
    done = made.driver("run")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "stdout.txt").write_text(done.stdout, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Host:
    """Return a host on which the pipeline has run once."""
    return _run_once(tmp_path_factory.mktemp("smoke"), tiny_base)


@pytest.fixture(scope="module", params=known_tasks())
def each_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Return the same for each task in turn."""
    if request.param == FIRST:
        first: Host = request.getfixturevalue("host")
        return first
    base, task = request.getfixturevalue("base_for")(request.param), request.param
    shorter = ("train.reference_tokens=256", "evaluate.limit=2")
    return _run_once(tmp_path_factory.mktemp(task), base, *shorter, task=task)


def test_every_stage_left_a_valid_result(each_host: Host) -> None:
    for stage in STAGES:
        result = each_host.result(stage.name)
        assert stage.metrics.model_validate(result.metrics).summary()
        for artifact in stage.outputs:
            reference = result.outputs[artifact.name]
            assert files.digest_path(each_host.workspace / reference.path) == reference.digest


def test_the_run_ends_with_table_answer_and_folder(each_host: Host) -> None:
    shown = (each_host.folder / "stdout.txt").read_text(encoding="utf-8")
    for stage in STAGES:
        assert stage.name in shown
    answer = json.loads(shown[shown.index("\n{\n") : shown.index("\n}\n") + 2])
    assert answer == each_host.result("verify").metrics["answer"]
    assert f"Run folder: {each_host.workspace / 'runs' / each_host.runs()[0]}" in shown
    assert "! evaluate.baseline names no base model" in shown


def test_the_run_folder_tells_the_story(host: Host) -> None:
    run = Run.last(host.workspace)
    assert run is not None
    assert {noted.state for noted in run.read_state().stages.values()} == {"done"}
    defined = json.loads((run.folder / "task.json").read_text(encoding="utf-8"))
    assert (defined["name"], set(defined["prompts"])) == (
        "liga_relevance",
        {"system", "label", "correction", "backfill"},
    )
    events = [json.loads(line) for line in (run.folder / "events.jsonl").open(encoding="utf-8")]
    trained = [event for event in events if event["stage"] == "train"]
    assert trained[-1]["done"] == trained[-1]["total"] == 70
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "<strong>Live: liga-demo:" in page
    assert "60 of 60 items have a label (60 reviewed)" in page


def test_its_report_opens_in_a_browser(host: Host, tmp_path: Path) -> None:
    page = host.workspace / "runs" / host.runs()[0] / "report.html"
    seen = look(page, tmp_path, width=400)
    assert max(seen.closed, seen.open) <= seen.room
    assert {"models", "errors", "answers", "training", "time", "lineage"} <= seen.sections.keys()
    assert all(down > 60 for _, down in seen.sections.values())
    assert {"Loss by step", "What ran when"} <= {title for title, *_ in seen.pictures}
    assert complaints(page, tmp_path) == []


def test_the_live_model_is_followed_back_to_its_rows(host: Host) -> None:
    done = host.driver("verify-lineage")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The chain holds" in done.stdout
    (split,) = host.workspace.glob("store/split/*/out/train.jsonl")
    original = split.read_text(encoding="utf-8")
    try:
        split.write_text(original.replace("Titel", "Title", 1), encoding="utf-8")
        broken = host.driver("verify-lineage", host.runs()[0])
    finally:
        split.write_text(original, encoding="utf-8")
    assert broken.returncode == 39, broken.stdout
    assert "1 of " in broken.stderr
    assert "broken  split: train.jsonl" in broken.stdout


def test_a_second_run_does_nothing_and_says_so(each_host: Host) -> None:
    before = each_host.runs()
    done = each_host.driver("run")
    assert done.returncode == 0
    assert "Nothing has changed" in done.stdout
    assert each_host.runs() == before


def test_another_learning_rate_repeats_training_and_what_follows(host: Host) -> None:
    plan = host.plan("train.learning_rate=0.001")
    assert [stage for stage, (action, _) in plan.items() if action == "run"] == [
        "train",
        "gguf",
        "evaluate",
        "deploy",
        "verify",
        "reprocess",
    ]
    assert plan["train"][1] == "learning_rate: 0.005 → 0.001"
    assert plan["gguf"][1] == "train will run"
    assert plan["split"] == ("reuse", "nothing has changed")


def test_a_changed_item_repeats_what_depends_on_it(host: Host) -> None:
    path = host.folder / "items.jsonl"
    original = path.read_text(encoding="utf-8")
    rows = list(files.read_jsonl(path))
    rows[0]["content"] += " Nachtrag."
    try:
        files.write_jsonl(path, rows)
        plan = host.plan()
    finally:
        path.write_text(original, encoding="utf-8")
    assert plan["snapshot"] == ("run", "the source has changed")
    assert plan["fetch"][0] == "reuse"
    assert plan["label"] == ("run", "snapshot will run")


def test_an_alias_moved_by_hand_is_noticed(host: Host) -> None:
    manifests = host.workspace / "serving" / "manifests"
    alias = next(path for path in manifests.rglob("latest*") if path.is_file())
    original = alias.read_bytes()
    alias.unlink()
    try:
        plan = host.plan()
        assert plan["deploy"][0] == "run"
        assert "gone" in plan["deploy"][1]
        done = host.driver("run")
        assert done.returncode == 0, done.stderr
        assert alias.exists()
    finally:
        if not alias.exists():
            alias.write_bytes(original)


def test_a_new_name_is_verified_and_its_items_are_reprocessed(host: Host) -> None:
    plan = host.plan("deploy.name=other")
    running = {stage: why for stage, (action, why) in plan.items() if action == "run"}
    assert running.keys() == {"deploy", "reprocess", "verify"}
    assert running["verify"] == "deploy.name or backend.url has changed"


def test_a_file_that_was_changed_in_the_store_is_made_anew(host: Host) -> None:
    (gguf,) = host.workspace.glob("store/gguf/*/out/*.gguf")
    kept = gguf.with_name("whole")
    gguf.rename(kept)
    gguf.write_bytes(bytes(kept.stat().st_size))
    try:
        assert host.plan()["gguf"] == ("run", "its result is missing or damaged")
    finally:
        kept.rename(gguf)
    assert host.plan()["gguf"][0] == "reuse"


def test_a_model_that_cannot_be_loaded_does_not_go_live(host: Host) -> None:
    """A GGUF that is damaged in the store, without a change of its size or its time."""
    alias = host.workspace / "serving" / "manifests" / "liga-demo" / "latest.json"
    before = alias.read_bytes()
    versions = sorted(path.name for path in alias.parent.iterdir())
    (gguf,) = host.workspace.glob("store/gguf/*/out/*.gguf")
    whole = gguf.read_bytes()
    kept = gguf.with_name("whole")
    gguf.rename(kept)  # it is linked to what the engine serves
    gguf.write_bytes(bytes(len(whole)))
    os.utime(gguf, ns=(kept.stat().st_mtime_ns,) * 2)
    for stage in ("deploy", "verify"):
        for place in (host.workspace / "store" / stage).iterdir():
            (place / "result.json").rename(place / "aside")
    try:
        done = host.driver("run", settings=("retry.times=0",))
        assert done.returncode == 15, done.stdout + done.stderr
        assert "could not load" in done.stderr
        assert alias.read_bytes() == before
        assert sorted(path.name for path in alias.parent.iterdir()) == versions
    finally:
        kept.rename(gguf)
        for stage in ("deploy", "verify"):
            for place in (host.workspace / "store" / stage).iterdir():
                if (place / "aside").exists():
                    (place / "aside").rename(place / "result.json")


def test_a_refused_candidate_changes_nothing_that_is_live(host: Host) -> None:
    live = host.result("deploy").metrics["digest"]
    done = host.driver("run", settings=("train.max_steps=4",))  # it can write no answer by then
    assert done.returncode == 26, done.stdout + done.stderr
    assert "under the 0.5 demanded" in done.stderr
    page = host.workspace / "runs" / host.runs()[-1] / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "Refused: the candidate does not go live" in text
    assert 'id="answers"' in text
    assert host.result("deploy").metrics["digest"] == live
    assert host.plan()["deploy"][0] == "reuse"


@pytest.mark.parametrize("command", ["plan", "status"])
def test_light_commands_import_nothing_heavy(host: Host, command: str) -> None:
    """`plan` tries the task's rules out, on short texts, so that sentencex is loaded: in 1 ms."""
    code = (
        "import sys, driver.__main__ as m\n"
        f"code = m.main(['{command}', '-c', {str(SAMPLE / 'demo.yaml')!r}, '-w', sys.argv[1]])\n"
        "heavy = {'torch', 'transformers', 'docker', 'xllamacpp', 'huggingface_hub', 'numpy',"
        " 'rapidfuzz', 'py3langid'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)), code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(host.workspace)],
        cwd=files.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "HEAVY [] 0"
