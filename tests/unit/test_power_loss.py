"""After a power cut, all that was said to be done is there, and nothing is half there.

The disk is a MODEL (power_cut.py): strict, and cut at every single change. FAULT_SEED repeats.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from contracts import files
from contracts.entrypoint import RESULT_FILE, StageContext, execute
from contracts.params import GgufMetrics, GgufParams
from contracts.stage import Job, Result
from contracts.stages import CONVERT, GGUF, GGUF_VARIANTS
from contracts.test_set import TestSet, path_of
from driver import taken_back
from driver.settings import BackendSettings
from driver.store import Run, Store
from driver.task import publish
from driver.task.render import render
from driver.task.source import Source
from driver.window import Window
from driver.window_record import RECORD_FILE
from tests.jobs import job_of
from tests.unit.power_cut import Check, cut_everywhere
from tests.unit.window_world import Outside

Cut = Callable[[Check], AbstractContextManager[None]]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def cut(workspace: Path, tmp_path: Path) -> Cut:
    """Return `cut_everywhere` for the workspace; the seed is shown if the test fails."""
    seed = int(os.environ.get("FAULT_SEED", time.time_ns() % 1_000_000))
    logging.getLogger(__name__).warning("FAULT_SEED=%d", seed)
    scratch = tmp_path / "states"
    scratch.mkdir()
    return lambda check: cut_everywhere(workspace, scratch, seed, check)


def test_a_published_file_is_there_and_whole(workspace: Path, cut: Cut) -> None:
    done: list[int] = []

    def check(found: Path) -> None:
        path = found / "a/b/value.json"
        if not path.exists():
            assert not done
            return
        number = json.loads(path.read_text(encoding="utf-8"))["number"]
        assert number in {len(done) - 1, len(done)}

    with cut(check):
        for number in range(3):
            files.write_json(workspace / "a/b/value.json", {"number": number, "fill": "x" * 99})
            done.append(number)


def test_a_rendered_task_is_of_before_or_of_now_file_by_file(workspace: Path, cut: Cut) -> None:
    first = Source.of("liga_relevance")
    second = Source(dataclasses.replace(first.task, version="2"))
    texts = [render(source) for source in (first, second)]
    done = False
    publish.publish(first, workspace / "out")

    def check(found: Path) -> None:
        for name, now in texts[1].items():
            text = (found / "out" / name).read_text(encoding="utf-8")
            assert text == now if done else text in {texts[0][name], now}

    with cut(check):
        publish.publish(second, workspace / "out")
        done = True


@pytest.mark.parametrize("forgets", ["the file", "its folder"])
def test_the_model_finds_what_is_not_flushed(workspace: Path, cut: Cut, forgets: str) -> None:
    done = False

    def check(found: Path) -> None:
        path = found / "value"
        assert path.read_text("utf-8") == "whole" if path.exists() else not done

    def publish() -> None:
        nonlocal done
        with (workspace / "new").open("w", encoding="utf-8") as stream:
            stream.write("whole")
            stream.flush()
            if forgets != "the file":
                os.fsync(stream.fileno())
        (workspace / "new").rename(workspace / "value")
        if forgets != "its folder":
            files.fsync_path(workspace)
        done = True

    with pytest.raises((AssertionError, UnicodeDecodeError)), cut(check):
        publish()


def gguf_job(number: int) -> Job:
    return job_of(
        CONVERT, GgufParams(), run=f"r{number}", fingerprint="f1", code_digest="c", task="t"
    )


def test_a_result_tells_of_whole_artifacts_also_when_a_stage_runs_again(
    workspace: Path, cut: Cut
) -> None:
    """The second execution gives other bytes of the same size, as training on a GPU may."""
    result: Result | None = None

    def check(found: Path) -> None:
        path = Store(found).place("gguf", "f1") / RESULT_FILE
        if not path.exists():
            assert result is None
            return
        told = Result.model_validate_json(path.read_text(encoding="utf-8"))
        for output in told.outputs.values():
            assert files.digest_path(found / output.path) == output.digest
        assert result is None or result == told

    def work(context: StageContext[GgufParams]) -> GgufMetrics:
        for path in (context.output(GGUF), context.output(GGUF_VARIANTS) / "other.gguf"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"weights {context.job.run}", encoding="utf-8")
        return GgufMetrics(bytes=10, tensors=1, architecture="qwen3")

    with cut(check):
        for number in range(2):
            job = gguf_job(number)
            folder = Store(workspace).prepare(job).parent
            result = None
            result = execute(CONVERT, job, workspace, folder, work, lambda _: None)


class _Cutting(Outside):
    """Checks what a power cut would leave before and after each change of the outside, too."""

    look: Callable[[], None]

    def step(self) -> None:
        super().step()
        self.look()

    __hash__ = Outside.__hash__


@pytest.mark.parametrize("way", ["stop", "switch off", "the backend made anew"])
def test_what_is_stopped_is_on_the_record(workspace: Path, cut: Cut, way: str) -> None:
    outside = _Cutting()
    closed = False

    def check(found: Path) -> None:
        record = found / RECORD_FILE
        if not record.exists():
            assert (outside.running, outside.llm) == (True, True), "nothing would bring it back"
            return
        assert not closed
        told = Window(found, None, world=outside).record()
        assert told.container_name == "news"
        assert told.stop or outside.running
        assert outside.running or told.container_id == outside.container

    outside.look = lambda: os.fsync(root)
    root = os.open(workspace.parent, os.O_RDONLY)  # beside it: cuts, and flushes nothing of it
    try:
        with cut(check):
            backend = BackendSettings(url="http://127.0.0.1:9", container="news")
            window = Window(workspace, backend, "http://ollama", outside)
            window.open(stop=way != "switch off")
            if way == "the backend made anew":
                outside.running, outside.container = True, "c2"
                window.open()
            window.close()
            closed = True
    finally:
        os.close(root)


def test_the_frozen_test_set_never_loses_what_it_had(workspace: Path, cut: Cut) -> None:
    kept = TestSet()

    def check(found: Path) -> None:
        held = TestSet.read(path_of(found, "t", "default"))
        assert held.tested >= kept.tested
        assert held.tested | held.seen >= kept.seen
        assert held.tested_texts >= kept.tested_texts
        assert held.seen_texts >= kept.seen_texts

    with cut(check):
        for name in ("a", "b"):
            more = kept.with_more({name: f"text-{name}"}, {f"seen {name}": f"seen-{name}"})
            more.write(path_of(workspace, "t", "default"))
            kept = more


def test_a_run_shows_the_state_that_it_told_last(workspace: Path, cut: Cut) -> None:
    told = -1

    def check(found: Path) -> None:
        run = Run.last(found)
        stages = run.read_state().stages if run else {}
        assert told < 0 or (stages["train"].seconds or 0) >= told

    with cut(check):
        run = Run.create(workspace)
        for step in range(2):
            run.write_state({"run": run.id, "stages": {"train": {"seconds": step}}})
            told = step


def test_a_rejected_model_stays_rejected(workspace: Path, cut: Cut) -> None:
    names: set[str] = set()

    def check(found: Path) -> None:
        assert set(taken_back.rejected(found)) >= names

    with cut(check):
        for name in ("g1", "g2"):
            taken_back.reject(workspace, name, f"tag {name}")
            names |= {name, f"tag {name}"}
