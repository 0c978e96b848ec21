"""Settings and figures of the stages that make the model: train, merge, gguf."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from contracts.stage import Metrics, Params


# --- train ----------------------------------------------------------------------------------------
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
    micro_batch_size: int | None = Field(None, ge=1)
    """Rows on the device at once; a divisor of `batch_size`. None: as many as fit the memory. After
    an out-of-memory error half as many, the effective batch unchanged."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Activations are computed again in the backward pass instead of kept. `auto`: on CUDA."""
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
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        if self.device == "cpu" and self.backend == "unsloth":
            raise ValueError("backend=unsloth needs device=cuda")
        return self

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
    micro_batch_size: int = 0
    """Rows at once, in the end."""
    tokens_per_s: float = 0
    """Of all tokens, padding not counted, from the last (re)start on; evaluations and checkpoints
    took their time as well."""

    def summary(self) -> str:
        """Return the losses (nats per answer token)."""
        return (
            f"{self.steps} steps ({self.backend}), loss {self.train_loss:.3f}, "
            f"validation {self.validation_loss:.3f}"
        )


# --- merge and gguf -------------------------------------------------------------------------------
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
