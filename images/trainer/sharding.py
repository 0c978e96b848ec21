"""A base that no card can hold by itself: each process keeps a share of every layer (FSDP2).

A layer is put together just before it computes, and taken apart behind it. Only the LoRA learns,
so only its gradients are reduced. In a checkpoint everything is whole: a training goes on from it
with any number of processes, divided or not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from contracts import fit
from contracts.errors import SettingsInvalid
from contracts.params import TrainParams
from contracts.vram import MIB, Shape, Training, UnknownShape
from images.trainer.checkpoints import ADAPTER
from images.trainer.world import World


def divides(params: TrainParams, base: Path, world: World, *, longest: int) -> bool:
    """Return whether the base is divided: as set, or where the smallest card cannot hold it.

    That is so by the estimate for one row of `longest` tokens; a base of unknown shape is taken for
    one that fits. Raises `SettingsInvalid` for one process that is to divide it.
    """
    if params.sharding == "fsdp" and world.size == 1:
        raise SettingsInvalid(
            "train.sharding=fsdp divides the base among processes, and there is one",
            todo="Name several GPUs in gpu.devices, or set train.processes.",
        )
    if params.sharding != "auto":
        return params.sharding == "fsdp"
    if world.size == 1 or params.device == "cpu":
        return False
    cards = [torch.cuda.get_device_properties(i).total_memory for i in range(world.size)]
    try:
        training = Training.of(params, Shape.read(base), rows=1, length=longest)
    except UnknownShape:
        return False
    return fit.has_to_be_divided(training, min(cards) // MIB)


def divide(model: Any, mesh: DeviceMesh) -> Any:
    """Divide the layers of a PEFT model among the processes, each share to its own device.

    Embedding, last norm and head stay whole, since a step needs them from its first moment to its
    last. FSDP takes part in calls of the backbone, which all computing goes through.
    """
    backbone, head = model.get_base_model().model, model.get_base_model().get_output_embeddings()
    for layer in backbone.layers:
        fully_shard(layer, mesh=mesh)
    beside = [module for name, module in backbone.named_children() if name != "layers"]
    kept = {parameter for module in beside for parameter in module.parameters()}
    fully_shard(backbone, mesh=mesh, ignored_params=kept)
    for module in (*beside, head):
        module.to(mesh.device_type)
    return model


def is_divided(model: Any) -> bool:
    """Return whether `divide` was at this model."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def put_adapter(model: Any, adapter: Path) -> None:
    """Give a divided model the adapter of a folder."""
    saved = load_file(adapter / ADAPTER)
    with torch.no_grad():
        for name, parameter in _by_saved_name(model).items():
            parameter.copy_(share_of(saved[name], parameter))


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that learn, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _by_saved_name(model: Any) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    found: dict[str, Any] = get_peft_model_state_dict(
        model, trained(model), save_embedding_layers=False
    )
    return found


def whole(state: Any) -> Any:
    """Return a nest of tensors with every divided one whole, on the CPU. Every process must call.

    Costs the memory of what it returns in each process: meant for adapters and their moments.
    """
    return tree_map(
        lambda leaf: leaf.full_tensor().cpu() if isinstance(leaf, DTensor) else leaf, state
    )


def share_of(tensor: torch.Tensor, parameter: DTensor) -> DTensor:
    """Return this process's share of a whole tensor, divided as `parameter` is."""
    return distribute_tensor(
        tensor.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
