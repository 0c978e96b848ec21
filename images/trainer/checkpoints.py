"""Which checkpoint a killed training can go on from.

transformers writes a checkpoint file by file, so a kill leaves a partial one, and resuming from
that fails. A whole one resumes bit by bit as if nothing had happened.
"""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_TORCH_FILES = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")
"""Each process writes a `rng_state` of its own; all of them are there before trainer_state.json."""
_log = logging.getLogger(__name__)


def newest_whole(folder: Path) -> Path | None:
    """Return the last checkpoint below `folder` that is whole; remove the partial ones after it.

    One whose best checkpoint until then is damaged or gone is no better than a partial one: what is
    published in the end is the best, and a training that goes on may not come by it again. What is
    removed is named on stderr.
    """
    steps = {
        step: path for path in folder.glob("checkpoint-*") if (step := _step(path)) is not None
    }
    for step in sorted(steps, reverse=True):
        if fault := fault_of(steps[step]) or _fault_of_best(steps[step]):
            _log.warning("%s is not whole and is removed: %s", steps[step].name, fault)
            shutil.rmtree(steps[step])
        else:
            return steps[step]
    return None


def fault_of(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, None for a whole one. Reads every file once."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        if state["global_step"] != _step(checkpoint):
            return f"trainer_state.json is of step {state['global_step']}"
        json.loads((checkpoint / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        with safe_open(checkpoint / ADAPTER, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # safe_open is no mapping
                tensors.get_tensor(name)
        for pattern in _TORCH_FILES:
            # Without a match the pattern stands for the file that is missing.
            for path in list(checkpoint.glob(pattern)) or [checkpoint / pattern]:
                with zipfile.ZipFile(path) as archive:  # torch.save writes a zip
                    if damaged := archive.testzip():
                        return f"{path.name}: {damaged} is damaged"
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, zipfile.BadZipFile) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _fault_of_best(checkpoint: Path) -> str | None:
    """Return what is wrong with the best checkpoint that a whole one names."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    best = state.get("best_global_step")
    if not best or best == _step(checkpoint):
        return None
    fault = fault_of(checkpoint.with_name(f"checkpoint-{best}"))
    return f"the best one, checkpoint-{best}, is not whole: {fault}" if fault else None


def _step(path: Path) -> int | None:
    suffix = path.name.removeprefix("checkpoint-")
    return int(suffix) if suffix.isdecimal() else None
