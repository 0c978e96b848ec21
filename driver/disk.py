"""What a run writes, and whether there is room for it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from contracts import files, stages
from contracts.errors import DiskFull
from contracts.params.model import BITS, K_QUANTS
from contracts.stage import Stage
from serving import ollama_address

if TYPE_CHECKING:
    from driver.session import Session

_GB = 1_000_000_000
_HUB_BASE_GB = 29.5
"""Qwen3-14B in bf16: what a base model is taken for before it is fetched."""
_BF16_BITS = 16
_CHECKPOINTS = 0.06
"""Of the base model's size: three checkpoints of rank 16 with an 8-bit optimizer are 1.2 GB for
Qwen3-14B (64 million weights in fp32, and two bytes of state for each)."""
_ADAPTER = 0.01
"""Of the base model's size: an adapter of rank 16 in fp32 is 0.26 GB for Qwen3-14B."""
_MODELS = {
    stages.FETCH.name: "base model",
    stages.TRAIN.name: "checkpoints",
    stages.MERGE.name: "merged model",
    stages.CONVERT.name: "GGUF",
    stages.DEPLOY.name: "the engine's copy of the GGUF",
}
"""What a stage writes that is large."""
_SMALL_GB = 0.1
"""Items, labels, logs, reports and caches."""


def check_disk(session: Session, running: Sequence[Stage]) -> None:
    """Raise `DiskFull` when the workspace's disk cannot hold what the run will write."""
    free, needed_gb = free_gb(session.workspace), written_gb(session, running)
    if free < needed_gb:
        raise DiskFull(_lack(free, session.workspace, needed_gb), why=_written(session, running))


def check_engine_disk(session: Session, running: Sequence[Stage]) -> None:
    """Raise `DiskFull` when the disk of an Ollama on this host cannot take in the model that these
    stages create, if any does.

    Creating one takes up to three times the GGUF there for a while (as measured), of which the
    upload, one time, stays until Ollama is started anew. Where Ollama keeps its models is known of
    its usual places only; elsewhere, or where this user may not look, nothing is asked.
    """
    folder = _ollama_models(session)
    creates = stages.EVALUATE in running or stages.DEPLOY in running
    if folder is None or not creates or session.settings.min_free_gb is not None:
        return
    times, told = (2, "twice") if _is_uploaded(session, running, folder) else (3, "three times")
    free, needed_gb = free_gb(folder), times * _served_share(session) * _base_gb(session)
    if free < needed_gb:
        raise DiskFull(
            _lack(free, folder, needed_gb),
            why=f"Ollama keeps its models there, and making one takes {told} its size",
            todo="Free space, remove old models (`ollama rm`), restart Ollama, which removes old "
            "uploads that are no model, or move OLLAMA_MODELS.",
        )


def _is_uploaded(session: Session, running: Sequence[Stage], folder: Path) -> bool:
    """Return whether Ollama has the GGUF already: of an evaluation, or a run that was killed."""
    made = session.store.latest(stages.CONVERT.name)
    if made is None or stages.CONVERT in running:
        return False
    digest = made[1].outputs[stages.GGUF.name].digest
    return _reachable(folder / "blobs" / f"sha256-{digest}")


def _lack(free: float, where: Path, needed: float) -> str:
    """Say how much is free and needed (both in GB), rounded so that it is never one figure."""
    if needed < 1:
        less, more = f"{math.floor(free * 1e3)} MB", f"{math.ceil(round(needed * 1e3, 6))} MB"
    else:
        less = f"{math.floor(free * 10) / 10:.1f} GB"
        more = f"{math.ceil(round(needed * 10, 6)) / 10:.1f} GB"
    return f"{less} are free at {where}, {more} are needed"


def _written(session: Session, running: Sequence[Stage]) -> str:
    """Say why the run needs that much: what those of its stages write that write models."""
    if session.settings.min_free_gb is not None:
        return "min_free_gb demands it"
    models = [_MODELS[stage.name] for stage in running if _shares(session).get(stage.name)]
    if not models:
        return "answers, logs, the report and caches will lie there"
    *most, last = models
    told = f"{', '.join(most)} and {last}" if most else last
    return f"{told} will lie there{' at the same time' if most else ''}"


def _ollama_models(session: Session) -> Path | None:
    """Return where the Ollama of this host keeps its models, None where that is not known."""
    if session.settings.engine != "ollama":
        return None
    host = urlsplit(ollama_address(os.environ.get("OLLAMA_HOST", ""))).hostname
    if host not in {"127.0.0.1", "localhost", "::1"}:
        return None
    named = os.environ.get("OLLAMA_MODELS")
    usual = ("/usr/share/ollama/.ollama/models", "~/.ollama/models")
    places = [Path(place).expanduser() for place in ([named] if named else usual)]
    return next((place for place in places if _reachable(place)), None)


def _reachable(path: Path) -> bool:
    """Return whether something is there; not so in a folder that is closed to this user."""
    try:
        return path.exists()
    except PermissionError:
        return False


def written_gb(session: Session, running: Sequence[Stage]) -> float:
    """Return what the run may write, in GB, from the base model's size.

    bf16 merged is as large as the base, q8_0 is 8.5 of 16 bits a weight, a k-quant is made from a
    GGUF in bf16, a downloaded base comes on top. Ollama's models may be on another disk: see
    `check_engine_disk`.
    """
    if session.settings.min_free_gb is not None:
        return session.settings.min_free_gb
    shares = _shares(session)
    written = sum(shares.get(stage.name, 0.0) for stage in running)
    return _base_gb(session) * written + (_SMALL_GB if running else 0)


def _shares(session: Session) -> dict[str, float]:
    """Return what each stage writes, to the size of the base in bf16."""
    adapter = session.settings.deploy.form == "adapter"
    types = set(session.settings.gguf.outtype)
    if types & set(K_QUANTS):
        types.add("bf16")
    copied = session.settings.engine == "llamacpp"  # which keeps its own copy here
    return {
        stages.FETCH.name: 0.0 if session.settings.fetch.path else 1.0,
        stages.TRAIN.name: _CHECKPOINTS,
        stages.MERGE.name: 1.0,
        stages.CONVERT.name: _ADAPTER if adapter else sum(BITS[t] for t in types) / _BF16_BITS,
        stages.DEPLOY.name: _served_share(session) if copied else 0.0,
    }


def _served_share(session: Session) -> float:
    """Return the size of the GGUF that is served, to that of the base in bf16."""
    if session.settings.deploy.form == "adapter":
        return _ADAPTER
    return BITS[session.settings.gguf.outtype[0]] / _BF16_BITS


def _base_gb(session: Session) -> float:
    path = session.settings.fetch.path
    return files.size_of(Path(path)) / _GB if path and Path(path).is_dir() else _HUB_BASE_GB


def existing(path: Path) -> Path:
    """Return the nearest folder that exists: the workspace itself may be still to come."""
    while not path.exists():
        path = path.parent
    return path


def free_gb(path: Path) -> float:
    """Return what is free where a folder lies, or will lie."""
    return shutil.disk_usage(existing(path)).free / _GB
