"""The merge on a CPU: the streaming one, PEFT's, and plainly copying the same bytes.

The model has the shape of Qwen3-1.7B with an untied head, 2.03 B random parameters in bf16 in four
files, and a LoRA of rank 16 on all seven projections. Each case is a process of its own, from its
start to its end, imports and the flush to the disk included; ours takes the digests of what it
writes as well, as the stage does. Times are the best of two rounds, memory is what was resident
at most, and the base lies in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contracts.stage import InputRef, Job, Metrics, Stage

QWEN = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
FULL = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28}
QUICK = {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12}
RANK, ALPHA, FILES = 16, 16, 4


def main() -> None:
    """Print one line for each comparison; ratio above 1: ours is faster, or smaller."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="0.16 B parameters, under 50 s")
    parser.add_argument("--folder", help="where to write; 14 GB, 1 GB with --quick")
    parser.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        WAYS[given.way](Path(given.folder))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        _compare(Path(folder), quick=given.quick)


def _compare(root: Path, *, quick: bool) -> None:
    size = {**QWEN, **(QUICK if quick else FULL), "vocab_size": 25_000 if quick else 151_936}
    parameters = make_model(root, size)
    seconds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for _ in range(2):
        for way in ("copy", "ours", "peft"):
            taken, peak = measure(root, way)
            seconds.setdefault(way, []).append(taken)
            memory.setdefault(way, []).append(peak)
        _check_equal(root)
    name = f"merge of {parameters / 1e9:.2f} B parameters"
    for what, found, other, unit in (
        (f"{name}, against PEFT", seconds, "peft", "s"),
        (f"{name}, against a copy", seconds, "copy", "s"),
        (f"{name}, peak memory against PEFT", memory, "peft", "GB"),
    ):
        mine, theirs = min(found["ours"]), min(found[other])
        line = {
            "name": what,
            "ours": round(mine, 2),
            "other": round(theirs, 2),
            "ratio": round(theirs / mine, 2),
            "unit": unit,
        }
        print(json.dumps(line), flush=True)


