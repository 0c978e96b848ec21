"""What each stage may be told, and what it reports.

The params below are also the sections of the settings file, so a default stated here is the
default of the system. Figures for Qwen3-14B on an RTX 3090 come from the first user's production
runs.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from contracts.stage import Metrics, Params

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}"
"""A part of a model's name in the serving engine (serving/engine.py: full_tag)."""


# --- snapshot: the items as they are now ---------------------------------------------------------
class SnapshotParams(Params):
    """Where the items come from."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"max_age_h"})

    source: Literal["files", "backend"] = "files"
    """`files` reads JSONL files, `backend` the application's own items (backend.url)."""
    items: tuple[str, ...] = ()
    """JSONL files or globs with the items, relative to the current directory."""
    reviewed: tuple[str, ...] = ()
    """JSONL files or globs with reviewed labels, `{"id": …, "label": {…}}`; they win over any
    teacher."""
    max_age_h: float = Field(24, ge=0)
    """Hours for which a snapshot of the backend is taken as it is, so that an interrupted run goes
    on with its own items; 0 always takes a new one."""
    source_digest: str = ""
    """Set by the driver: what the source holds, so that a change of a file is seen."""


class SnapshotMetrics(Metrics):
    """Counts of what was taken."""

    items: int
    reviewed: int

    def summary(self) -> str:
        """Return the counts."""
        return f"{self.items} items, {self.reviewed} reviewed labels"


# --- fetch: the base model -----------------------------------------------------------------------
class FetchParams(Params):
    """Which base model, and exactly which version of it."""

    model: str = "Qwen/Qwen3-14B"
    """Model id on the Hugging Face hub; unused when `path` is set."""
    revision: str = ""
    """Commit of the model repository (40 hex digits); a branch name can move under a run."""
    path: str = ""
    """A local folder with the base model instead of the hub."""
    source_digest: str = ""
    """Set by the driver: names, sizes and times of a local folder's files."""

    @model_validator(mode="after")
    def _pinned(self) -> FetchParams:
        if not self.path and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError(
                "revision must be the commit (40 hex digits) of the model on the hub, "
                "or path a local folder"
            )
        return self


class FetchMetrics(Metrics):
    """What was fetched."""

    model: str
    files: int
    bytes: int

    def summary(self) -> str:
        """Return model and size."""
        return f"{self.model}, {self.bytes / 1e9:.2f} GB in {self.files} files"


# --- label: the teacher's answers ----------------------------------------------------------------
class LabelParams(Params):
    """How the teacher is asked."""

    not_identity: ClassVar[frozenset[str]] = frozenset(
        {"concurrency", "timeout_s", "patience_s", "num_ctx"}
    )

    teacher: str = Field("qwen3:32b", min_length=1)
    """The larger local model, as the serving engine names it."""
    num_ctx: int | None = Field(None, ge=512)
    """Context window in tokens: label prompt, article, an answer and its correction; None
    derives it from the longest item."""
    num_predict: int = Field(3000, ge=16)
    """Most tokens in one answer."""
    temperature: float = Field(0.1, ge=0, le=2)
    """Sampling temperature of the first attempt."""
    max_attempts: int = Field(3, ge=1, le=10)
    """Attempts at an item before it goes to quarantine."""
    concurrency: int = Field(16, ge=1, le=256)
    """Most requests in flight at one server; how many it really answers at once is found out."""
    timeout_s: float = Field(600, gt=0)
    """Limit of one request in seconds."""
    patience_s: float = Field(120, ge=0)
    """How long no server may answer anything, a restart included, before the stage gives up."""
    gold_sample: int = Field(20, ge=0)
    """Reviewed items that the teacher is asked for too, to measure how far it agrees; their labels
    stay as they are. Where every item is reviewed it is asked nothing."""
    min_labelled: float = Field(0.8, ge=0, le=1)
    """Least share of items that must end with a valid label."""


class LabelMetrics(Metrics):
    """Where the labels come from."""

    reviewed: int
    imported: int = 0
    cached: int
    asked: int
    quarantined: int

    def summary(self) -> str:
        """Return the counts, most trusted first."""
        imported = f"{self.imported} imported, " if self.imported else ""
        return (
            f"{self.reviewed} reviewed, {imported}{self.cached} cached, {self.asked} asked, "
            f"{self.quarantined} quarantined"
        )


