"""Which stages the settings ask for, and what happens where one pass turns out impossible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts import files, stages
from contracts.entrypoint import StageContext, execute
from contracts.errors import OnePassNotCovered, SettingsInvalid
from contracts.params import FetchMetrics, GgufMetrics, MergeMetrics
from contracts.stage import Metrics, Result, Stage
from driver import pipeline
from driver.pipeline import PIPELINE, stages_for
from driver.plan import Action, Request, Step
from driver.settings import Settings, load
from driver.store import Store
from tests.jobs import job_of

SETTINGS = "fetch: {path: /base}\nsnapshot: {items: [a.jsonl]}\n"
SHORT = (
    replace(stages.FETCH, outputs=(stages.BASE, stages.LORA_ADAPTER, stages.REFERENCE)),
    stages.MERGE,
    stages.CONVERT,
)
"""The part of the pipeline that makes the model; the training is taken for done."""
METRICS: dict[str, Metrics] = {
    "fetch": FetchMetrics(model="base", files=1, bytes=1),
    "merge": MergeMetrics(merged_modules=1, bytes=1),
    "gguf": GgufMetrics(bytes=1, tensors=1, architecture="qwen3"),
}


def settings(tmp_path: Path, *overrides: str) -> Settings:
    (tmp_path / "retrain.yaml").write_text(SETTINGS)
    return load(tmp_path / "retrain.yaml", overrides, {})


def convert_of(found: tuple[Stage, ...]) -> Stage:
    return next(stage for stage in found if stage.name == "gguf")


@pytest.mark.parametrize(
    ("overrides", "merges"),
    [
        ((), False),
        (("gguf.way=one_pass",), False),
        (("gguf.way=two_step",), True),
        (("merge.dtype=fp32",), True),
    ],
)
def test_there_is_a_merge_unless_one_pass_does_without(
    tmp_path: Path, overrides: tuple[str, ...], merges: bool
) -> None:
    found = stages_for(settings(tmp_path, *overrides))
    names = [stage.name for stage in PIPELINE if merges or stage is not stages.MERGE]
    assert [stage.name for stage in found] == names
    weights = {stages.MERGED} if merges else {stages.BASE, stages.LORA_ADAPTER}
    either = {stages.MERGED, stages.BASE, stages.LORA_ADAPTER}
    assert either & set(convert_of(found).inputs) == weights
    assert convert_of(found).task == "none"
    assert convert_of(found).outputs == stages.CONVERT.outputs


def test_an_importance_matrix_takes_the_training_rows(tmp_path: Path) -> None:
    found = stages_for(settings(tmp_path, "gguf.imatrix=true", "gguf.outtype=[q4_k_m, f16]"))
    assert convert_of(found).inputs[-1] is stages.TRAIN_SPLIT
    assert convert_of(found).task == "all"


def test_every_stage_takes_what_an_earlier_one_gives(tmp_path: Path) -> None:
    for way in ("one_pass", "two_step"):
        given: set[str] = set()
        for stage in stages_for(settings(tmp_path, f"gguf.way={way}")):
            assert {artifact.name for artifact in stage.inputs} <= given
            given |= {artifact.name for artifact in stage.outputs}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("gguf.outtype=q3_k_m",), "gguf.outtype"),
        (("gguf.outtype=[]",), "outtype names no type"),
        (("gguf.outtype=[q8_0, q8_0]",), "twice"),
        (("gguf.imatrix=true",), "imatrix serves q4_k_m"),
        (("gguf.way=one_pass", "merge.dtype=fp32"), "needs gguf.way=two_step"),
    ],
)
def test_what_does_not_fit_together_is_named(
    tmp_path: Path, overrides: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        settings(tmp_path, *overrides)
    assert told in refused.value.why


def test_the_way_is_no_part_of_the_identity_and_the_types_are(tmp_path: Path) -> None:
    one, two, other = (
        settings(tmp_path, override).gguf.identity()
        for override in ("gguf.way=one_pass", "gguf.way=two_step", "gguf.outtype=q6_k")
    )
    assert one == two != other


# --- the fall back -------------------------------------------------------------------------------
class Scripted:
    """What the loop acts through, with stages that write a few bytes; one pass is refused."""

    def __init__(self, root: Path, chosen: Settings) -> None:
        self.settings, self.root, self.store = chosen, root, Store(root)
        self.display = self
        self.said: list[str] = []
        self.ran: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)

    def request(self, stage: Stage) -> Request:
        return Request(stage, {}, {}, "code", "task", "")

    def still_true(self, _stage: Stage, _result: Result) -> str:
        return ""

    def execute(self, step: Step) -> Result:
        self.ran.append(step.stage.name)
        job = job_of(
            step.stage,
            {"path": "/base"} if step.stage.name == "fetch" else {},
            step.inputs,
            fingerprint=step.fingerprint,
            code_digest="code",
            task="task",
        )
        path = self.store.prepare(job)
        return execute(step.stage, job, self.root, path.parent, _work, lambda _event: None)

    def reuse(self, step: Step) -> Result:
        assert step.result is not None
        return step.result

    def __getattr__(self, name: str) -> Callable[..., None]:
        told = {"begin", "end", "fail", "prepare", "bring_back", "drop_leftovers", "nothing_to_do"}
        if name not in told:
            raise AttributeError(name)
        return lambda *_given: None


def _work(context: StageContext[Any]) -> Metrics:
    if stages.LORA_ADAPTER.name in context.job.inputs and context.stage.name == "gguf":
        raise OnePassNotCovered("not covered", why="use_dora is set")
    for artifact in context.stage.outputs:
        if artifact is stages.GGUF_VARIANTS:
            context.output(artifact).mkdir()
        else:
            context.output(artifact).write_text(artifact.name)
    return METRICS[context.stage.name]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "PIPELINE", SHORT)


@pytest.mark.usefixtures("short")
def test_what_one_pass_does_not_cover_is_merged_and_converted_and_it_is_said(
    tmp_path: Path,
) -> None:
    session: Any = Scripted(tmp_path, settings(tmp_path))
    results = pipeline.run(session)
    assert session.ran == ["fetch", "gguf", "merge", "gguf"]
    assert session.said == ["not covered (use_dora is set); merging and converting instead"]
    assert set(results) == {"fetch", "merge", "gguf"}

    again: Any = Scripted(tmp_path, settings(tmp_path))
    assert {step.action for step in pipeline.make(again)} == {Action.REUSE}
    pipeline.run(again)
    assert again.ran == []


@pytest.mark.usefixtures("short")
def test_another_adapter_is_tried_in_one_pass_again(tmp_path: Path) -> None:
    pipeline.run(Scripted(tmp_path, settings(tmp_path)))  # type: ignore[arg-type]
    for adapter in tmp_path.glob("store/fetch/*/out/lora_adapter"):
        adapter.write_text("LORA_adapter")  # of the same size
        result = adapter.parent.parent / "result.json"
        old = files.digest_text("lora_adapter")
        result.write_text(result.read_text().replace(old, files.digest_text("LORA_adapter")))
    session: Any = Scripted(tmp_path, settings(tmp_path))
    assert "merge" not in [step.stage.name for step in pipeline.make(session)]


@pytest.mark.usefixtures("short")
def test_one_pass_that_was_asked_for_is_not_replaced(tmp_path: Path) -> None:
    session: Any = Scripted(tmp_path, settings(tmp_path, "gguf.way=one_pass"))
    with pytest.raises(OnePassNotCovered):
        pipeline.run(session)
    assert session.ran == ["fetch", "gguf"]
    with pytest.raises(OnePassNotCovered):
        pipeline.run(session)  # however often
