"""The base's files, held against what its architecture needs, before anything is computed.

transformers initialises a tensor that it does not find at random and only tells of it; training
would go on from there, and merge and conversion would leave the tensor out.
"""

from __future__ import annotations

from pathlib import Path

from contracts.base_model import check_base
from contracts.errors import SentinelTripped
from images.weights.checks import stored_tensors
from images.weights.model_files import base_config
from images.weights.shards import model_shards


def check_complete(base: Path) -> None:
    """Raise `SentinelTripped` unless the files hold each tensor of the model, and no other.

    First by their headers: `BaseModelMissing` for files that are not whole, and what makes any
    training on this base worthless. Then by transformers' own report of a load onto the meta
    device, which reads no weights; an unquantised base is the same to it for each train.load_in.
    """
    check_base(base_config(base), stored_tensors(base, model_shards(base)))
    from transformers import AutoModelForCausalLM

    _, found = AutoModelForCausalLM.from_pretrained(
        base,
        device_map={"": "meta"},
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        local_files_only=True,
    )
    # of another size: each with both shapes behind its name
    wrong = {name for name, *_ in found["mismatched_keys"]}
    for names, fault in (
        (set(found["missing_keys"]) - wrong, "missing"),
        (wrong, "of another size than config.json has it"),
        (set(found["unexpected_keys"]), "unknown to its architecture"),
    ):
        if names:
            raise SentinelTripped(
                f"sentinel base_tensors: {len(names)} tensors of the base model are {fault}",
                why=", ".join(sorted(names)[:5]),
                todo="Fetch the base anew; its files are not those of one model.",
            )
