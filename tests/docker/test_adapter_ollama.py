"""A LoRA on a base model in a real Ollama: served as trained, and refused on another base."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
import torch
from safetensors.torch import load_file, save_file

from contracts import files, reference
from contracts.entrypoint import StageContext
from contracts.errors import CandidateRefused, ModelMissing, SentinelTripped
from contracts.params import DeployParams, EvaluateParams
from contracts.stage import InputRef
from contracts.stages import DEPLOY, EVALUATE
from driver.host_stages import deploy
from driver.store import Store
from examples import tiny_qwen3
from images.labeler import parity
from images.labeler.contestants import Question
from images.labeler.drift import check_candidate
from images.weights.lora import WEIGHTS
from serving.ollama import Ollama
from tasks import load_task
from tests.docker.stage_compose import ROOT
from tests.jobs import job_of
from tests.small_demo import SmallDemo
from tests.tiny_gguf import converted, tiny_gguf
from tests.unit.adapters import adapter_of, converted_adapter, needs_converter
from tests.unit.model_stages import rows
from tests.unit.references import recorded

__all__ = ["tiny_gguf"]

pytestmark = [pytest.mark.docker, needs_converter]

TASK = load_task("liga_relevance")
BASE, OTHER = "adapter-base:q8", "adapter-base:other"
OPTIONS = {**TASK.modelfile().parameters, "num_predict": 12, "temperature": 0.0}


@dataclass(frozen=True)
class Made:
    """A base, an adapter on it as a GGUF, and the record of what both predict."""

    base: Path
    lora: Path
    gguf: Path
    record: Path


@pytest.fixture(scope="module")
def made(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("adapter")
    lora = adapter_of(tiny_base, root / "lora_adapter")
    reference.write(root / "reference.json", recorded(tiny_base, lora, rows(4)))
    gguf, _ = converted_adapter(root / "ws", tiny_base, lora)
    return Made(tiny_base, lora, gguf, root / "reference.json")


@pytest.fixture(scope="module")
def engine(ollama_server: str, tiny_gguf: Path, tmp_path_factory: Any) -> Iterator[Ollama]:
    """Return an engine that has the base, and a model of the same shape with other weights."""
    server = Ollama(ollama_server)
    before = set(server.models())
    folder = tmp_path_factory.mktemp("other")
    tiny_qwen3.make(folder / "base", hidden=32, layers=2, seed=18)
    server.create(BASE, tiny_gguf, TASK.modelfile())
    server.create(OTHER, converted(folder / "base", folder / "other.gguf"), TASK.modelfile())
    yield server
    for tag in set(server.models()) - before:
        server.unload(tag)
        server.delete(tag)


def context(root: Path, made: Made, stage: Any, params: Any, **more: Path) -> StageContext[Any]:
    """Return what a stage sees of these inputs in a workspace of its own."""
    given = {"base": made.base, "gguf": made.gguf, "reference": made.record, **more}
    for name, path in given.items():
        (root / name).symlink_to(path)
    inputs = {name: InputRef(path=name, digest="ab" * 32, bytes=0) for name in given}
    job = job_of(stage, inputs=inputs, run=f"r{uuid4().hex[:8]}")
    return StageContext(stage, job, params, root, root, lambda _: None)


def drift_on(root: Path, made: Made, engine: Ollama, base: str) -> Any:
    """Return the drift of the adapter on a base, as the evaluate stage measures it."""
    tag = f"adapter-candidate:{uuid4().hex[:8]}"
    engine.create(tag, made.gguf, TASK.modelfile(), base=base)
    asked = context(root, made, EVALUATE, EvaluateParams(base=base))
    try:
        return check_candidate(asked, engine, tag, TASK)
    finally:
        engine.unload(tag)


def test_base_and_adapter_are_served_as_they_were_trained(
    made: Made, engine: Ollama, tmp_path: Path
) -> None:
    assert engine.quantization(BASE) == "q8_0"
    found = drift_on(tmp_path, made, engine, BASE)
    assert found.divergence < 5e-3
    assert found.positions == reference.read(made.record).positions() > 0


def test_another_base_under_the_name_is_refused(made: Made, engine: Ollama, tmp_path: Path) -> None:
    with pytest.raises(SentinelTripped, match="sentinel gguf_drift") as caught:
        drift_on(tmp_path, made, engine, OTHER)
    assert f"{OTHER} has to be the model of fetch" in caught.value.todo


def _twice(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t * (2 if ".lora_B." in name else 1) for name, t in weights.items()}


def _half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    halved = sorted(name for name in weights if ".lora_B." in name)[::2]
    return {name: t * (name not in halved) for name, t in weights.items()}


@pytest.mark.parametrize("plant", [_twice, _half])
def test_another_adapter_than_the_one_recorded_is_refused(
    made: Made, engine: Ollama, tmp_path: Path, plant: Callable[[Any], Any]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(made.lora, other)
    save_file(plant(load_file(made.lora / WEIGHTS)), other / WEIGHTS, metadata={"format": "pt"})
    gguf, _ = converted_adapter(tmp_path / "ws", made.base, other)
    with pytest.raises(SentinelTripped, match="sentinel gguf_drift") as caught:
        drift_on(tmp_path, replace(made, gguf=gguf), engine, BASE)
    assert "convert the adapter anew" in caught.value.todo


def test_it_answers_otherwise_than_its_base_and_reads_the_trainers_prompt(
    made: Made, engine: Ollama, tmp_path: Path
) -> None:
    first = engine.create("adapter-made:v1", made.gguf, TASK.modelfile(), base=BASE)
    assert engine.create("adapter-made:v2", made.gguf, TASK.modelfile(), base=BASE) == (
        first.__class__("adapter-made:v2", first.digest, first.size_bytes)
    )
    assert first.digest != engine.models()[BASE].digest
    messages = TASK.messages(TASK.canary)
    alone, together = (
        engine.chat(tag, messages, options=OPTIONS, timeout_s=120).text
        for tag in (BASE, "adapter-made:v1")
    )
    assert alone != together
    items = files.read_jsonl(ROOT / "examples" / "liga-sample" / "items.jsonl")
    item = TASK.item.model_validate(next(iter(items)))
    question = Question("one", item, TASK.messages(item), TASK.output.model_construct(), "")
    asked = context(tmp_path, made, EVALUATE, EvaluateParams(base=BASE))
    parity.check(asked, engine, "adapter-made:v1", TASK, [question])


def test_a_base_that_is_not_there_is_not_pulled(made: Made, engine: Ollama) -> None:
    with pytest.raises(ModelMissing, match="has no model nowhere:latest"):
        engine.create("adapter-made:v3", made.gguf, TASK.modelfile(), base="nowhere")
    assert "adapter-made:v3" not in engine.models()


def test_it_goes_live_on_the_base_that_it_was_evaluated_on_and_on_no_other(
    made: Made, engine: Ollama, tmp_path: Path
) -> None:
    engine.copy(BASE, "adapter-moving")
    params = DeployParams(name="adapter-live", form="adapter", base="adapter-moving")
    candidate = engine.create("adapter-made:v4", made.gguf, TASK.modelfile(), base=params.base)
    verdict = tmp_path / "verdict.json"
    verdict.write_text(json.dumps({"promote": True, "candidate": candidate.digest}))
    (tmp_path / "first").mkdir()
    given = context(tmp_path / "first", made, DEPLOY, params, verdict=verdict)
    live = deploy.work(given, engine)
    assert engine.models()["adapter-live:latest"].digest == live.digest == candidate.digest

    engine.copy(OTHER, "adapter-moving")  # somebody pulls another model under this name
    (tmp_path / "second").mkdir()
    given = context(tmp_path / "second", made, DEPLOY, params, verdict=verdict)
    with pytest.raises(CandidateRefused, match="is another model now"):
        deploy.work(given, engine)
    assert engine.models()["adapter-live:latest"].digest == candidate.digest
    assert f"adapter-live:{given.job.run}" not in engine.models()


# --- the whole pipeline, its stages as processes --------------------------------------------------
@dataclass(frozen=True)
class Host:
    """A host with the small demo, whose adapters are served on a base in Ollama."""

    demo: SmallDemo
    ollama: str

    def driver(
        self, *words: str, settings: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Call `python -m driver` as a user does."""
        return subprocess.run(
            self.demo.command(*words, settings=settings),
            cwd=ROOT,
            env={**os.environ, "OLLAMA_HOST": self.ollama},
            capture_output=True,
            text=True,
            check=False,
        )

    def metrics(self, stage: str) -> dict[str, Any]:
        """Return the metrics of a stage's newest result."""
        found = Store(self.demo.workspace).latest(stage)
        assert found is not None, f"{stage} has no result"
        return found[1].metrics


