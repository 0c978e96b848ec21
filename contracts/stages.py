"""Every stage, declared once: image, GPU mode, inputs, outputs, params, result."""

from __future__ import annotations

from dataclasses import replace

from contracts.params import (
    DeployMetrics,
    DeployParams,
    EvaluateMetrics,
    EvaluateParams,
    FetchMetrics,
    FetchParams,
    GgufMetrics,
    GgufParams,
    LabelMetrics,
    LabelParams,
    MergeMetrics,
    MergeParams,
    ReprocessMetrics,
    ReprocessParams,
    RestoreMetrics,
    RestoreParams,
    SnapshotMetrics,
    SnapshotParams,
    SplitMetrics,
    SplitParams,
    TrainMetrics,
    TrainParams,
    VerifyMetrics,
    VerifyParams,
)
from contracts.stage import Artifact, GpuMode, Stage

ITEMS = Artifact("items", "items.jsonl")
REVIEWED = Artifact("reviewed", "reviewed.jsonl")
BASE = Artifact("base", "base")
LABELS = Artifact("labels", "labels.jsonl")
QUARANTINE = Artifact("quarantine", "quarantine.jsonl")
LABEL_REPORT = Artifact("label_report", "label_report.json")
TRAIN_SPLIT = Artifact("train_split", "train.jsonl")
VALIDATION_SPLIT = Artifact("validation_split", "validation.jsonl")
TEST_SPLIT = Artifact("test_split", "test.jsonl")
LEAKAGE_REPORT = Artifact("leakage_report", "leakage_report.json")
LORA_ADAPTER = Artifact("lora_adapter", "lora_adapter")
TRAINING_LOG = Artifact("training_log", "training_log.json")
LOSS_CURVE = Artifact("loss_curve", "loss_curve.svg")
REFERENCE = Artifact("reference", "reference.json")
MERGED = Artifact("merged", "merged")
GGUF = Artifact("gguf", "model.gguf")
"""The file that is served, of the first of gguf.outtype; with deploy.form=adapter the adapter."""
GGUF_VARIANTS = Artifact("gguf_variants", "variants")
"""A folder of the other output types, model-TYPE.gguf, and of the importance matrix."""
SCORES = Artifact("scores", "scores.json")
ANSWERS = Artifact("answers", "answers.jsonl")
VERDICT = Artifact("verdict", "verdict.json")

_LABELER = ("images/labeler", "contracts", "serving")

SNAPSHOT = Stage(
    "snapshot",
    SnapshotParams,
    SnapshotMetrics,
    outputs=(ITEMS, REVIEWED),
    task="labels",
    code=(
        "driver/host_stages/snapshot.py",
        "driver/host_stages/telling.py",
        "driver/adapters/backend.py",
        "driver/adapters/items.py",
    ),
)
FETCH = Stage(
    "fetch",
    FetchParams,
    FetchMetrics,
    outputs=(BASE,),
    code=(
        "driver/host_stages/fetch.py",
        "contracts/base_model.py",
        "contracts/safetensors_header.py",
    ),
)
LABEL = Stage(
    "label",
    LabelParams,
    LabelMetrics,
    image="labeler",
    gpu=GpuMode.SERVING,
    inputs=(ITEMS, REVIEWED),
    outputs=(LABELS, QUARANTINE, LABEL_REPORT),
    task="labels",
    code=_LABELER,
    remembers=True,
)
SPLIT = Stage(
    "split",
    SplitParams,
    SplitMetrics,
    image="labeler",
    inputs=(ITEMS, LABELS),
    outputs=(TRAIN_SPLIT, VALIDATION_SPLIT, TEST_SPLIT, LEAKAGE_REPORT),
    task="all",
    code=_LABELER,
    remembers=True,
)
TRAIN = Stage(
    "train",
    TrainParams,
    TrainMetrics,
    image="trainer",
    gpu=GpuMode.EXCLUSIVE,
    inputs=(BASE, TRAIN_SPLIT, VALIDATION_SPLIT),
    outputs=(LORA_ADAPTER, TRAINING_LOG, LOSS_CURVE, REFERENCE),
    task="all",
    code=("images/trainer", "images/weights", "contracts"),
)
MERGE = Stage(
    "merge",
    MergeParams,
    MergeMetrics,
    image="merger",
    inputs=(BASE, LORA_ADAPTER, REFERENCE),
    outputs=(MERGED,),
    code=("images/merger", "images/weights", "contracts"),
)
CONVERT = Stage(
    "gguf",
    GgufParams,
    GgufMetrics,
    image="gguf",
    inputs=(MERGED, REFERENCE),
    outputs=(GGUF, GGUF_VARIANTS),
    code=("images/gguf", "images/weights", "contracts"),
)
EVALUATE = Stage(
    "evaluate",
    EvaluateParams,
    EvaluateMetrics,
    image="labeler",
    gpu=GpuMode.SERVING,
    inputs=(BASE, GGUF, TEST_SPLIT, REFERENCE),
    outputs=(SCORES, ANSWERS, VERDICT),
    task="all",
    code=_LABELER,
    remembers=True,
)
DEPLOY = Stage(
    "deploy",
    DeployParams,
    DeployMetrics,
    inputs=(GGUF, VERDICT),
    task="all",
    code=("driver/host_stages/deploy.py", "driver/promotion.py", "driver/served.py", "serving"),
    gpu=GpuMode.SERVING,
    effect=True,
)
RESTORE = Stage("restore", RestoreParams, RestoreMetrics, effect=True)
VERIFY = Stage(
    "verify",
    VerifyParams,
    VerifyMetrics,
    inputs=(GGUF, ITEMS, LABELS),
    task="all",
    code=(
        "driver/host_stages/verify.py",
        "driver/host_stages/canaries.py",
        "driver/host_stages/reanalysis.py",
        "driver/host_stages/outcomes.py",
        "driver/host_stages/record.py",
        "driver/host_stages/telling.py",
        "driver/adapters/backend.py",
        "driver/adapters/items.py",
        "serving",
    ),
    effect=True,
)
REPROCESS = Stage(
    "reprocess",
    ReprocessParams,
    ReprocessMetrics,
    inputs=(GGUF, ITEMS),
    task="all",
    code=(
        "driver/host_stages/reprocess.py",
        "driver/host_stages/reanalysis.py",
        "driver/host_stages/channels.py",
        "driver/host_stages/outage.py",
        "driver/host_stages/outcomes.py",
        "driver/host_stages/record.py",
        "driver/host_stages/telling.py",
        "driver/adapters/backend.py",
        "driver/adapters/items.py",
    ),
    effect=True,
)


def convert_stage(*, one_pass: bool, imatrix: bool) -> Stage:
    """Return CONVERT with what it takes that way; an importance matrix needs rendered rows."""
    inputs = (BASE, LORA_ADAPTER, REFERENCE) if one_pass else (MERGED, REFERENCE)
    if imatrix:
        return replace(CONVERT, inputs=(*inputs, TRAIN_SPLIT), task="all")
    return replace(CONVERT, inputs=inputs)


BY_NAME = {value.name: value for value in list(globals().values()) if isinstance(value, Stage)}
"""Every declaration above. Their order of execution is in driver/pipeline.py."""
