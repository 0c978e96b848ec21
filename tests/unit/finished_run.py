"""A run that has ended, in a workspace, made in seconds: for what reads runs.

Items, labels, split and evaluation are made by the stages' own code from the shipped sample. The
answers of the three models are a DOUBLE's: labels with errors, the more the lesser the model. What
needs a GPU, an engine or a backend (base, adapter, GGUF, deployment) is a DOUBLE too: files and
figures of the right form.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from contracts import files, stages
from contracts.entrypoint import StageContext, execute
from contracts.errors import CandidateRefused, RetrainError
from contracts.params import (
    DeployMetrics,
    FetchMetrics,
    GgufMetrics,
    ReprocessMetrics,
    RestoreMetrics,
    SnapshotMetrics,
    TrainMetrics,
    VerifyMetrics,
)
from contracts.stage import InputRef, Job, Metrics, OutputRef, Stage
from driver.host_stages import deploy, snapshot
from driver.notes import Notes
from driver.plan import Request, fingerprint
from driver.store import Run, Store
from images.labeler import evaluate, label, resampling, split
from serving.engine import Answer, Model
from tasks import load_task
from tests.unit.references import write_empty
from tests.unit.scripted_engine import ScriptedEngine, one_word_tokenizer

SAMPLE = files.ROOT / "examples/liga-sample"
TASK = load_task("liga_relevance")
CANDIDATE = "c4" * 32
LIVE = "b7" * 32
BASELINE = "a1" * 32
BEGAN = 1_790_000_000.0
"""When the run began."""
_ERRORS = {"candidate": 0.06, "champion": 0.16, "baseline": 0.34}
"""Share of the fields that a model gets wrong."""
_TOOK = {
    "snapshot": 14,
    "fetch": 3,
    "label": 4100,
    "split": 6,
    "train": 2700,
    "gguf": 95,
    "evaluate": 1380,
    "deploy": 130,
    "restore": 48,
    "reprocess": 5200,
    "verify": 21,
}
"""Seconds, as on the production host."""
_ITEMS = 240


@dataclass(frozen=True)
class FinishedRun:
    """The run, and the engine in which its model is live."""

    workspace: Path
    run: Run
    engine: ScriptedEngine
    raised: RetrainError | None
    """What has ended it: the refusal of the gate."""


def make(workspace: Path, *, refused: bool = False, champion: bool = True) -> FinishedRun:
    """Make a run that ends well, or one whose candidate the gate refuses."""
    run, store = Run.create(workspace), Store(workspace)
    engine = _engine(champion=champion)
    works = _works(engine)
    now = [BEGAN]
    order = [stage for stage in _one_pass() if stage.name in _TOOK]
    with (
        mock.patch("time.time", side_effect=lambda: now[0]),
        mock.patch.object(evaluate, "connect", return_value=engine),
        mock.patch.object(resampling, "BOOTSTRAPS", 400),  # seconds, and no other words
        mock.patch.object(resampling, "SWAPS", 999),
    ):
        notes = Notes(run, "")
        for stage in order:
            notes.stage(stage.name, action="run", reason="it has never finished", state="planned")
        raised = None
        try:
            _run(order, store, run, notes, works, now, refused=refused)
        except CandidateRefused as error:
            raised = error
        away = [(BEGAN + _TOOK["snapshot"], now[0] - (0 if raised else _TOOK["reprocess"] + 21))]
        notes.end(workspace, away, _fail, raised)
    return FinishedRun(workspace, run, engine, raised)


def _run(
    order: Sequence[Stage],
    store: Store,
    run: Run,
    notes: Notes,
    works: Mapping[str, Callable[[StageContext[Any]], Metrics]],
    now: list[float],
    *,
    refused: bool,
) -> None:
    """Run the stages on a clock of their own; raises the refusal of the gate."""
    made: dict[str, OutputRef] = {}
    for stage in order:
        job = _job(stage, run, made, refused=refused)
        notes.stage(stage.name, state="running", fingerprint=job.fingerprint)
        path = store.prepare(job)
        now[0] += _TOOK[stage.name]
        try:
            result = execute(stage, job, store.root, path.parent, works[stage.name], lambda _: None)
        except CandidateRefused as error:
            notes.stage(stage.name, state="failed", error=str(error))
            raise
        made |= result.outputs
        told = stage.metrics.model_validate(result.metrics).summary()
        took = float(_TOOK[stage.name])
        notes.stage(stage.name, state="done", seconds=took, summary=told, metrics=result.metrics)


def _fail(text: str) -> None:
    raise AssertionError(text)


def _one_pass() -> tuple[Stage, ...]:
    """Return the stages as by default: one pass, without a merge."""
    from driver.pipeline import stages_for
    from driver.settings import load

    return stages_for(load(SAMPLE / "demo.yaml", (), {}))


def _job(stage: Stage, run: Run, made: Mapping[str, OutputRef], *, refused: bool) -> Job:
    own: dict[str, dict[str, Any]] = {
        "fetch": {
            "model": "Qwen/Qwen3-14B",
            "revision": "40c069824f4251a91eefaf281ebe4c544efd3e18",
        },
        "snapshot": {"items": ["items.jsonl"], "reviewed": ["labels.jsonl"]},
        "split": {"test": 0.4, "validation": 0.15},
        "evaluate": {
            "champion": "liga-relevance:latest",
            "baseline": "qwen3:14b-q8_0",
            "min_valid": 0.9,
            "min_scores": {"rules": 1.0} if refused else {},
            "drift_positions": 0,
        },
    }
    params = stage.params(**own.get(stage.name, {}))
    digests = {"none": "", "labels": TASK.label_digest(), "all": TASK.digest()}
    request = Request(
        stage,
        params.model_dump(mode="json"),
        params.identity(),
        files.code_digest(*stage.code),
        TASK.name,
        digests[stage.task],
        files.canonical_json({"BASE_IMAGE": f"python:3.11@sha256:{'d' * 64}"})
        if stage.image
        else "",
    )
    inputs = {
        artifact.name: InputRef.model_validate(made[artifact.name].model_dump())
        for artifact in stage.inputs
    }
    return request.job(run.id, fingerprint(request, inputs), inputs)


# --- the models ----------------------------------------------------------------------------------
class _Engine(ScriptedEngine):
    def create(self, tag: str, *arguments: Any, **more: Any) -> Model:
        super().create(tag, *arguments, **more)
        self.tags[tag] = Model(tag, CANDIDATE, 15)
        return self.tags[tag]


def _engine(*, champion: bool) -> ScriptedEngine:
    """Return an engine with a base model and, if asked for, with a champion."""
    labels = {row["id"]: row["label"] for row in files.read_jsonl(SAMPLE / "labels.jsonl")}
    items = [TASK.item.model_validate(row) for row in files.read_jsonl(SAMPLE / "items.jsonl")]
    known = {TASK.messages(item)[-1]["content"]: labels[item.id] for item in items}

    def answer(messages: list[dict[str, str]], _number: int, tag: str) -> Answer:
        asked = messages[-1]["content"]
        role = {"qwen3:14b-q8_0": "baseline", "liga-relevance:latest": "champion"}.get(
            tag, "candidate"
        )
        chance = random.Random(f"{role} {asked}")  # noqa: S311  # the same whenever it is asked
        text = _with_errors(known[asked], _ERRORS[role], chance)
        seconds = {"baseline": 3.4, "champion": 3.1, "candidate": 3.0}[role] + chance.random()
        return Answer(text, True, "stop", 900, len(text) // 4, seconds)

    engine = _Engine(lambda *_: "")
    engine.tag_script = answer
    engine.tags = {"qwen3:14b-q8_0": Model("qwen3:14b-q8_0", BASELINE, 15)}
    if champion:
        engine.tags["liga-relevance:latest"] = Model("liga-relevance:latest", LIVE, 15)
        engine.tags["liga-relevance:before"] = Model("liga-relevance:before", LIVE, 15)
    return engine


def _with_errors(label: Mapping[str, Any], share: float, chance: random.Random) -> str:
    """Return an answer like the label, each field wrong with this probability."""
    found = dict(label)
    wrong = chance.random
    if wrong() < share / 4:
        return '{"summary": "Der Landtag'  # cut off: not valid
    if wrong() < share / 2:
        return json.dumps(_turned(found), ensure_ascii=False)
    spread = 0.08 + share / 2
    truth = 0.93 if found["relevant"] else 0.06
    found["relevance_score"] = round(min(1.0, max(0.0, chance.gauss(truth, spread))), 2)
    if found["relevant"]:
        if wrong() < 2 * share:
            found["priority"] = chance.choice(["low", "medium", "high"])
        if wrong() < share:
            found["assigned_aks"] = chance.sample(["AK1", "AK2", "AK3", "AK4", "AK5", "QAG"], 2)
        if wrong() < share:
            words = found["summary"].split()
            found["summary"] = " ".join([*words[:-2], "noch", "im", "Herbst."])
    return json.dumps(found, ensure_ascii=False)


def _turned(found: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a model that takes the relevant for irrelevant, or the reverse."""
    if found["relevant"]:
        empty: dict[str, Any] = {
            "summary": None,
            "detailed_analysis": None,
            "argumentationskette": [],
        }
        off: dict[str, Any] = {
            "priority": None,
            "assigned_aks": [],
            "relevant": False,
            "relevance_score": 0.3,
        }
        return {**found, **empty, **off}
    texts = {
        "summary": "Der Verein feiert <b>sein</b> Fest & lädt ein.",
        "detailed_analysis": "Der Verein feiert sein Fest.",
        "argumentationskette": ["Ehrenamt hält Vereine am Leben.", "Feste verbinden."],
    }
    on = {"priority": "low", "assigned_aks": ["AK1"], "relevant": True, "relevance_score": 0.6}
    return {**found, **texts, **on}


