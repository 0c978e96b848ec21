"""Whether rows that share a sequence keep apart, with the attention kernels of this device.

    python -m benchmarks.gpu.checks FOLDER --device cuda

Four comparisons for each way that a base is held, on Qwen3-14B's attention (40 heads on 8, of 128)
and four micro-batches of the sample's rows. Ours is the packed micro-batch:

- its loss, beside that of the same rows padded: nats for each answer token;
- the adapter's gradient: how far it is from that of the rows computed one by one, beside how far
  that of padded rows is, which differs by rounding alone;
- how far the other rows' hidden states move, at most, when the first row's own tokens become
  others, beside the same in an attention that takes the sequence for one text, and beside padded
  rows. 0 is what a mask promises. In int8 it is more, padded or packed: LLM.int8() chooses over all
  rows together which columns it computes apart, so another row changes a rounding.

Lines are those of the benchmark; they name the kernels that PyTorch chose.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface, AutoTokenizer

from benchmarks.comparison import compared
from benchmarks.sample import TASK
from contracts import files
from contracts.params import TrainParams
from images.trainer.backends import load_model
from images.trainer.loss import answer_loss, learnt_positions
from images.trainer.packing import PACKED, enable_packing, shared_tokens
from images.trainer.rows import IGNORED, Row, encode
from images.trainer.sft import Collator
from tasks import load_task
from tests.unit.packed_batches import Batch, one_causal_sequence

HELD, QUICK = ("fp32", "bf16", "8bit"), ("fp32", "8bit")
ROWS_AT_ONCE, BATCHES = 4, 4
_KERNEL = "aten::_scaled_dot_product_"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--quick", action="store_true", help="one micro-batch, not in bf16")
    given = parser.parse_args()
    lines = sys.stdout
    narrow = given.folder / "heads"
    base = narrow if narrow.is_dir() else given.folder / "base"
    with redirect_stdout(sys.stderr):
        batches = _batches(given.folder, base, given.device, 1 if given.quick else BATCHES)
        for held in QUICK if given.quick else HELD:
            for line in check(base, given.device, held, batches):
                print(json.dumps(line), file=lines, flush=True)


def check(base: Path, device: str, held: str, batches: list[Batch]) -> Iterator[dict[str, Any]]:
    """Yield the comparisons for a base that is held in one way."""
    params = TrainParams.model_validate(
        {"backend": "transformers", "device": device, "load_in": held}
    )
    model = load_model("transformers", base, params).eval()
    torch.manual_seed(params.seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # as after some training: with B zero, A would get no gradient
            torch.nn.init.normal_(weight, std=0.05)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda" and held != "fp32"):
        alone = learnt(model, [one for batch in batches for one in _one_by_one(batch)])
        padded = learnt(model, batches)
        moved_padded = moved(model, batches)
        enable_packing(model)
        with _kernels() as used:
            packed = learnt(model, batches)
        kernels = ", ".join(sorted(used))
        yield compared(
            f"loss, packed and padded ({held}; {kernels})", packed[0], padded[0], "nats", digits=6
        )
        yield compared(
            f"gradient, from that of single rows ({held})",
            _distance(packed[1], alone[1]),
            _distance(padded[1], alone[1]),
            "of its length",
            digits=9,
        )
        kept = moved(model, batches)
        AttentionInterface.register(PACKED, one_causal_sequence)
        mixed = moved(model, batches)
        enable_packing(model)
    name, unit = f"other rows, when one becomes another ({held})", "of their length"
    yield compared(f"{name}, against one text", kept, mixed, unit, digits=9)
    yield compared(f"{name}, against padded", kept, moved_padded, unit, digits=9)


def learnt(model: Any, batches: list[Batch]) -> tuple[float, torch.Tensor]:
    """Return the loss (nats a token) of all batches, and the adapter's gradient of it."""
    model.zero_grad()
    nats, tokens = 0.0, 0
    for batch in batches:
        loss, count = answer_loss(model, batch)
        loss.backward()
        nats, tokens = nats + loss.item(), tokens + count
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return nats / tokens, torch.cat([weight.grad.flatten().float() for weight in weights]) / tokens


@torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
def moved(model: Any, batches: list[Batch]) -> float:
    """Return how far hidden states before other rows' answers move, at most, if the first row's own
    tokens become others: relative to their length."""
    most = 0.0
    for batch in batches:
        shared, others = shared_tokens(batch), batch["labels"].clone()
        others[0] = IGNORED  # what is looked at
        changed = batch["input_ids"].clone()
        own = slice(shared + 2, int(batch["attention_mask"][0].sum()))
        changed[0, own] = changed[0, own].flip(0)
        before, after = (
            learnt_positions(model, {**batch, "input_ids": ids, "labels": others})[0].float()
            for ids in (batch["input_ids"], changed)
        )
        apart = (after - before).norm(dim=1) / before.norm(dim=1)
        most = max(most, float(apart.max()))
    return most


@contextmanager
def _kernels() -> Iterator[set[str]]:
    """Let a set be filled with the names of the attention kernels that run meanwhile."""
    used: set[str] = set()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield used
    names = (event.key for event in profile.key_averages())
    used |= {
        name.removeprefix(_KERNEL)
        for name in names
        if name.startswith(_KERNEL) and not name.endswith("backward")
    }


def _batches(folder: Path, base: Path, device: str, count: int) -> list[Batch]:
    """Return micro-batches of the training rows."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    chat = load_task(TASK).chat
    rows = [encode(row, tokenizer, chat) for row in files.read_jsonl(folder / "train.jsonl")]
    collate: Callable[[list[Row]], Batch] = lambda some: {  # noqa: E731
        name: tensor.to(device)
        for name, tensor in Collator(tokenizer.pad_token_id)(
            [{"input_ids": row.ids, "labels": row.labels} for row in some]
        ).items()
    }
    firsts = range(0, min(len(rows), count * ROWS_AT_ONCE), ROWS_AT_ONCE)
    return [collate(rows[at : at + ROWS_AT_ONCE]) for at in firsts]


def _one_by_one(batch: Batch) -> Iterator[Batch]:
    for row, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
        yield {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


if __name__ == "__main__":
    main()
