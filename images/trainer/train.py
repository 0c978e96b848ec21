"""Stage TRAIN: base model and labelled rows in, LoRA adapter, log and loss curve out."""

from __future__ import annotations

import json
import logging
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh

from contracts import files, reference
from contracts.entrypoint import StageContext
from contracts.errors import SentinelTripped
from contracts.params import (
    TrainMetrics,
    TrainParams,
)
from contracts.stages import (
    BASE,
    LORA_ADAPTER,
    LOSS_CURVE,
    REFERENCE,
    TRAIN_SPLIT,
    TRAINING_LOG,
    VALIDATION_SPLIT,
)
from images.trainer.backends import Backend, choose_backend, load_model
from images.trainer.base_tensors import check_complete
from images.trainer.batching import Batching, settle
from images.trainer.checkpoints import ADAPTER, ADAPTER_CONFIG, newest_whole
from images.trainer.curve import loss_curve
from images.trainer.order import micro_batches, steps_for, training_order
from images.trainer.packing import choose_packing, enable_packing
from images.trainer.reference import Recorded, Recorder
from images.trainer.rows import Row, Split, read_split
from images.trainer.sentinels import check_loss_fell
from images.trainer.sharding import divide, divides
from images.trainer.world import World
from tasks import load_task

if TYPE_CHECKING:
    from images.trainer.sft import TrainingRun  # imports TRL, which Unsloth has to patch before

_PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Plan:
    """All that is settled before the base is loaded; the same in every process."""

    backend: Backend
    tokenizer: Any
    train: Split
    validation: Split
    batching: Batching
    divided: bool
    """Whether each process holds a share of the base only."""
    packed: bool
    order: list[Row]
    """The rows as they are trained on, `batch_size` for each step."""
    recorder: Recorder
    resumed: Path | None
    """The checkpoint to go on from."""

    @property
    def params(self) -> TrainParams:
        """The settings, with the micro-batch settled."""
        return self.batching.params


def work(context: StageContext[TrainParams]) -> TrainMetrics:
    """Train the adapter; go on from the newest whole checkpoint if there is one.

    Each of several processes calls this. What one alone may do, the first does for all.
    """
    plan = _prepare(context)
    with plan.batching.loading():
        model = _load(context, plan)
    with plan.batching.computing():
        started = time.monotonic()
        run = _fit(context, plan, model)
        seconds = time.monotonic() - started
        recorded = _keep_best(context, plan, model, run)
    metrics = _metrics(plan, run, recorded, seconds)
    World.here().decided(lambda: _publish(context, plan, run, recorded, metrics))
    return metrics


def _prepare(context: StageContext[TrainParams]) -> _Plan:
    params, base, world = context.params, context.input(BASE), World.here()
    backend = choose_backend(params)  # imports Unsloth, which has to come before transformers
    world.decided(lambda: check_complete(base))
    # Rows first: an over-long one should be named before minutes are spent on loading the base.
    tokenizer = _tokenizer(base)
    train, validation = _splits(context, tokenizer)
    longest = max(len(row.ids) for row in (*train.rows, *validation.rows))
    divided = divides(params, base, world, longest=longest)
    batching = world.decided(
        lambda: settle(
            context.work, params, base, longest=longest, processes=world.size, divided=divided
        )
    )
    packed = choose_packing(backend, base, batching.params)
    chat = load_task(context.job.task).chat
    return _Plan(
        backend=backend,
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        batching=batching,
        divided=divided,
        packed=packed,
        order=_in_order(train.rows, batching, packed=packed),
        recorder=Recorder(base, validation.rows, tokenizer, chat, batching.params),
        resumed=world.decided(lambda: newest_whole(_checkpoints(context))),
    )


def _load(context: StageContext[TrainParams], plan: _Plan) -> Any:
    """Return the base with its LoRA, or this process's share of them, ready to train."""
    base, params, world = context.input(BASE), plan.params, World.here()
    _log.warning(
        "%s%s, %d rows, %d steps, from step %d",
        plan.backend,
        f", divided among {world.size}" if plan.divided else "",
        len(plan.train.rows),
        len(plan.order) // params.batch_size,
        _step(plan.resumed),
    )
    if plan.divided:
        mesh = init_device_mesh(params.device, (world.size,))
        with world.in_turn():  # each has the whole base in the host's memory for a while
            model = divide(load_model(plan.backend, base, params, divide=True), mesh)
    else:
        model = load_model(plan.backend, base, params)
    plan.recorder.look_before(model)
    if plan.packed:
        enable_packing(model)
    return model


def _fit(context: StageContext[TrainParams], plan: _Plan, model: Any) -> TrainingRun:
    from images.trainer.sft import make_trainer, run_training  # after Unsloth has patched TRL

    trainer = make_trainer(
        plan.backend,
        model,
        plan.tokenizer,
        plan.order,
        plan.validation.rows,
        plan.params,
        _checkpoints(context),
        lambda step, total, figures: context.progress(step, total, "steps", **figures),
    )
    return run_training(trainer, plan.resumed, plan.params)


