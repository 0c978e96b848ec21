"""Settings and figures of the stages that make the model: train, merge, gguf."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from contracts.errors import GpuUnavailable, SettingsInvalid
from contracts.stage import Metrics, Params


# --- train ----------------------------------------------------------------------------------------
class TrainParams(Params):
    """The LoRA training. Defaults are the production configuration for a 24 GB card."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"processes", "sharding"})

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
    epochs: float = Field(3, gt=0, le=1000)
    """Passes over the training split; at most 1,000."""
    max_steps: int = Field(-1, ge=-1, le=10_000_000)
    """Overrides `epochs` when positive: a number of optimizer steps, at most ten million."""
    batch_size: int = Field(4, ge=1, le=65_536)
    """Effective batch in rows: micro-batch times accumulation; at most 65,536."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Rows on the device at once; a divisor of `batch_size`. None: as many as fit the memory. After
    an out-of-memory error half as many, the effective batch unchanged."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Rows of a micro-batch in one sequence without padding, the prompt they share computed once.
    `auto`: where the backend keeps them apart (transformers); else rows of like length meet."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Activations are computed again in the backward pass instead of kept. `auto`: on CUDA."""
    max_length: int = Field(2048, ge=64, le=1 << 20)
    """Most tokens in a row, prompt and answer, up to 2^20; a longer row is never cut."""
    too_long: Literal["error", "drop"] = "error"
    """What happens to a longer row: stop and name it, or name it and leave it out."""
    eval_steps: int = Field(50, ge=1)
    """Optimizer steps between evaluations on the validation split, and between checkpoints."""
    patience: int = Field(3, ge=0)
    """Evaluations without a lower validation loss after which training stops; 0: never."""
    min_loss_fall: float = Field(0.05, ge=0, lt=1)
    """Share by which the validation loss has to fall below the untrained model's, else the run is
    refused. The form of the answer alone, which every row repeats, brings more. 0: no check."""
    reference_tokens: int = Field(2048, ge=0)
    """Tokens of validation rows on which later stages are compared with what was trained (see
    docs/reference/sentinels.md); the cost of it is in proportion. 0 leaves the comparison out."""
    seed: int = Field(17, ge=0, lt=1 << 32)
    """Seed of the adapter's start and of the order of rows."""
    processes: int | None = Field(None, ge=1)
    """How many processes train, each on a GPU of its own; None: one for each GPU that training sees
    (`gpu.devices`), and one on a CPU. Up to rounding, the result does not depend on it."""
    sharding: Literal["auto", "none", "fsdp"] = "auto"
    """What several processes hold of the base: `none`, each all of it; `fsdp`, each a share;
    `auto`, a share where one card cannot hold all."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainParams:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        if self.device == "cpu" and self.backend == "unsloth":
            raise ValueError("backend=unsloth needs device=cuda")
        self._fits_processes()
        return self

    def _fits_processes(self) -> None:
        if self.batch_size % ((self.processes or 1) * (self.micro_batch_size or 1)):
            raise ValueError("processes times micro_batch_size must divide batch_size")
        if self.backend == "unsloth" and (self.sharding == "fsdp" or (self.processes or 1) > 1):
            raise ValueError("backend=unsloth is for one process; backend=auto takes another")
        if self.sharding == "fsdp" and self.load_in in {"8bit", "4bit"}:
            raise ValueError(
                f"sharding=fsdp needs load_in=bf16 or fp32: bitsandbytes' {self.load_in} weights "
                "cannot be divided (their scales belong to the whole); quantised, the base is held "
                "whole by each process, with sharding=none"
            )
        alone = self.processes == 1 or (self.processes is None and self.device == "cpu")
        if self.sharding == "fsdp" and alone:
            raise ValueError("sharding=fsdp divides the base among processes, and there is one")

    def processes_on(self, gpus: int) -> int:
        """Return how many processes train where training sees so many GPUs.

        Raises `GpuUnavailable` for more processes than GPUs, `SettingsInvalid` for processes that
        cannot share a batch, and for one that is to divide the base.
        """
        if self.device == "cpu":
            return self.processes or 1
        size = self.processes or (1 if self.backend == "unsloth" else max(gpus, 1))
        if size > max(gpus, 1):
            raise GpuUnavailable(
                f"train.processes={size}, and training sees {gpus} GPUs",
                todo="Name as many GPUs in gpu.devices, or set fewer processes.",
            )
        if self.sharding == "fsdp" and size == 1:
            raise SettingsInvalid(
                "train.sharding=fsdp divides the base among processes, and there is one",
                todo="Name several GPUs in gpu.devices, or set train.sharding=auto.",
            )
        at_once = self.micro_batch_size or 1
        if self.batch_size % (size * at_once):
            raise SettingsInvalid(
                f"{size} processes cannot share a batch of {self.batch_size} rows, "
                f"{at_once} at once",
                todo="Make train.batch_size a multiple of both together, or set train.processes.",
            )
        return size

    @property
    def checkpointing(self) -> bool:
        """Whether gradients are checkpointed, the default settled."""
        if self.gradient_checkpointing == "auto":
            return self.device == "cuda"
        return self.gradient_checkpointing == "on"

    @property
    def rows_at_once(self) -> int:
        """The micro-batch, once it is settled."""
        if self.micro_batch_size is None:
            raise ValueError("the micro-batch is not chosen yet")
        return self.micro_batch_size


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
    untrained_loss: float = 0.0
    """Validation loss before the first step."""
    packed: bool = False
    """Whether rows shared sequences."""
    micro_batch_size: int = 0
    """Rows at once, in the end."""
    tokens_per_s: float = 0
    """Of all tokens, padding not counted, from the last (re)start on; evaluations and checkpoints
    took their time as well."""
    reference_positions: int = 0
    """At how many places of validation answers the predictions were kept."""
    effect: float | None = None
    """KL divergence (nats) that the training made there."""
    held_drift: float | None = None
    """KL divergence of the model as it was held in training from that on the original base."""

    def summary(self) -> str:
        """Return the losses (nats per answer token)."""
        return (
            f"{self.steps} steps ({self.backend}), loss {self.train_loss:.3f}, "
            f"validation {self.untrained_loss:.3f} → {self.validation_loss:.3f}"
        )


# --- merge and gguf -------------------------------------------------------------------------------
class MergeParams(Params):
    """The merge of the adapter into the original base."""

    dtype: Literal["bf16", "fp32"] = "bf16"
    """Type of the merged weights; always merged into a fresh load of the unquantised base."""
    check_drift: bool = True
    """Compare what the merged model predicts with what was trained. It costs minutes of CPU for
    14B, and memory for one matrix; `train.reference_tokens` bounds it."""


class MergeMetrics(Metrics):
    """What was merged."""

    merged_modules: int
    bytes: int
    way: Literal["streamed", "peft"] = "streamed"
    """Tensor by tensor, or by PEFT with the whole model in memory."""
    why: str = ""
    """What of the adapter only PEFT can merge; empty when it was streamed."""
    drift: float | None = None
    """KL divergence (nats) of the merged model from base and adapter; None: not compared."""
    agreement: float | None = None
    """Share of the places at which both hold the same token for the likeliest."""

    def summary(self) -> str:
        """Return modules, size, drift and, unless it was streamed, why not."""
        by = f", by PEFT: {self.why}" if self.way == "peft" else ""
        drift = f", drift {self.drift:.1e}" if self.drift is not None else ""
        return f"{self.merged_modules} modules merged, {self.bytes / 1e9:.2f} GB{drift}{by}"


OutType = Literal["q8_0", "f16", "bf16", "q4_k_m", "q5_k_m", "q6_k"]
K_QUANTS = ("q4_k_m", "q5_k_m", "q6_k")
"""Output types that llama-quantize makes; the others are the converter's own."""