# --- split ---------------------------------------------------------------------------------------
class SplitParams(Params):
    """How the labelled items are divided."""

    validation: float = Field(0.15, gt=0, lt=1)
    """Share of the rows held out for the choice of the checkpoint."""
    test: float = Field(0.15, gt=0, lt=1)
    """Share of the rows held out for the evaluation."""
    near_duplicate: float = Field(0.7, gt=0, le=1)
    """Jaccard similarity of word 3-shingles from which two items are in one group, which never
    crosses a split."""
    train_on: Literal["one", "all"] = "one"
    """Of a group in training: `one` row, or `all` whose words differ. Validation and test always
    hold one of each group."""
    by: Literal["class", "time"] = "class"
    """`class` draws every split with the same mix of classes; `time` tests on the newest items and
    validates on those before, items without a date are trained on."""
    test_set: str = Field("default", pattern=r"^[A-Za-z0-9_-]{0,60}$")
    """Name of the frozen test set that later runs keep and fill up; another name starts another
    one, "" keeps none."""
    seed: int = Field(17, ge=0, lt=1 << 32)
    """Seed of the draw; a frozen test set stays what it is."""

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitParams:
        if self.validation + self.test > 0.8:
            raise ValueError("validation and test together leave under 20 % for training")
        return self


class SplitMetrics(Metrics):
    """Rows in each split."""

    train: int
    validation: int
    test: int
    duplicates: int
    frozen: int
    """Test rows that an earlier run has tested too."""
    test_set_digest: str
    """Of the frozen test set's file as this split has left it, "" without one."""

    def summary(self) -> str:
        """Return the sizes."""
        kept = f" ({self.frozen} as before)" if self.frozen else ""
        return (
            f"{self.train} / {self.validation} / {self.test} rows{kept}, "
            f"{self.duplicates} duplicates left out"
        )


# --- train ---------------------------------------------------------------------------------------
class TrainParams(Params):
    """The LoRA training. Defaults are the production configuration for a 24 GB card."""

    backend: Literal["auto", "unsloth", "transformers"] = "auto"
    """`auto` takes Unsloth on CUDA where it is installed, else transformers with PEFT."""
    device: Literal["cuda", "cpu"] = "cuda"
    """`cuda` demands a GPU; `cpu` runs everywhere, for small models."""
    load_in: Literal["8bit", "4bit", "bf16", "fp32"] = "8bit"
    """How the frozen base is held; 8-bit Qwen3-14B takes about 15 GB."""
    rank: int = Field(16, ge=1, le=512)
    """LoRA rank r, on all seven projections."""
    alpha: int = Field(16, ge=1)
    """LoRA alpha; the update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """LoRA dropout."""
    learning_rate: float = Field(2e-4, gt=0, lt=1)
    """Peak learning rate of the cosine schedule."""
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    """Share of the steps with rising learning rate."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW weight decay."""
    epochs: float = Field(3, gt=0)
    """Passes over the training split."""
    max_steps: int = Field(-1, ge=-1)
    """Overrides `epochs` when positive: a number of optimizer steps."""
    batch_size: int = Field(4, ge=1)
    """Effective batch in rows: micro-batch times accumulation."""
    micro_batch_size: int = Field(1, ge=1)
    """Rows on the device at once; a divisor of `batch_size`."""
    max_length: int = Field(2048, ge=64)
    """Most tokens in a row, prompt and answer; a longer row is never cut."""
    too_long: Literal["error", "drop"] = "error"
    """What happens to a longer row: stop and name it, or name it and leave it out."""
    eval_steps: int = Field(50, ge=1)
    """Optimizer steps between evaluations on the validation split, and between checkpoints."""
    seed: int = Field(17, ge=0, lt=1 << 32)
    """Seed of the adapter's start and of the order of rows."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainParams:
        if self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        if self.device == "cpu" and self.backend == "unsloth":
            raise ValueError("backend=unsloth needs device=cuda")
        return self


class TrainMetrics(Metrics):
    """How the training went."""

    backend: str
    steps: int
    rows: int
    dropped: int
    train_loss: float
    validation_loss: float
    trained_tokens: int
    peak_memory_mib: int

    def summary(self) -> str:
        """Return the losses (nats per answer token)."""
        return (
            f"{self.steps} steps ({self.backend}), loss {self.train_loss:.3f}, "
            f"validation {self.validation_loss:.3f}"
        )


# --- merge and gguf ------------------------------------------------------------------------------
class MergeParams(Params):
    """The merge of the adapter into the original base."""

    dtype: Literal["bf16", "fp32"] = "bf16"
    """Type of the merged weights; always merged into a fresh load of the unquantised base."""


class MergeMetrics(Metrics):
    """What was merged."""

    merged_modules: int
    bytes: int
    way: Literal["streamed", "peft"] = "streamed"
    """Tensor by tensor, or by PEFT with the whole model in memory."""
    why: str = ""
    """What of the adapter only PEFT can merge; empty when it was streamed."""

    def summary(self) -> str:
        """Return modules, size and, unless it was streamed, why not."""
        by = f", by PEFT: {self.why}" if self.way == "peft" else ""
        return f"{self.merged_modules} modules merged, {self.bytes / 1e9:.2f} GB{by}"


class GgufParams(Params):
    """The conversion for the serving engine."""

    outtype: Literal["q8_0"] = "q8_0"
    """Quantization of the GGUF file."""


class GgufMetrics(Metrics):
    """What was written."""

    bytes: int
    tensors: int
    architecture: str

    def summary(self) -> str:
        """Return architecture and size."""
        return f"{self.architecture}, {self.tensors} tensors, {self.bytes / 1e9:.2f} GB"


# --- evaluate ------------------------------------------------------------------------------------
class EvaluateParams(Params):
    """The questions to the candidate, and what it takes to go live."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"concurrency", "timeout_s", "patience_s"})

    limit: int | None = Field(None, ge=1)
    """Most rows of the test split to ask; None asks all."""
    concurrency: int = Field(8, ge=1, le=256)
    """Most requests in flight; how many the server really answers at once is found out."""
    timeout_s: float = Field(300, gt=0)
    """Limit of one request in seconds."""
    patience_s: float = Field(120, ge=0)
    """How long the engine may answer nothing, a restart included, before the stage gives up."""
    min_valid: float = Field(0.99, ge=0, le=1)
    """Least share of answers that must be valid."""
    min_scores: dict[str, float] = {}
    """Least score by field, e.g. `{relevant: 0.9}`; see scores.json for the names."""