@pytest.fixture(scope="module")
def host(
    engine: Ollama, ollama_server: str, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Host:
    """Return a host on which the pipeline has run once."""
    folder = tmp_path_factory.mktemp("run")
    assert BASE in engine.models()
    demo = SmallDemo.make(
        folder, tiny_base, folder / "workspace",
        "engine=ollama", "deploy.form=adapter", f"deploy.base={BASE}", "deploy.name=adapter-run",
        "train.max_steps=70", "train.eval_steps=35", "evaluate.limit=4",
    )  # fmt: skip
    made = Host(demo, ollama_server)
    done = made.driver("run")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.mark.slow
def test_a_run_ends_with_the_adapter_live_on_its_base(host: Host, engine: Ollama) -> None:
    assert host.metrics("gguf")["way"] == "adapter"
    assert not (host.demo.workspace / "store" / "merge").exists()
    live = engine.models()["adapter-run:latest"]
    assert host.metrics("deploy")["digest"] == live.digest
    assert host.metrics("evaluate")["drift"] < 5e-3
    shown = {
        tag: requests.post(f"{host.ollama}/api/show", json={"model": tag}, timeout=30).json()
        for tag in (BASE, live.tag)
    }
    weights = {tag: _blobs(of_model["modelfile"], "FROM") for tag, of_model in shown.items()}
    assert weights[live.tag] == weights[BASE], "both have the same weights, once on the disk"
    assert len(_blobs(shown[live.tag]["modelfile"], "ADAPTER")) == 1
    answer = engine.chat(
        live.tag, TASK.messages(TASK.canary), options={**OPTIONS, "num_predict": 600}, timeout_s=120
    )
    assert TASK.parse(answer.text)
    assert host.metrics("verify")["answer"]
    again = host.driver("run")
    assert "Nothing has changed" in again.stdout, again.stderr


@pytest.mark.slow
def test_a_run_on_another_base_changes_nothing_that_is_live(host: Host, engine: Ollama) -> None:
    before = engine.models()
    done = host.driver("run", settings=(f"deploy.base={OTHER}", "retry.times=0"))
    assert done.returncode == SentinelTripped.exit_code, done.stdout + done.stderr
    assert "sentinel gguf_drift" in done.stderr
    assert engine.models() == before


def _blobs(modelfile: str, word: str) -> list[str]:
    """Return the blobs that a Modelfile names behind a word."""
    lines = [line.split() for line in modelfile.splitlines() if line.startswith(f"{word} ")]
    return [Path(line[1]).name for line in lines]