BITS = {"q8_0": 8.5, "f16": 16, "bf16": 16, "q4_k_m": 4.9, "q5_k_m": 5.7, "q6_k": 6.6}
"""Bits a weight, by output type (tools/quantize/README.md of llama.cpp, rounded up)."""


class GgufParams(Params):
    """The conversion for the serving engine."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"way"})  # both ways give the same bytes

    outtype: tuple[OutType, ...] = ("q8_0",)
    """Output type, or several: q8_0, f16, bf16, q4_k_m, q5_k_m, q6_k. The first is the one that is
    evaluated and served, the others are kept beside it."""
    way: Literal["auto", "one_pass", "two_step"] = "auto"
    """`one_pass` converts base and adapter together and writes no merged model; `two_step` merges
    first. `auto` takes one pass unless the adapter, or merge.dtype, asks for more."""
    form: Literal["merged", "adapter"] = "merged"
    """Set by the driver: deploy.form. The settings above are those of a merged model."""
    imatrix: bool = False
    """Weigh the k-quants' rounding by an importance matrix from the training rows."""
    imatrix_chunks: int = Field(100, ge=1)
    """Blocks of 512 tokens of training rows that the importance matrix is measured on."""

    @field_validator("outtype", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _fits_together(self) -> GgufParams:
        if not self.outtype:
            raise ValueError("outtype names no type")
        if len(set(self.outtype)) < len(self.outtype):
            raise ValueError("outtype names a type twice")
        if self.imatrix and not set(self.outtype) & set(K_QUANTS):
            raise ValueError(f"imatrix serves {', '.join(K_QUANTS)} only, and outtype has none")
        return self

    def programs(self) -> tuple[str, ...]:
        """Return which of llama.cpp's programs are needed beside its converter."""
        needed = {
            "llama-quantize": bool(set(self.outtype) & set(K_QUANTS)),
            "llama-imatrix": self.imatrix,
        }
        return tuple(name for name, wanted in needed.items() if wanted)


IMATRIX_CHUNK = 512
"""Tokens in a block of an importance matrix's text, llama-imatrix's default."""
IMATRIX_LEAST_TOKENS = 2 * IMATRIX_CHUNK
"""Of text that it needs."""


def too_little_text(why: str) -> SettingsInvalid:
    """Return the error of training rows that no importance matrix can be made of."""
    return SettingsInvalid(
        "gguf.imatrix has too little text to measure on",
        why=f"{why}; it takes {IMATRIX_LEAST_TOKENS:,}",
        todo="Set gguf.imatrix=false, or train on more rows.",
    )


class GgufMetrics(Metrics):
    """What was written."""

    bytes: int
    """Of the file that is served."""
    tensors: int
    architecture: str
    outtype: tuple[OutType, ...] = ("q8_0",)
    """Empty for an adapter, whose weights are as they were trained, in fp32."""
    way: Literal["one_pass", "two_step", "adapter"] = "two_step"

    def summary(self) -> str:
        """Return architecture, size and types, and whether there was a merged model."""
        if self.way == "adapter":
            size = f"{self.bytes / 1e6:.1f} MB"
            return f"{self.architecture}, an adapter of {self.tensors} tensors, {size}"
        types = ", ".join(self.outtype)
        way = ", in one pass" if self.way == "one_pass" else ""
        return (
            f"{self.architecture}, {self.tensors} tensors, {self.bytes / 1e9:.2f} GB, {types}{way}"
        )
