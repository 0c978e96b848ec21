"""The recipe that was in production, as TRL has it: the other side of benchmarks/gpu.

    python -m benchmarks.gpu.plain_trl FOLDER --params JSON

The messages for a data set, a loss on every token, rows padded to the longest of the micro-batch,
in random order. Base, adapter, optimizer, schedule and precision are those of ours, and so are the
rows at once. On CUDA its own loss, which makes no logits of all tokens at once; a CPU cannot run
that kernel, and takes transformers' loss. Steps are reported as the stage does.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, Trainer
from trl import SFTConfig, SFTTrainer

from contracts import files
from contracts.entrypoint import print_event
from contracts.errors import OutOfMemory
from contracts.params import TrainParams
from contracts.stage import Event
from images.trainer.backends import load_model
from images.trainer.sft import Watch


class OnCpu(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """TRL's trainer without its kernel."""

    compute_loss = Trainer.compute_loss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--params", required=True)
    given = parser.parse_args()
    params = TrainParams(**json.loads(given.params))
    events = sys.stdout
    with redirect_stdout(sys.stderr):
        trainer = make(given.folder, params)

        def report(step: int, steps: int, _figures: dict[str, float]) -> None:
            print_event(Event(stage="trl", done=step, total=steps, unit="steps"), events)

        trainer.add_callback(Watch(report))
        try:
            trainer.train()
        except torch.OutOfMemoryError as error:
            print(error, file=sys.stderr)
            return OutOfMemory.exit_code
    return 0


def make(folder: Path, params: TrainParams) -> SFTTrainer:
    """Return the trainer on the base and the training rows in `folder`."""
    cuda = params.device == "cuda"
    rows = files.read_jsonl(folder / "train.jsonl")
    more: dict[str, Any] = {} if cuda else {"use_cpu": True, "dataloader_pin_memory": False}
    return (SFTTrainer if cuda else OnCpu)(
        model=load_model("transformers", folder / "base", params),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            max_steps=params.max_steps,
            per_device_train_batch_size=params.rows_at_once,
            gradient_accumulation_steps=params.batch_size // params.rows_at_once,
            learning_rate=params.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=params.warmup_ratio,
            weight_decay=params.weight_decay,
            optim="adamw_8bit" if cuda else "adamw_torch",
            bf16=cuda,
            gradient_checkpointing=params.checkpointing,
            max_length=params.max_length,
            # in random order already, and so it is known which rows a step has
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            seed=params.seed,
            report_to="none",
            disable_tqdm=True,
            **more,
        ),
        train_dataset=Dataset.from_list([{"messages": row["messages"]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
    )


if __name__ == "__main__":
    sys.exit(main())