# --- the stages ----------------------------------------------------------------------------------
def _works(engine: ScriptedEngine) -> dict[str, Callable[[StageContext[Any]], Metrics]]:
    return {
        "snapshot": _snapshot,
        "fetch": _fetch,
        "label": label.work,
        "split": split.work,
        "train": _train,
        "gguf": _gguf,
        "evaluate": evaluate.work,
        "deploy": lambda context: _deploy(context, engine),
        "restore": lambda _: RestoreMetrics(away_s=8460.0),
        "reprocess": lambda _: ReprocessMetrics(processed=1588, failed=3, left_out=9),
        "verify": lambda _: _verify(),
    }


def _snapshot(context: StageContext[Any]) -> SnapshotMetrics:
    params = context.params.model_copy(
        update={"items": [str(SAMPLE / "items.jsonl")], "reviewed": [str(SAMPLE / "labels.jsonl")]}
    )
    taken = snapshot._take(params, TASK, Path.cwd(), context.root, "")
    items = taken.items[:_ITEMS]
    kept = {row["id"] for row in items}
    reviewed = [row for row in taken.reviewed if row["id"] in kept]
    files.write_jsonl(context.output(stages.ITEMS), items)
    files.write_jsonl(context.output(stages.REVIEWED), reviewed)
    return SnapshotMetrics(items=len(items), reviewed=len(reviewed))


