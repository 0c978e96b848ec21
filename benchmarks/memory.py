"""The memory estimate (contracts/vram.py) beside what a process really takes at its peak.

    python -m benchmarks.memory      # a random Qwen3 of 130 M weights, on the CPU
    python -m benchmarks.memory --base FOLDER --device cuda --length 2048

Each line is a process of its own that loads the base as the trainer does and makes the forward and
backward pass of a step. Compared is the peak of what is allocated for that, beside base and
adapter: on a CPU from torch's profiler, on CUDA from its allocator. `resident` is the whole
process, for which the estimate (`whole`) has two guesses more: runtime and reserve.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
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
"""(load_in, gradient checkpointing, rows at once). Quantised on CUDA only: bitsandbytes computes in
another way on a CPU."""


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
        print("load_in  checkpointing  rows  estimate MiB  measured MiB  ratio  whole  resident")
        for load_in, checkpointing, rows in SETTINGS:
            if arguments.device == "cpu" and load_in in {"8bit", "4bit"}:
                continue
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
                f"  {found['peak']:12,.0f}  {ratio:5.2f}  {found['whole']:5,.0f}"
                f"  {found['resident']:8,.0f}",
                flush=True,
            )


def random_base(folder: Path) -> Path:
    """Write a Qwen3 of 130 M random weights in bf16."""
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
    """Make a forward and a backward pass; return estimate and peak in MiB."""
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
    device = torch.device(params.device)
    ids = torch.randint(0, 32_000, (rows, length), device=device)
    labels = torch.where(torch.arange(length, device=device) < length * 2 // 3, -100, ids)
    batch = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=params.load_in != "fp32"):
            loss, tokens = answer_loss(model, batch)
        (loss / tokens).backward()

    memory = Training.of(params, Shape.read(base), rows=rows, length=length).memory()
    of_a_step = memory.gradients + memory.boundaries + memory.layer + memory.loss
    if params.device == "cuda":
        peak = _peak_on_cuda(step)
        resident = torch.cuda.max_memory_reserved() / MIB + memory.runtime
    else:
        step()
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
        model.zero_grad()
        peak = _peak_on_cpu(step)  # the profiler takes memory of its own
    return {
        "estimate": of_a_step + memory.dequantised,
        "peak": peak / MIB,
        "whole": memory.total,
        "resident": resident,
    }


def _peak_on_cuda(step: Callable[[], None]) -> float:
    import torch

    before = torch.cuda.memory_allocated()
    step()
    return float(torch.cuda.max_memory_allocated() - before)


def _peak_on_cpu(step: Callable[[], None]) -> float:
    """Return the most bytes that were allocated at a time, from the profiler's list of each."""
    import torch
    from torch._C._profiler import _EventType

    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    sizes: list[tuple[int, int]] = []
    events = list(profile.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events += event.children
        if event.tag == _EventType.Allocation:
            sizes.append((event.start_time_ns, event.extra_fields.alloc_size))
    return max(itertools.accumulate(size for _, size in sorted(sizes)))


if __name__ == "__main__":
    main()
