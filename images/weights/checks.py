"""What has to hold of base, adapter and their merge, whichever way it is made."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.base_model import Stored, check_base
from contracts.errors import SentinelTripped
from contracts.safetensors_header import Entry
from images.weights.adapter_config import read_config
from images.weights.lora import (
    NotCovered,
    Update,
    plan_updates,
    touched_modules,
    without_effect,
)
from images.weights.model_files import base_config
from images.weights.shards import FLOATS, by_name, model_shards

BASE_BY_DIGEST = "base@sha256:"
"""What the trainer writes in front of the digest of its base, as the adapter's base model."""

REPORT = "Keep the adapter, and report it."
TRAIN_ANEW = "Train again: look at train.learning_rate and the number of steps."

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A base and an adapter that may be merged."""

    adapter: Path
    config: dict[str, Any]
    """The base's config.json."""
    shards: dict[str, list[Entry]]
    """The base's tensors by file."""
    touched: set[str]
    """The modules that the adapter has something for."""

    @property
    def tensors(self) -> dict[str, Entry]:
        """Return the base's tensors by name."""
        return by_name(self.shards)

    def updates(self) -> dict[str, Update]:
        """Return what the adapter does to each tensor; raise `NotCovered` for PEFT's part."""
        tensors = self.tensors
        for entry in tensors.values():
            if entry.dtype not in FLOATS:
                raise NotCovered(f"{entry.name} is {entry.dtype} in the base")
        return plan_updates(self.adapter, tensors, self.config)


def check_pair(base: Path, adapter: Path, digest: str) -> Pair:
    """Return base and adapter as far as a merge has to know them; `digest` is the base's.

    Raises `BaseModelMissing`, and `SentinelTripped` for a base that is quantised or has a head that
    it should not have, an adapter of another base, and one that holds nothing, NaN or infinity.
    """
    config, shards = base_config(base), model_shards(base)
    stored = stored_tensors(base, shards)
    check_base(config, stored)
    check_commit(adapter, digest)
    return Pair(adapter, config, shards, touched_modules(adapter, stored))


def stored_tensors(base: Path, shards: Mapping[str, Sequence[Entry]]) -> dict[str, Stored]:
    """Return the tensors of `model_shards` by name, with their places in the folder's files."""
    return {
        entry.name: Stored(entry.dtype, entry.shape, base / file, entry.begin, entry.end)
        for file, entries in shards.items()
        for entry in entries
    }


def check_commit(adapter: Path, digest: str) -> None:
    """Raise if the adapter names the base that it was trained on, and it is not this one."""
    trained_on = str(read_config(adapter).get("base_model_name_or_path") or "")
    if not trained_on.startswith(BASE_BY_DIGEST):
        _log.warning("the adapter does not say by digest what base it was trained on")
    elif trained_on != BASE_BY_DIGEST + digest:
        raise SentinelTripped(
            "sentinel base_commit: the adapter was trained on another base model",
            why=f"on {trained_on}, and this is {BASE_BY_DIGEST}{digest}",
            todo="Train again on this base, or merge into the one that it was trained on.",
        )


def check_changed(changed: set[str], pair: Pair) -> None:
    """Raise unless there are changes, and only in modules that the adapter has something for."""
    touched = pair.touched
    of_adapter = {
        name: module for name in changed for module in _and_parents(name) if module in touched
    }
    if stray := changed - set(of_adapter):
        raise SentinelTripped(
            "sentinel untouched_tensors: tensors without a LoRA have changed",
            why=", ".join(sorted(stray)[:5]),
            todo=REPORT,
        )
    if not changed:
        raise SentinelTripped(
            "sentinel weights_changed: the merge has changed no weight",
            why="the adapter's update is zero, or below one rounding everywhere",
            todo=TRAIN_ANEW,
        )
    if same := touched - set(of_adapter.values()):
        zero = without_effect(pair.adapter, same)
        for modules, reason in (
            (zero, "A or B of their LoRA is zero throughout"),
            (same - zero, "their update is below one rounding"),
        ):
            if modules:
                _log.warning("%d modules are unchanged: %s", len(modules), reason)


def _and_parents(name: str) -> list[str]:
    """Return a dotted name, and all that it lies in."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
