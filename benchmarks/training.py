"""Training on a CPU: the trainer's recipe against the one that was in production.

Theirs is TRL as it comes: the messages for a data set, a loss on every token, rows padded to the
longest of the micro-batch. Its fused head needs a GPU, so here the loss is transformers' own. Ours
learns the answer only and packs rows behind the system prompt that they share. Both train the same
LoRA on the same tiny Qwen3 with the same rows, the sample's at their real lengths. Ours takes four
at once, theirs two, since the logits of all positions take gigabytes. Tokens are counted over the
whole sample, as the models are given them: how many of those that are computed belong to an answer.
One core; the first step is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, TrainerCallback

from benchmarks.comparison import show
from benchmarks.resident import peak_kib
from benchmarks.sample import TASK, conversations
from contracts.params import TrainParams
from examples import tiny_qwen3
from images.trainer.backends import load_model
from images.trainer.order import micro_batches, training_order
from images.trainer.packing import enable_packing, pack
from images.trainer.rows import Row, encode
from images.trainer.sft import Collator, make_trainer
from tasks import load_task

OURS, THEIRS = 4, 2
"""Rows of a step."""
STEPS, QUICK_STEPS = 30, 2
PARAMS = TrainParams(
    backend="transformers",
    device="cpu",
    load_in="fp32",
    batch_size=OURS,
    micro_batch_size=OURS,
    eval_steps=STEPS + 1,  # never
)

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Figures:
    """What a recipe reached."""

    answers: float
    """Answer tokens for each hundred that were computed."""
    rows_per_s: float
    memory_gb: float
    """Resident at most, so far in this process."""


def main() -> None:
    """Print one line for each figure; ratio above 1: ours is better."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two steps, under 50 s")
    steps = QUICK_STEPS if parser.parse_args().quick else STEPS
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_qwen3.make(folder / "base")
        tokenizer = AutoTokenizer.from_pretrained(folder / "base")
        rows, messages = sample(tokenizer)
        mine = ours(folder, tokenizer, rows, steps)  # first, since its peak is the lower one
        other = theirs(folder, tokenizer, rows, messages, steps)
    show("answer tokens for each 100 computed", mine.answers, other.answers, "tokens", more=True)
    show("training", mine.rows_per_s, other.rows_per_s, "rows/s", more=True)
    show("training, peak memory", mine.memory_gb, other.memory_gb, "GB")


def sample(tokenizer: Any) -> tuple[list[Row], list[Messages]]:
    """Return the sample's rows within the limit, tokenized and as messages."""
    chat = load_task(TASK).chat
    both = [(encode(given, tokenizer, chat), given["messages"]) for given in conversations()]
    found = [(row, messages) for row, messages in both if len(row.ids) <= PARAMS.max_length]
    return [row for row, _ in found], [messages for _, messages in found]


def ours(folder: Path, tokenizer: Any, rows: list[Row], steps: int) -> Figures:
    """Train as the stage does, without evaluations."""
    lengths = [len(row.ids) for row in rows]
    order = training_order(lengths, steps=len(rows) // OURS, batch_size=OURS, seed=PARAMS.seed)
    order = micro_batches(order, lengths, batch_size=OURS, micro_batch_size=OURS, packed=True)
    ordered = [rows[index] for index in order]
    model = load_model("transformers", folder / "base", PARAMS)
    enable_packing(model)
    trainer = make_trainer(
        "transformers",
        model,
        tokenizer,
        ordered[: steps * OURS],
        ordered[:1],
        PARAMS,
        folder / "ours",
        lambda *_: None,
    )
    collate = Collator(tokenizer.pad_token_id)
    groups = [ordered[at : at + OURS] for at in range(0, len(ordered), OURS)]
    batches = (
        collate([{"input_ids": row.ids, "labels": row.labels} for row in group]) for group in groups
    )
    computed = sum(pack(batch).ids.numel() for batch in batches)
    return trained(trainer, OURS, 100 * sum(row.trained_tokens for row in ordered) / computed)


def theirs(
    folder: Path, tokenizer: Any, rows: list[Row], messages: list[Messages], steps: int
) -> Figures:
    """Train as TRL does with messages and its defaults."""
    from datasets import Dataset
    from trl import SFTConfig

    from benchmarks.gpu.plain_trl import OnCpu

    trainer = OnCpu(
        model=load_model("transformers", folder / "base", PARAMS),
        args=SFTConfig(
            output_dir=str(folder / "theirs"),
            max_steps=steps,
            per_device_train_batch_size=THEIRS,
            learning_rate=PARAMS.learning_rate,
            lr_scheduler_type="cosine",
            max_length=PARAMS.max_length,
            seed=PARAMS.seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"messages": each} for each in messages]),
        processing_class=tokenizer,
    )
    computed = sum(batch["input_ids"].numel() for batch in trainer.get_train_dataloader())
    return trained(trainer, THEIRS, 100 * sum(row.trained_tokens for row in rows) / computed)


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def trained(trainer: Any, rows: int, answers: float) -> Figures:
    """Train in steps of `rows`, and return the figures of those after the first."""
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    each = (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)
    return Figures(answers, rows / each, peak_kib() * 1024 / 1e9)


if __name__ == "__main__":
    main()
