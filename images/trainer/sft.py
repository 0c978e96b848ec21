"""TRL's trainer, set up to learn exactly the ids and labels it is given.

Imported only once the backend is chosen: Unsloth has to patch TRL before anybody imports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTConfig, SFTTrainer

from contracts.errors import SentinelTripped
from contracts.params import (
    TrainParams,
)
from images.trainer.backends import Backend
from images.trainer.early_stop import EarlyStop, is_over
from images.trainer.evaluation import TokenMeanTrainer
from images.trainer.gradient_watch import GradientWatch
from images.trainer.loss import answer_loss
from images.trainer.packing import packs
from images.trainer.rows import IGNORED, Row
from images.trainer.sentinels import check_packing, check_untrained
from images.trainer.sharding import is_divided
from images.trainer.world import World

LOG_POINTS = 200
"""About how many points of the training loss are logged."""

Report = Callable[[int, int, dict[str, float]], None]
"""Takes (step, steps, figures)."""


class AnswerLossTrainer(TokenMeanTrainer):
    """The trainer with the loss of loss.py; Unsloth brings its own fast loss instead."""

    def summed_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Return (summed loss, answer tokens) of a micro-batch."""
        return answer_loss(self.accelerator.unwrap_model(model), inputs)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return nats per answer token, over the whole batch when accumulating."""
        if return_outputs:
            raise NotImplementedError("this loss makes no outputs; metrics need the loss only")
        # accelerate's autocast sits on the outer forward, which is not called here
        with torch.autocast(self.args.device.type, torch.bfloat16, self.args.bf16):
            loss, tokens = self.summed_loss(model, inputs)
        return loss / max(int(tokens if num_items_in_batch is None else num_items_in_batch), 1)


@dataclass(frozen=True)
class TrainingRun:
    """What a finished training leaves, its checkpoints apart."""

    state: Any
    """transformers' TrainerState: steps, log, and which checkpoint is the best."""
    untrained_loss: float
    """Validation loss before the first step."""


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Reports each step, and stops a training whose loss is no number any more."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._latest: dict[str, float] = {}

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any
    ) -> None:
        """Keep the figures for the next report; raise `SentinelTripped` for a NaN."""
        if not state.max_steps:
            return  # the untrained model's evaluation
        for name in ("loss", "eval_loss"):
            if name in logs and not math.isfinite(logs[name]):
                raise SentinelTripped(
                    f"sentinel finite_loss: {name} is {logs[name]} at step {state.global_step}",
                    why="most likely a step was too large",
                    todo="Lower train.learning_rate, or raise train.warmup_ratio.",
                )
        shown = {
            "loss": "loss",
            "eval_loss": "validation_loss",
            "learning_rate": "learning_rate",
        }
        self._latest |= {shown[name]: float(logs[name]) for name in shown if name in logs}
        self._report(state.global_step, state.max_steps, self._latest)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Report the step with the figures logged last."""
        self._report(state.global_step, state.max_steps, self._latest)


def make_trainer(
    backend: Backend,
    model: Any,
    tokenizer: Any,
    train: list[Row],
    validation: list[Row],
    params: TrainParams,
    checkpoints: Path,
    report: Report,
) -> SFTTrainer:
    """Return a trainer that sees `train` once, in the order given, and writes checkpoints."""
    trainer_class = TokenMeanTrainer if backend == "unsloth" else AnswerLossTrainer
    if World.here().size > 1:
        from images.trainer.spread import SpreadTrainer

        trainer_class = SpreadTrainer
    by_length = sorted(validation, key=lambda row: len(row.ids))  # neighbours pad little
    trainer = trainer_class(
        model=model,
        args=config(
            backend,
            params,
            steps=len(train) // params.batch_size,
            folder=checkpoints,
            divided=is_divided(model),
        ),
        data_collator=Collator(tokenizer.pad_token_id),
        train_dataset=_dataset(train),
        eval_dataset=_dataset(by_length),
        processing_class=tokenizer,
        callbacks=[Watch(report), EarlyStop(params.patience), GradientWatch()],
    )
    trainer.remove_callback(PrinterCallback)
    if backend == "transformers":
        _adapter_in_fp32(trainer.model)
    return trainer


def run_training(trainer: SFTTrainer, resumed: Path | None, params: TrainParams) -> TrainingRun:
    """Train from the checkpoint `resumed`, or from the start; raise `SentinelTripped`.

    The untrained model is judged in either case: the adapter is fresh until a checkpoint's takes
    its place, and a fresh one changes nothing.
    """
    untrained = trainer.evaluate()["eval_loss"]
    check_untrained(untrained)
    if packs(trainer.model):
        check_packing(trainer.model, _first_rows(trainer))
    state = TrainerState.load_from_json(str(resumed / TRAINER_STATE_NAME)) if resumed else None
    if state and is_over(state, steps=trainer.args.max_steps, patience=params.patience):
        return TrainingRun(state, untrained)  # killed after its last checkpoint
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    return TrainingRun(trainer.state, untrained)


def optimizer(params: TrainParams, *, divided: bool) -> str:
    """Return the optimizer by transformers' name: 8-bit AdamW on CUDA, whatever the base is in.

    It is bitsandbytes', which knows nothing of the shares of a divided adapter.
    """
    eight_bit = params.device == "cuda" and not divided and find_spec("bitsandbytes") is not None
    return "adamw_8bit" if eight_bit else "adamw_torch"


def config(
    backend: Backend, params: TrainParams, *, steps: int, folder: Path, divided: bool = False
) -> SFTConfig:
    """Return the settings of the run in TRL's words."""
    cuda, processes = params.device == "cuda", World.here().size
    more: dict[str, Any] = {}
    if backend == "transformers" or not params.checkpointing:  # Unsloth has its own, on by then
        more["gradient_checkpointing"] = params.checkpointing
    return SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=params.rows_at_once,
        per_device_eval_batch_size=params.rows_at_once,
        gradient_accumulation_steps=params.batch_size // (params.rows_at_once * processes),
        learning_rate=params.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_ratio,  # below 1 it is a share of the steps
        weight_decay=params.weight_decay,
        optim=optimizer(params, divided=divided),
        bf16=cuda and params.load_in != "fp32",
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        eval_strategy="steps",
        eval_steps=params.eval_steps,
        save_strategy="steps",
        save_steps=params.eval_steps,
        save_total_limit=2,  # the newest, and the best
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=max(1, steps // LOG_POINTS),
        logging_nan_inf_filter=False,  # would hide a NaN from the sentinel
        seed=params.seed,
        data_seed=params.seed,
        train_sampling_strategy="sequential",  # the order is made in order.py
        dataset_kwargs={"skip_prepare_dataset": True},  # ids and labels are finished
        max_length=params.max_length,
        packing=False,
        report_to="none",
        disable_tqdm=True,
        **more,
    )