def _fetch(context: StageContext[Any]) -> FetchMetrics:
    folder = context.output(stages.BASE)
    one_word_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": "qwen3"}', encoding="utf-8")
    return FetchMetrics(model="Qwen/Qwen3-14B@40c06982", files=2, bytes=files.size_of(folder))


def _train(context: StageContext[Any]) -> TrainMetrics:
    adapter = context.output(stages.LORA_ADAPTER)
    adapter.mkdir(parents=True, exist_ok=True)
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    metrics = TrainMetrics(
        backend="unsloth",
        steps=390,
        rows=520,
        dropped=0,
        train_loss=0.411,
        validation_loss=0.604,
        trained_tokens=412_873,
        peak_memory_mib=21_340,
        untrained_loss=1.472,
    )
    log: list[dict[str, float]] = [
        {"step": step, "loss": 0.40 + 1.1 * math.exp(-step / 70) + 0.03 * math.sin(step)}
        for step in range(10, 391, 10)
    ]
    log += [
        {"step": step, "eval_loss": 0.6 + 0.9 * math.exp(-step / 60) + (step > 300) * 0.03}
        for step in range(0, 391, 65)
    ]
    told = {
        "metrics": metrics.model_dump(mode="json"),
        "best_step": 260,
        "stopped_early": False,
        "packages": {"torch": "2.11.0", "unsloth": "2026.10.7"},
        "log": log,
    }
    files.write_json(context.output(stages.TRAINING_LOG), told)
    files.write_text(context.output(stages.LOSS_CURVE), "<svg/>")
    write_empty(context.output(stages.REFERENCE))
    return metrics


def _gguf(context: StageContext[Any]) -> GgufMetrics:
    context.output(stages.GGUF).write_bytes(b"GGUF")
    context.output(stages.GGUF_VARIANTS).mkdir(exist_ok=True)
    return GgufMetrics(bytes=15_700_000_000, tensors=443, architecture="qwen3", way="one_pass")


def _deploy(context: StageContext[Any], engine: ScriptedEngine) -> DeployMetrics:
    deploy.require_promoted(context.input(stages.VERDICT))
    said = json.loads(context.input(stages.VERDICT).read_text(encoding="utf-8"))
    tag, alias = f"liga-relevance:{context.job.run}", "liga-relevance:latest"
    for name in (tag, alias):
        engine.tags[name] = Model(name, said["candidate"], 15)
    return DeployMetrics(
        tag=tag, alias=alias, digest=said["candidate"], previous="liga-relevance:before"
    )


def _verify() -> VerifyMetrics:
    labels = (row["label"] for row in files.read_jsonl(SAMPLE / "labels.jsonl"))
    answer = next(label for label in labels if label["relevant"])
    return VerifyMetrics(model="liga-relevance:latest", digest=CANDIDATE, fields=9, answer=answer)