class EvaluateMetrics(Metrics):
    """The scores of the candidate."""

    rows: int
    valid: int
    promote: bool
    scores: dict[str, float]
    reasons: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the share of valid answers, the verdict, and the scores."""
        shown = ", ".join(f"{name} {value:.2f}" for name, value in list(self.scores.items())[:4])
        verdict = "promoted" if self.promote else "refused"
        return f"{self.valid}/{self.rows} valid, {shown}; {verdict}"


# --- deploy, restore, reprocess, verify: effects on the outside world ----------------------------
class DeployParams(Params):
    """Where the new model goes live."""

    name: str = Field("liga-relevance", pattern=rf"^({_NAME}/)?{_NAME}$")
    """Name of the model in the serving engine; versions are `name:RUN`, the alias
    `name:latest`."""


class DeployMetrics(Metrics):
    """What is live now, and what was."""

    tag: str
    alias: str
    digest: str
    previous: str = ""

    def summary(self) -> str:
        """Return the version and its digest."""
        return f"{self.alias} is {self.tag} ({self.digest[:12]})"


class RestoreParams(Params):
    """The return of the service has nothing to set here; see `backend` and `window`."""


class RestoreMetrics(Metrics):
    """How long the backend was away."""

    away_s: float

    def summary(self) -> str:
        """Return the outage in minutes and seconds."""
        if not self.away_s:
            return "the service was not touched"
        return f"backend healthy, away for {int(self.away_s // 60)} min {self.away_s % 60:.0f} s"


class ReprocessParams(Params):
    """How the backend's items get the new model's answers."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"timeout_s", "max_error_share"})

    enabled: bool = True
    """False leaves the items as they are; without a backend there are none."""
    timeout_s: float = Field(180, gt=0)
    """How long one item may take."""
    max_error_share: float = Field(0.1, ge=0, le=1)
    """Share of failed items from which the stage stops."""


class ReprocessMetrics(Metrics):
    """What became of the items."""

    processed: int
    failed: int
    left_out: int

    def summary(self) -> str:
        """Return the counts."""
        if not self.processed + self.failed + self.left_out:
            return "no backend, nothing to reprocess"
        return f"{self.processed} items, {self.failed} failed, {self.left_out} reviewed left out"


class VerifyParams(Params):
    """How the deployed model is checked."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"timeout_s"})

    constrained: bool = False
    """Send the task's JSON schema with the canary. The backend sends none, so the default is the
    truer test."""
    timeout_s: float = Field(300, gt=0)
    """Limit of the request in seconds."""


class VerifyMetrics(Metrics):
    """The canary's answer."""

    model: str
    digest: str
    fields: int
    answer: dict[str, Any]

    def summary(self) -> str:
        """Return who answered."""
        return f"{self.model} answered the canary, {self.fields} fields valid"