class Collator:
    """Pads rows on the right to the longest one of the micro-batch."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return input_ids, attention_mask and labels, each [rows, longest], int64."""
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, value: int) -> torch.Tensor:
            return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])

        present = [[1] * len(row["input_ids"]) for row in rows]
        return {
            "input_ids": padded("input_ids", self._pad_id),
            "labels": padded("labels", IGNORED),
            "attention_mask": torch.tensor(
                [ones + [0] * (longest - len(ones)) for ones in present]
            ),
        }


def _first_rows(trainer: SFTTrainer) -> dict[str, torch.Tensor]:
    """Return the first two rows of the training as a batch on the device."""
    rows = [trainer.train_dataset[at] for at in range(min(2, len(trainer.train_dataset)))]
    batch: dict[str, torch.Tensor] = trainer.data_collator(rows)
    return {name: tensor.to(trainer.args.device) for name, tensor in batch.items()}


def _adapter_in_fp32(model: Any) -> None:
    """Hold the adapter in fp32 whatever the base is held in.

    TRL makes it bf16 on a quantised base, after the paper of QLoRA. But a bf16 of 0.01, the size
    of A's weights, cannot change by less than 3e-5: the later steps of a cosine from 2e-4 would
    change little or nothing.
    """
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def _dataset(rows: list[Row]) -> Dataset:
    return Dataset.from_dict(
        {"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]}
    )