def measure(root: Path, way: str) -> tuple[float, float]:
    """Run one way in its own process; return seconds and gigabytes resident at most."""
    for old in ("store", "out"):
        shutil.rmtree(root / old, ignore_errors=True)
    os.sync()  # what others wrote is not to be waited for in this one's flush
    command = [sys.executable, "-m", "benchmarks.merge", "--way", way, "--folder", str(root)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    if way != "copy":
        kept = root / way
        shutil.rmtree(kept, ignore_errors=True)
        (root / ("out" if way == "peft" else "store/merge/bench/out/merged")).rename(kept)
    return taken, int(done.stdout.split()[-1]) * 1024 / 1e9


def make_model(root: Path, size: dict[str, int]) -> int:
    """Write base and adapter with random weights below `root`; return the number of parameters."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(11)
    shapes = model_shapes(size)
    base, adapter = root / "base", root / "lora_adapter"
    base.mkdir()
    adapter.mkdir()
    names = list(shapes)
    places: dict[str, str] = {}
    for number in range(FILES):
        name = f"model-{number + 1:05}-of-{FILES:05}.safetensors"
        own = names[number * len(names) // FILES : (number + 1) * len(names) // FILES]
        tensors = {
            n: torch.empty(shapes[n], dtype=torch.bfloat16).normal_(std=0.02, generator=random)
            for n in own
        }
        save_file(tensors, base / name, metadata={"format": "pt"})
        places |= dict.fromkeys(own, name)
    _write(base / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    _write(base / "config.json", _config(size))
    lora = {}
    for name, shape in shapes.items():
        if "_proj" in name:
            module = "base_model.model." + name.removesuffix(".weight")
            for part, of in (("A", (RANK, shape[1])), ("B", (shape[0], RANK))):
                lora[f"{module}.lora_{part}.weight"] = torch.empty(of).normal_(
                    std=0.02, generator=random
                )
    save_file(lora, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    _write(adapter / "adapter_config.json", _adapter_config())
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def model_shapes(size: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a Qwen3 of this size, in the order of its layers."""
    hidden, inner, head = size["hidden_size"], size["intermediate_size"], size["head_dim"]
    query, key = size["num_attention_heads"] * head, size["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (size["vocab_size"], hidden)}
    for layer in range(size["num_hidden_layers"]):
        for name, shape in {
            "self_attn.q_proj": (query, hidden),
            "self_attn.k_proj": (key, hidden),
            "self_attn.v_proj": (key, hidden),
            "self_attn.o_proj": (hidden, query),
            "self_attn.q_norm": (head,),
            "self_attn.k_norm": (head,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return {
        **shapes,
        "model.norm.weight": (hidden,),
        "lm_head.weight": (size["vocab_size"], hidden),
    }


def _config(size: dict[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **size,
    }


def _adapter_config() -> dict[str, Any]:
    from images.trainer.backends import PROJECTIONS

    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": list(PROJECTIONS),
    }


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _check_equal(root: Path) -> None:
    """Stop unless both ways wrote the same bits."""
    import torch
    from safetensors import safe_open

    places: dict[str, dict[str, Any]] = {}
    for way in ("ours", "peft"):
        opened = [safe_open(p, framework="pt") for p in (root / way).glob("*.safetensors")]
        places[way] = {name: tensors for tensors in opened for name in tensors.offset_keys()}  # type: ignore[no-untyped-call]
    mine, theirs = places["ours"], places["peft"]
    if set(mine) != set(theirs):
        raise SystemExit("the merged models have different tensors")
    for name, tensors in mine.items():
        if not torch.equal(tensors.get_tensor(name), theirs[name].get_tensor(name)):
            raise SystemExit(f"the merged models differ in {name}")


# --- the ways, each in a process of its own ------------------------------------------------------
def ours(root: Path) -> None:
    """Run the stage, from the job to the published result."""
    from contracts.stages import MERGE
    from images.merger import merge

    metrics = run_stage(root, MERGE, merge.work, ("base", "lora_adapter"))
    if metrics["way"] != "streamed":
        raise SystemExit(f"not streamed: {metrics['why']}")
    _print_peak()


def run_stage(
    root: Path, stage: Stage, work: Callable[..., Metrics], inputs: Sequence[str]
) -> dict[str, Any]:
    """Run a stage on inputs that lie in `root` under these paths; return its metrics."""
    from contracts.entrypoint import execute
    from contracts.files import size_of
    from contracts.stages import REFERENCE
    from tests.unit.references import write_empty

    references = {
        Path(path).name: InputRef(
            path=path,
            digest="",  # the driver has it from the stage before
            bytes=sum(file.stat().st_size for file in (root / path).iterdir()),
        )
        for path in inputs
    }
    record = write_empty(root / "reference.json")  # nothing to compare with: work alone counts
    references[REFERENCE.name] = InputRef(path=record.name, digest="", bytes=size_of(record))
    job = Job(
        stage=stage.name,
        run="",
        fingerprint="",
        code_digest="",
        environment="",
        task="bench",
        task_digest="",
        params={},
        inputs=references,
    )
    folder = root / "store" / stage.name / "bench"
    return execute(stage, job, root, folder, work, lambda _event: None).metrics


def peft(root: Path) -> None:
    """Load, merge and save by PEFT and transformers."""
    import torch

    from images.merger.with_peft import merge_with_peft
    from images.weights.lora import touched_modules

    adapter, out = root / "lora_adapter", root / "out"
    touched = touched_modules(adapter)
    merge_with_peft(
        root / "base", adapter, out, torch.bfloat16, touched, lambda _done, _total: None
    )
    _flush(out)
    _print_peak()


def copy(root: Path) -> None:
    """Copy the base."""
    shutil.copytree(root / "base", root / "out")
    _flush(root / "out")
    _print_peak()


def _flush(folder: Path) -> None:
    from contracts.files import fsync_path

    for path in folder.iterdir():
        fsync_path(path)


def _print_peak() -> None:
    # Not ru_maxrss: a new process begins with its parent's, and that made the model.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


WAYS = {"ours": ours, "peft": peft, "copy": copy}

if __name__ == "__main__":
    main()
