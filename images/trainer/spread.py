"""The trainer of one process among several: the same steps as one alone would make.

accelerate deals the micro-batches of each step out to the processes; here is how their gradients
become one, and what each of them saves. The loss of a step is summed over the answer tokens of all
its micro-batches and divided by their number, so no process counts more than its tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from images.trainer.loss import answer_loss
from images.trainer.rows import IGNORED
from images.trainer.sft import AnswerLossTrainer
from images.trainer.sharding import is_divided, put_adapter, share_of, trained, whole


class Loss(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A model whose forward pass is `answer_loss`: data-parallel wrappers know no other call."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Return (summed loss, answer tokens)."""
        return answer_loss(self.model, batch)


class SpreadTrainer(AnswerLossTrainer):
    """`AnswerLossTrainer` for several processes, each with the base, or with a share of it.

    The hooks of transformers' trainer that are replaced are those that accelerate would fill with
    wrappers of its own: its FSDP needs CUDA, and gathers the whole base for a checkpoint.
    """

    _parallel: Any = None

    def summed_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Return the same, through the wrapper that brings the gradients together."""
        summed, tokens = model(inputs)
        return summed, tokens

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return this process's part of the loss, scaled up: the wrappers average gradients."""
        loss = super().compute_loss(model, *args, **kwargs)
        return loss * self.args.world_size if model.training else loss

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return the batches of this process; together they hold every row once.

        accelerate would repeat rows, for each process to have as many. Here one that has nothing
        left computes a batch without an answer: all are needed to put a divided layer together.
        """
        rows, size = list(eval_dataset or self.eval_dataset), self.args.eval_batch_size
        batches = [self.data_collator(rows[i : i + size]) for i in range(0, len(rows), size)]
        labels = torch.full_like(batches[-1]["labels"], IGNORED)
        batches += [{**batches[-1], "labels": labels}] * (-len(batches) % self.args.world_size)
        return DataLoader(batches[self.args.process_index :: self.args.world_size], batch_size=None)

    def in_all(self, nats: float, tokens: int) -> tuple[float, int]:
        """Return both sums over all processes, the same in each."""
        sums = torch.tensor([nats, tokens], dtype=torch.float64, device=self.args.device)
        dist.all_reduce(sums)
        return float(sums[0]), int(sums[1])

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:  # noqa: ARG002
        if not training:
            return Loss(self.model)
        if self._parallel is None:
            loss = Loss(self.model)
            self._parallel = loss if is_divided(self.model) else _data_parallel(loss)
        return self._parallel

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        """Leave it where it was loaded to; what is divided cannot be moved."""

    def _clip_grad_norm(self, model: Any) -> Any:
        return whole(super()._clip_grad_norm(model))

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        dist.barrier()  # trainer_state.json, which the first process writes next, says all is there

    # --- what a divided model saves and reads: the same whole files as any other -----------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter, in the first process; the others lend their shares."""
        if not is_divided(self.model):
            super().save_model(output_dir, _internal_call)
            return
        adapter = whole(trained(self.model))
        if self.args.should_save:
            self._save(output_dir, state_dict=adapter)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not is_divided(self.model):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        moments = whole(self.optimizer.state_dict())
        if self.args.should_save:
            torch.save(moments, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if is_divided(self.model):
            put_adapter(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Read whole tensors on the CPU; transformers would to a `cpu:0`, which torch refuses."""
        if checkpoint is None:
            return
        moments, schedule = (
            torch.load(Path(checkpoint) / name, map_location="cpu", weights_only=True)
            for name in ("optimizer.pt", "scheduler.pt")
        )
        if is_divided(self.model):
            moments = _divided(moments, self.optimizer)
        self.optimizer.load_state_dict(moments)
        self.lr_scheduler.load_state_dict(schedule)


def _data_parallel(loss: Loss) -> Any:
    """Wrap a model that every process holds.

    The base is the same file everywhere and is not compared, let alone sent around. The adapter
    starts from the first process's: the same seed gives other numbers on another kind of GPU.
    """
    for parameter in trained(loss).values():
        dist.broadcast(parameter.data, src=0)
    return DistributedDataParallel(loss, init_sync=False, gradient_as_bucket_view=True)


def _divided(saved: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return a saved state of whole tensors as this process's shares."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state = {
        index: {
            name: share_of(value, parameters[index])
            if value.shape == parameters[index].shape
            else value  # the number of steps
            for name, value in of_one.items()
        }
        for index, of_one in saved["state"].items()
    }
    return {**saved, "state": state}
