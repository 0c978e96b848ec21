"""The memory estimate (contracts/vram.py) beside what a process really takes at its peak.

    python -m benchmarks.memory      # a random Qwen3 of 150 M weights, on the CPU
    python -m benchmarks.memory --base FOLDER --device cuda --length 2048

Each line is a process of its own: it loads the base as the trainer does and makes two optimizer
steps. On a CPU the peak is what was resident, on CUDA what PyTorch reserved, without the context.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from contracts.params import TrainParams
from contracts.vram import MIB, Shape, Training

SETTINGS = (
    ("fp32", "on", 1),
    ("fp32", "off", 1),
    ("fp32", "on", 4),
    ("bf16", "on", 1),
    ("bf16", "off", 1),
    ("8bit", "on", 1),
    ("4bit", "on", 1),
)
"""(load_in, gradient checkpointing, rows at once)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.base, json.loads(arguments.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        base = arguments.base or random_base(Path(folder) / "base")
        print("load_in  checkpointing  rows  estimate MiB  measured MiB  ratio")
        for load_in, checkpointing, rows in SETTINGS:
            settings = {
                "device": arguments.device,
                "load_in": load_in,
                "gradient_checkpointing": checkpointing,
                "rows": rows,
                "length": arguments.length,
            }
            found = in_process_of_its_own(base, settings)
            ratio = found["estimate"] / found["peak"]
            print(
                f"{load_in:7}  {checkpointing:13}  {rows:4}  {found['estimate']:12,.0f}"
                f"  {found['peak']:12,.0f}  {ratio:5.2f}",
                flush=True,
            )


def random_base(folder: Path) -> Path:
    """Write a Qwen3 of 150 M random weights in bf16."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        hidden_size=768,
        num_hidden_layers=12,
        intermediate_size=2304,
        num_attention_heads=12,
        num_key_value_heads=4,
        head_dim=64,
        vocab_size=32_000,
        tie_word_embeddings=False,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def in_process_of_its_own(base: Path, settings: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--base", str(base)]
    done = subprocess.run(
        [*command, "--child", json.dumps(settings)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(base: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Make two optimizer steps and return estimate and peak in MiB."""
    import torch
    import trl  # noqa: F401  # part of what the trainer has loaded

    from images.trainer.backends import load_model
    from images.trainer.loss import answer_loss

    rows, length = settings.pop("rows"), settings.pop("length")
    params = TrainParams(backend="transformers", **settings)
    model = load_model("transformers", base, params).train()
    if params.checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    learnt = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learnt)
    device = learnt[0].device
    ids = torch.randint(0, 32_000, (rows, length), device=device)
    labels = torch.where(torch.arange(length, device=device) < length * 2 // 3, -100, ids)
    batch = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
    for _ in range(2):
        with torch.autocast(device.type, torch.bfloat16, enabled=params.load_in != "fp32"):
            loss, tokens = answer_loss(model, batch)
        (loss / tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    shape = Shape.read(base)
    memory = Training.of(params, shape, rows=rows, length=length).memory()
    if params.device == "cuda":
        peak = torch.cuda.max_memory_reserved() / MIB
        return {"estimate": memory.total - memory.runtime, "peak": peak}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
    return {"estimate": memory.total, "peak": peak}


if __name__ == "__main__":
    main()
