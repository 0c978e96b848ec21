"""Stage TRAIN: base model and labelled rows in, LoRA adapter, log and loss curve out."""

from __future__ import annotations

import json
import logging
import resource
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
from images.trainer.batching import settle
from images.trainer.checkpoints import ADAPTER, newest_whole
from images.trainer.curve import loss_curve
from images.trainer.order import for_processes, steps_for, training_order
from images.trainer.packing import choose_packing, enable_packing
from images.trainer.reference import Recorder
from images.trainer.rows import Row, Split, read_split
from images.trainer.sentinels import check_loss_fell
from images.trainer.sharding import divide, divides
from images.trainer.world import World
from tasks import load_task

ADAPTER_CONFIG = "adapter_config.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes")
_log = logging.getLogger(__name__)


def work(context: StageContext[TrainParams]) -> TrainMetrics:
    """Train the adapter; go on from the newest whole checkpoint if there is one."""
    params, base, world = context.params, context.input(BASE), World.here()
    backend = choose_backend(params)

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
    params = batching.params
    packed = choose_packing(backend, base, params, bucket=batching.bucket)
    ordered = _in_order(train.rows, params, world, bucket=batching.bucket, packed=packed)
    steps = len(ordered) // params.batch_size
    chat = load_task(context.job.task).chat
    recorder = Recorder(base, validation.rows, tokenizer, chat, params)

    checkpoints = context.work / "checkpoints"
    resumed = world.decided(lambda: newest_whole(checkpoints))
    how = f"{backend}, divided among {world.size}" if divided else backend
    _log.warning("%s, %d rows, %d steps, from step %d", how, len(train.rows), steps, _step(resumed))
    with batching.loading():
        model = _model(backend, base, params, world, divided=divided)
        recorder.look_before(model)
        if packed:
            enable_packing(model)
    with batching.computing():
        from images.trainer.sft import make_trainer, run_training  # after Unsloth has patched TRL

        trainer = make_trainer(
            backend,
            model,
            tokenizer,
            ordered,
            validation.rows,
            params,
            checkpoints,
            lambda step, total, figures: context.progress(step, total, "steps", **figures),
        )
        started = time.monotonic()
        run = run_training(trainer, resumed, params)
        seconds = time.monotonic() - started
        state = run.state

        best = checkpoints / f"checkpoint-{state.best_global_step}"
        adapter, digest = context.output(LORA_ADAPTER), context.job.inputs[BASE.name].digest
        world.decided(lambda: _publish_adapter(best, adapter, base_digest=digest))
        check_loss_fell(run.untrained_loss, state.best_metric, share=params.min_loss_fall)
        recorded = recorder.record(model, adapter)
    seen = ordered[: state.global_step * params.batch_size]
    done = seen[_step(resumed) * params.batch_size :]
    metrics = TrainMetrics(
        backend=backend,
        steps=state.global_step,
        rows=len(train.rows),
        dropped=len(train.dropped) + len(validation.dropped),
        train_loss=round(_series(state.log_history, "loss")[-1][1], 5),
        validation_loss=round(state.best_metric, 5),
        trained_tokens=sum(row.trained_tokens for row in seen),
        peak_memory_mib=_peak_memory_mib(params.device),
        untrained_loss=round(run.untrained_loss, 5),
        packed=packed,
        micro_batch_size=params.rows_at_once,
        tokens_per_s=round(sum(len(row.ids) for row in done) / seconds, 1),
        reference_positions=recorded.reference.positions(),
        effect=recorded.effect,
        held_drift=recorded.held_drift,
    )
    if world.rank == 0:  # the others have learnt the same
        reference.write(context.output(REFERENCE), recorded.reference)
        _publish_log(context, metrics, state, train, validation)
    return metrics


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


def _in_order(
    rows: Sequence[Row], params: TrainParams, world: World, *, bucket: int, packed: bool
) -> list[Row]:
    """Return the rows as they are trained on, `batch_size` for each step, over all epochs."""
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
        micro_batch_size=bucket,
        seed=params.seed,
        packed=packed,
    )
    order = for_processes(
        order,
        lengths,
        batch_size=params.batch_size,
        micro_batch_size=params.rows_at_once,
        processes=world.size,
    )
    return [rows[index] for index in order]


def _model(
    backend: Backend, base: Path, params: TrainParams, world: World, *, divided: bool
) -> Any:
    """Return the base with its LoRA, or this process's share of them."""
    if not divided:
        return load_model(backend, base, params)
    mesh = init_device_mesh(params.device, (world.size,))
    with world.in_turn():  # each has the whole base in the host's memory for a while
        return divide(load_model(backend, base, params, divide=True), mesh)


def _tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True)


def _publish_adapter(checkpoint: Path, out: Path, *, base_digest: str) -> None:
    """Copy the adapter of a checkpoint; raise `SentinelTripped` if it would change nothing.

    A LoRA's B starts at zero, so ΔW = B A is zero exactly where B still is.
    """
    tensors = load_file(checkpoint / ADAPTER)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise SentinelTripped("sentinel finite_adapter: the adapter holds NaN or infinity")
    if not any(bool(t.any()) for name, t in tensors.items() if "lora_B" in name):
        raise SentinelTripped(
            "sentinel adapter_changed: the adapter is as it was before the training",
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


def _publish_log(
    context: StageContext[TrainParams],
    metrics: TrainMetrics,
    state: Any,
    train: Split,
    validation: Split,
) -> None:
    history = state.log_history
    log = {
        "metrics": metrics.model_dump(mode="json"),
        "params": context.params.model_dump(mode="json"),
        "best_step": state.best_global_step,
        "stopped_early": state.global_step < state.max_steps,
        "base": context.job.inputs[BASE.name].digest,
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "dropped": {"train": train.dropped, "validation": validation.dropped},
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
