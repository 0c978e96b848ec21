"""How the base model gets onto the device with a LoRA on it: the one thing backends differ in.

Unsloth on CUDA is the production path; transformers with PEFT runs everywhere. All that follows
(rows, order, trainer, checks) is shared.
"""

from __future__ import annotations

import importlib.util
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from contracts.errors import GpuUnavailable, SentinelTripped, SettingsInvalid
from contracts.params import TrainParams
from images.trainer.world import World

Backend = Literal["unsloth", "transformers"]

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a Qwen3 block; each gets a LoRA."""

_STORED_AS = {
    torch.int8: "8bit",  # bitsandbytes LLM.int8()
    torch.uint8: "4bit",  # bitsandbytes, two weights a byte
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
}


def choose_backend(params: TrainParams) -> Backend:
    """Return the backend, with Unsloth imported if it is the one.

    Raises `GpuUnavailable` where a GPU is asked for and there is none, `SettingsInvalid` where a
    package is missing.
    """
    if params.device == "cuda" and not torch.cuda.is_available():
        raise GpuUnavailable(
            "train.device=cuda, and PyTorch sees no GPU",
            why=f"PyTorch {torch.__version__} was built "
            + (f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"),
        )
    if params.load_in in {"8bit", "4bit"}:
        _require("bitsandbytes", f"train.load_in={params.load_in}")
    has_unsloth = importlib.util.find_spec("unsloth") is not None
    wanted = params.backend
    if wanted == "auto":
        alone = World.here().size == 1  # Unsloth's loss over several processes is not proved here
        takes = params.device == "cuda" and has_unsloth and alone
        wanted = "unsloth" if takes else "transformers"
    if wanted == "unsloth":
        _require("unsloth", "train.backend=unsloth")
        import unsloth  # noqa: F401  # patches transformers and TRL, so before either of them
    return wanted


def load_model(backend: Backend, base: Path, params: TrainParams, *, divide: bool = False) -> Any:
    """Return the frozen base with a fresh LoRA on all seven projections.

    To be divided among GPUs, it is loaded into the host's memory. Raises `SentinelTripped` when the
    base is not held as asked: Unsloth's 8-bit was silently 16-bit for a while, which nothing but
    the memory tells.
    """
    # It names every cast of every layer in every step.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if backend == "unsloth":
        model = _load_unsloth(base, params)
    else:
        on_gpu = params.device == "cuda" and not divide
        model = _load_transformers(base, params, torch.cuda.current_device() if on_gpu else "cpu")
    check_precision(model, params.load_in)
    check_blocks(model)
    return model


def check_precision(model: Any, load_in: str) -> None:
    """Raise `SentinelTripped` unless every projection is stored as `load_in` says.

    Four bits are those of nf4; fp4 takes as many, and is further from the weights.
    """
    stored = Counter(_stored_as(weight) for weight in _projections(model))
    if set(stored) != {load_in}:
        found = ", ".join(f"{count} in {kind}" for kind, count in stored.items()) or "none"
        raise SentinelTripped(
            f"sentinel precision: the base was to be loaded in {load_in}",
            why=f"projections found: {found}",
            todo="Set train.backend=transformers, or another train.load_in.",
        )


def _projections(model: Any) -> Iterator[Any]:
    """Yield the weight of every frozen projection."""
    for name, module in model.named_modules():
        plain = name.removesuffix(".base_layer").endswith(PROJECTIONS)
        if plain and not hasattr(module, "base_layer"):
            yield module.weight


def check_blocks(model: Any) -> None:
    """Raise `SentinelTripped` for 4-bit weights that bitsandbytes would read wrongly on this CPU.

    They are quantised in blocks that run on over the ends of rows. On CPUs with AVX-512 they are
    read as if every row began a block (0.50.2, `dequantize_4bit`), which gives weights of another
    size unless a row is a number of whole blocks. A GPU reads them rightly.
    """
    held = [weight for weight in _projections(model) if weight.device.type == "cpu"]
    states = [state for weight in held if (state := getattr(weight, "quant_state", None))]
    if wrong := sorted({s.shape[-1] for s in states if s.shape[-1] % s.blocksize}):
        raise SentinelTripped(
            "sentinel precision: bitsandbytes reads this base's 4-bit weights wrongly on a CPU",
            why=f"its projections have rows of {', '.join(map(str, wrong))} weights, no multiple "
            f"of a block of {states[0].blocksize}",
            todo="Set train.load_in to 8bit or bf16, or train.device=cuda.",
        )


def _stored_as(weight: torch.Tensor) -> str:
    quantised = getattr(weight, "quant_type", "nf4")
    return _STORED_AS.get(weight.dtype, str(weight.dtype)) if quantised == "nf4" else quantised


def _load_unsloth(base: Path, params: TrainParams) -> Any:
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(base),
        max_seq_length=params.max_length,
        dtype=torch.float32 if params.load_in == "fp32" else torch.bfloat16,
        load_in_4bit=params.load_in == "4bit",  # its default is True
        load_in_8bit=params.load_in == "8bit",
        load_in_16bit=params.load_in == "bf16",
        use_exact_model_name=True,  # else it may fetch a quantised copy of its own
        local_files_only=True,
    )
    return FastLanguageModel.get_peft_model(
        model,
        r=params.rank,
        target_modules=list(PROJECTIONS),
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        bias="none",
        use_gradient_checkpointing="unsloth" if params.checkpointing else False,
        random_state=params.seed,
        max_seq_length=params.max_length,
    )


def _load_transformers(base: Path, params: TrainParams, device: int | Literal["cpu"]) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, set_seed

    quantization = {
        "8bit": lambda: BitsAndBytesConfig(load_in_8bit=True),
        "4bit": lambda: BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        ),
    }.get(params.load_in)
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.float32 if params.load_in == "fp32" else torch.bfloat16,
        quantization_config=quantization() if quantization else None,
        device_map={"": device},
        attn_implementation="sdpa",
        local_files_only=True,
    )
    if params.device == "cpu":
        _keep_layout(model)
    set_seed(params.seed)  # the LoRA starts at random
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=list(PROJECTIONS),
        bias="none",
    )
    return get_peft_model(model, lora)


def _keep_layout(model: Any) -> None:
    """Keep bitsandbytes from laying 4-bit weights out anew in the first evaluation.

    It does so on CPUs with AVX-512 BF16. In that layout no gradient passes through a layer
    (0.50.2: `matmul_4bit` calls a kernel without a backward pass), so what is below learns from
    its own LoRA path only, and no error shows it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _require(package: str, setting: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise SettingsInvalid(
            f"{setting} needs the package {package}, which is not installed",
            todo="Install it, or choose another value; bf16, fp32 and backend=transformers "
            "need nothing more.",
        )
