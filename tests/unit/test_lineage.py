"""The chain from what is served back to the rows: it holds, and whatever is changed is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.errors import LineageBroken
from driver import lineage
from driver.lineage import Link, State
from driver.store import Run
from serving.engine import Model
from tasks import load_task
from tests.unit.finished_run import FinishedRun


@pytest.fixture
def run(finished_run: FinishedRun, tmp_path: Path) -> FinishedRun:
    """Return a copy of the run that may be damaged."""
    workspace = tmp_path / "workspace"
    shutil.copytree(finished_run.workspace, workspace, symlinks=True)
    return replace(finished_run, workspace=workspace, run=Run(workspace, finished_run.run.id))


def links(run: FinishedRun) -> list[Link]:
    return list(lineage.check(run.workspace, run.engine, lineage.end_of(run.run)))


def failed(run: FinishedRun) -> dict[str, tuple[State, str]]:
    """Return what does not hold, by name without a fingerprint."""
    return {
        link.name.split(" ")[0].removesuffix(":")
        if " " in link.name and ":" not in link.name
        else link.name: (link.state, link.text)
        for link in links(run)
        if link.state is not State.OK
    }


def place(run: FinishedRun, pattern: str) -> Path:
    (found,) = run.workspace.glob(f"store/{pattern}")
    return found


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    files.write_json(path, content)


def test_every_link_from_the_served_model_to_the_rows_holds(run: FinishedRun) -> None:
    found = links(run)
    assert {link.state for link in found} == {State.OK}
    lineage.require_whole(found)
    names = [link.name for link in found]
    assert names[:2] == ["served", "verdict"]
    assert names[-1] == "rows"
    for name in ("gguf: model.gguf", "train: lora_adapter", "fetch: base", "split: train.jsonl"):
        assert name in names
    assert sum(name.startswith("task ") for name in names) == 2
    assert "rows, each an item of the snapshot with its label" in found[-1].text


def test_without_a_run_what_is_live_is_followed(run: FinishedRun) -> None:
    start = lineage.live(run.workspace, run.engine, "liga-relevance")
    assert start == lineage.end_of(run.run)
    with pytest.raises(LineageBroken, match="comes from no deployment") as caught:
        lineage.live(run.workspace, run.engine, "other")
    assert caught.value.exit_code == 39


def test_a_run_is_followed_from_what_it_deployed_itself(run: FinishedRun) -> None:
    """A later run of the same fingerprint has written its own deployment into the store."""
    own, tags = f"liga-relevance:{run.run.id}", dict(run.engine.tags)

    def later(result: dict[str, Any]) -> None:
        result["metrics"] |= {"tag": "liga-relevance:20990101-000000", "digest": "ff" * 32}

    edit(place(run, "deploy/*/result.json"), later)
    edit(place(run, "deploy/*/job.json"), lambda job: job.update(run="20990101-000000"))
    start = lineage.end_of(run.run)
    noted = lineage.as_noted(run.run, start[0])
    found = list(lineage.check(run.workspace, run.engine, start, noted))
    assert {link.state for link in found} == {State.OK}
    assert found[0].text == f"{own}, live"
    assert run.engine.tags == tags


def test_a_refused_run_is_followed_from_its_candidate(
    refused_run: FinishedRun, tmp_path: Path
) -> None:
    found = links(refused_run)
    assert {link.state for link in found} == {State.OK}
    served, verdict = found[:2]
    assert served.text == "not deployed: what follows is of the candidate"
    assert verdict.text == "the very model was evaluated; the gate refused it"
    assert {"gguf: model.gguf", "rows"} <= {link.name for link in found}
    with pytest.raises(LineageBroken, match="has evaluated nothing"):
        lineage.end_of(Run.create(tmp_path))


def test_a_changed_row_is_found_by_digest_and_by_content(run: FinishedRun) -> None:
    path = place(run, "split/*/out/train.jsonl")
    rows = list(files.read_jsonl(path))
    answer = json.loads(rows[0]["messages"][-1]["content"])
    rows[0]["messages"][-1]["content"] = json.dumps(answer | {"relevant": not answer["relevant"]})
    files.write_jsonl(path, rows)
    found = failed(run)
    assert found.keys() == {"split: train.jsonl", "rows"}
    assert found["split: train.jsonl"][0] is State.BROKEN
    assert rows[0]["id"] in found["rows"][1]
    with pytest.raises(LineageBroken, match="2 broken, 0 not there any more"):
        lineage.require_whole(links(run))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("gguf/*/out/model.gguf", "gguf: model.gguf"),
        ("train/*/out/lora_adapter", "train: lora_adapter"),
        ("fetch/*/out/base", "fetch: base"),
        ("snapshot/*/out/reviewed.jsonl", "snapshot: reviewed.jsonl"),
    ],
)
def test_what_was_removed_is_not_there_any_more(run: FinishedRun, pattern: str, name: str) -> None:
    path = place(run, pattern)
    path.rename(run.workspace / "aside")
    assert {key: state for key, (state, _) in failed(run).items()} == {name: State.GONE}


def test_the_gguf_of_the_same_size_is_told_apart(run: FinishedRun) -> None:
    place(run, "gguf/*/out/model.gguf").write_bytes(b"FFUG")
    assert failed(run)["gguf: model.gguf"][0] is State.BROKEN


def test_settings_that_were_changed_afterwards_are_found(run: FinishedRun) -> None:
    def learn_faster(job: dict[str, Any]) -> None:
        job["params"]["learning_rate"] = 1.0

    edit(place(run, "train/*/job.json"), learn_faster)
    assert failed(run)["train"][0] is State.BROKEN


def test_a_limit_is_no_part_of_what_was_made(run: FinishedRun) -> None:
    def wait_longer(job: dict[str, Any]) -> None:
        job["params"]["timeout_s"] = 999

    edit(place(run, "evaluate/*/job.json"), wait_longer)
    assert failed(run) == {}


def test_a_stage_that_was_run_anew_since_is_found(run: FinishedRun) -> None:
    path = place(run, "train/*/out/lora_adapter")
    (path / "adapter_model.safetensors").write_bytes(b"other weights")

    def as_published(result: dict[str, Any]) -> None:
        result["outputs"]["lora_adapter"]["digest"] = files.digest_path(path)

    edit(place(run, "train/*/result.json"), as_published)
    state, text = failed(run)["train: lora_adapter"]
    assert (state, text) == (State.BROKEN, "made anew since gguf took it")


def test_a_missing_job_ends_the_chain_there(run: FinishedRun) -> None:
    place(run, "split/*/job.json").unlink()
    found = failed(run)
    assert found["split"][0] is State.GONE
    assert found["rows"][0] is State.GONE


@pytest.mark.parametrize("content", ["{", "null", ""])
@pytest.mark.parametrize("stage", ["deploy", "train", "split"])
@pytest.mark.parametrize("name", ["job.json", "result.json"])
def test_what_was_edited_is_broken_and_not_gone(
    run: FinishedRun, stage: str, name: str, content: str
) -> None:
    place(run, f"{stage}/*/{name}").write_text(content, encoding="utf-8")
    state, text = failed(run)[stage]
    assert (state, text) == (State.BROKEN, f"its {name} is damaged")


def test_figures_that_are_none_of_the_stage_are_broken(run: FinishedRun) -> None:
    def without(result: dict[str, Any]) -> None:
        del result["metrics"]["digest"]

    edit(place(run, "deploy/*/result.json"), without)
    assert failed(run)["served"][0] is State.BROKEN


@pytest.mark.parametrize("name", ["evaluate/*/out/verdict.json", "split/*/out/test.jsonl"])
def test_an_artifact_that_cannot_be_parsed_is_broken(run: FinishedRun, name: str) -> None:
    place(run, name).write_text("{", encoding="utf-8")
    assert {state for state, _ in failed(run).values()} == {State.BROKEN}
    assert len(failed(run)) == 2, "the file, and what it says"


def test_a_pipe_in_place_of_an_artifact_is_its_damage(run: FinishedRun) -> None:
    path = place(run, "gguf/*/out/model.gguf")
    path.unlink()
    os.mkfifo(path)
    state, text = failed(run)["gguf: model.gguf"]
    assert (state, "it is a pipe" in text) == (State.BROKEN, True)


@pytest.mark.parametrize("file", ["job.json", "result.json"])
def test_a_deployment_that_cannot_be_read_is_named(run: FinishedRun, file: str) -> None:
    path = place(run, f"deploy/*/{file}")
    path.write_text("{")
    with pytest.raises(LineageBroken, match=rf"is damaged in {path.parent}"):
        lineage.live(run.workspace, run.engine, "liga-relevance")


def test_a_reader_that_has_enough_ends_nothing(run: FinishedRun) -> None:
    """`driver verify-lineage | head`: checked to its end, and its code is the chain's."""
    asked = {
        "snapshot": {"items": ["items.jsonl"]},
        "fetch": {"path": "base"},
        "engine": "llamacpp",  # which has nothing, so that one link is gone
        "runner": "process",
    }
    settings = run.workspace / "retrain.yaml"
    files.write_json(settings, asked)  # YAML too
    command = [sys.executable, "-m", "driver", "verify-lineage", run.run.id]
    with subprocess.Popen(
        [*command, "-c", str(settings), "-w", str(run.workspace)],
        cwd=files.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == LineageBroken.exit_code
    assert "Broken pipe" not in said
    assert "1 of " in said


def test_the_engine_is_asked(run: FinishedRun) -> None:
    tag, engine = f"liga-relevance:{run.run.id}", run.engine
    before = dict(engine.tags)
    try:
        engine.tags["liga-relevance:latest"] = Model("liga-relevance:latest", "ee" * 32, 1)
        assert failed(run) == {}
        assert "not live: another version is" in links(run)[0].text
        engine.tags[tag] = Model(tag, "ff" * 32, 1)
        assert failed(run)["served"][0] is State.BROKEN
        del engine.tags[tag]
        assert failed(run)["served"][0] is State.GONE
    finally:
        engine.tags = before


def test_another_definition_of_the_task_is_not_the_one_of_then(
    run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task("liga_relevance")
    monkeypatch.setattr(
        lineage, "load_task", lambda _: replace(task, system_prompt=task.system_prompt + "!")
    )
    found = failed(run)
    assert {state for state, _ in found.values()} == {State.GONE}
    assert found.keys() == {"task"}


def test_a_verdict_on_another_model_is_found(run: FinishedRun) -> None:
    def of_another(verdict: dict[str, Any]) -> None:
        verdict["candidate"] = "00" * 32

    edit(place(run, "evaluate/*/out/verdict.json"), of_another)
    found = failed(run)
    assert found["verdict"] == (State.BROKEN, "another model was evaluated than is served")
    assert found["evaluate: verdict.json"][0] is State.BROKEN


@pytest.mark.parametrize(
    ("stage", "change", "told"),
    [
        ("evaluate", {"scores": {"relevant.f1": 0.5}}, "scores.json: scores.relevant.f1: 0.5, not"),
        ("evaluate", {"models": {"champion": "00"}}, "scores.json: models.champion: '00', not"),
        ("evaluate", {"valid": 1}, "scores.json: valid: 1, not 88"),
        ("evaluate", {"promote": False}, "verdict.json: promote: False, not True"),
        ("deploy", {"previous": "x:1"}, "run.json of run {run}: previous: 'x:1', not"),
        ("evaluate", {"scores": {"made.up": 1.0}}, "scores.json: scores.made.up: 1.0, not nothing"),
        ("evaluate", {"scores": None}, "scores.json: scores.rules: nothing, not 0.9"),
        ("evaluate", {"agreement": None}, "run.json of run {run}: agreement: nothing, not "),
    ],
)
def test_a_figure_that_others_tell_otherwise_is_found(
    run: FinishedRun, stage: str, change: dict[str, Any], told: str
) -> None:
    """A result.json has no digest of its own."""

    def other(result: dict[str, Any]) -> None:
        for name, value in change.items():
            known = result["metrics"].pop(name)
            if value is not None:
                result["metrics"][name] = known | value if isinstance(value, dict) else value
            elif isinstance(known, dict):
                result["metrics"][name] = {}

    edit(place(run, f"{stage}/*/result.json"), other)
    found = failed(run)
    assert found.keys() == {stage}
    assert found[stage][0] is State.BROKEN
    assert told.format(run=run.run.id) in found[stage][1]
    start = lineage.end_of(run.run)
    noted = lineage.as_noted(run.run, start[0])
    links = lineage.check(run.workspace, run.engine, start, noted)
    assert found[stage][1] in [link.text for link in links if link.state is State.BROKEN]


def test_who_has_forced_what_needed_none_is_asked(run: FinishedRun) -> None:
    def forced(result: dict[str, Any]) -> None:
        result["metrics"]["forced"] = "it is better (eve)"

    edit(place(run, "deploy/*/result.json"), forced)
    state, text = failed(run)["verdict"]
    assert (state, "it is better (eve)" in text) == (State.BROKEN, True)


def test_training_and_evaluation_may_come_from_two_splits(run: FinishedRun) -> None:
    """The training is reused where only the test rows have changed since."""
    first = place(run, "split/*")
    second = first.with_name("0" * 16)
    shutil.copytree(first, second)

    def renamed(content: dict[str, Any]) -> None:
        content["fingerprint"] = second.name
        for output in content.get("outputs", {}).values():
            output["path"] = output["path"].replace(first.name, second.name)

    def from_the_first(job: dict[str, Any]) -> None:
        taken = job["inputs"]["test_split"]
        taken["path"] = taken["path"].replace(first.name, second.name)

    for name in ("job.json", "result.json"):
        edit(second / name, renamed)
    edit(place(run, "evaluate/*/job.json"), from_the_first)
    found = [link for link in links(run) if link.name == "rows"]
    assert [link.state for link in found] == [State.OK, State.OK]