def _keep_best(
    context: StageContext[TrainParams], plan: _Plan, model: Any, run: TrainingRun
) -> Recorded:
    """Publish the best checkpoint's adapter, and return what the model predicts with it."""
    best = _checkpoints(context) / f"checkpoint-{run.state.best_global_step}"
    adapter, digest = context.output(LORA_ADAPTER), context.job.inputs[BASE.name].digest
    World.here().decided(lambda: _publish_adapter(best, adapter, base_digest=digest))
    trained, least = run.state.best_metric, plan.params.min_loss_fall
    check_loss_fell(run.untrained_loss, trained, share=least)
    return plan.recorder.record(model, adapter)


def _metrics(plan: _Plan, run: TrainingRun, recorded: Recorded, seconds: float) -> TrainMetrics:
    state, params = run.state, plan.params
    seen = plan.order[: state.global_step * params.batch_size]
    done = seen[_step(plan.resumed) * params.batch_size :]
    return TrainMetrics(
        backend=plan.backend,
        steps=state.global_step,
        rows=len(plan.train.rows),
        dropped=len(plan.train.dropped) + len(plan.validation.dropped),
        train_loss=round(_series(state.log_history, "loss")[-1][1], 5),
        validation_loss=round(state.best_metric, 5),
        trained_tokens=sum(row.trained_tokens for row in seen),
        peak_memory_mib=_peak_memory_mib(params.device),
        untrained_loss=round(run.untrained_loss, 5),
        packed=plan.packed,
        micro_batch_size=params.rows_at_once,
        tokens_per_s=round(sum(len(row.ids) for row in done) / seconds, 1),
        reference_positions=recorded.reference.positions(),
        effect=recorded.effect,
        held_drift=recorded.held_drift,
    )


def _checkpoints(context: StageContext[TrainParams]) -> Path:
    return context.work / "checkpoints"


def _splits(context: StageContext[TrainParams], tokenizer: Any) -> tuple[Split, Split]:
    """Read both splits as token ids, rendered by the task's chat format."""
    chat = load_task(context.job.task).chat
    train, validation = (
        read_split(
            context.input(artifact),
            tokenizer,
            chat,
            max_length=context.params.max_length,
            too_long=context.params.too_long,
        )
        for artifact in (TRAIN_SPLIT, VALIDATION_SPLIT)
    )
    return train, validation


def _in_order(rows: Sequence[Row], batching: Batching, *, packed: bool) -> list[Row]:
    """Return the rows as they are trained on, `batch_size` for each step, over all epochs."""
    params = batching.params
    steps = steps_for(
        len(rows),
        epochs=params.epochs,
        max_steps=params.max_steps,
        batch_size=params.batch_size,
    )
    lengths = [len(row.ids) for row in rows]
    order = training_order(
        lengths,
        steps=steps,
        batch_size=params.batch_size,
        seed=params.seed,
    )
    order = micro_batches(
        order,
        lengths,
        batch_size=params.batch_size,
        micro_batch_size=params.rows_at_once,
        packed=packed,
        processes=batching.processes,
    )
    return [rows[index] for index in order]


def _tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True)


def _publish_adapter(checkpoint: Path, out: Path, *, base_digest: str) -> None:
    """Copy the adapter of a checkpoint; raise `SentinelTripped` if it would change nothing.

    A LoRA's B starts at zero, so ΔW = B A is zero exactly where B still is.
    """
    tensors = load_file(checkpoint / ADAPTER)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise SentinelTripped(
            "sentinel finite_adapter: the adapter holds NaN or infinity",
            why="most likely a step was too large",
            todo="Lower train.learning_rate.",
        )
    if not any(bool(t.any()) for name, t in tensors.items() if "lora_B" in name):
        raise SentinelTripped(
            "sentinel adapter_changed: the adapter is as it was before the training",
            why="B of each LoRA is zero, so it changes no weight",
            todo="Look at the learning rate and the number of steps.",
        )
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / ADAPTER, metadata={"format": "pt"})
    config = json.loads((checkpoint / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = f"base@sha256:{base_digest}"  # not this machine's path
    for key in ("target_modules", "exclude_modules"):  # sets in PEFT, in another order each time
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    files.write_json(out / ADAPTER_CONFIG, config)


def _publish(
    context: StageContext[TrainParams],
    plan: _Plan,
    run: TrainingRun,
    recorded: Recorded,
    metrics: TrainMetrics,
) -> None:
    reference.write(context.output(REFERENCE), recorded.reference)
    history = run.state.log_history
    log = {
        "metrics": metrics.model_dump(mode="json"),
        "params": context.params.model_dump(mode="json"),
        "best_step": run.state.best_global_step,
        "stopped_early": run.state.global_step < run.state.max_steps,
        "base": context.job.inputs[BASE.name].digest,
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "dropped": {"train": plan.train.dropped, "validation": plan.validation.dropped},
        "log": history,
    }
    files.write_json(context.output(TRAINING_LOG), log)
    curve = loss_curve(
        _series(history, "loss"), _series(history, "eval_loss"), title=f"Loss: {metrics.summary()}"
    )
    files.write_text(context.output(LOSS_CURVE), curve)


def _series(history: list[dict[str, float]], name: str) -> list[tuple[float, float]]:
    return [(point["step"], point[name]) for point in history if name in point]


def _step(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _peak_memory_mib(device: str) -> int:
    """Return the most memory taken: on the GPU as PyTorch reserved it, else resident."""
    if device == "cuda":
        return int(torch.cuda.max_memory_reserved() / 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts in KiB
