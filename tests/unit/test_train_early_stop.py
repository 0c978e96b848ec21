"""Early stop: when, what is kept, and that a kill changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.stage import Event
from contracts.stages import TRAIN
from images.trainer import train
from tests.unit.model_stages import TRAINING, folder_of, rows, run, workspace

# A learning rate that overshoots: the validation loss falls, and then rises.
OVERSHOOTING = {
    **TRAINING,
    "learning_rate": 0.1,
    "max_steps": 12,
    "eval_steps": 1,
    "patience": 2,
}


class Killed(BaseException):
    """Stands for a kill: nothing in the stage may catch it."""


def ignore(_event: Event) -> None:
    """Take an event and do nothing."""


def state(*losses: float, step: int = 5) -> Any:
    log = [{"eval_loss": loss} for loss in losses]
    return SimpleNamespace(global_step=step, log_history=[{"loss": 1.0}, *log])


@pytest.mark.parametrize(
    ("losses", "count"),
    [((), 0), ((2.0,), 0), ((2.0, 1.0), 0), ((1.0, 2.0), 1), ((2.0, 1.0, 1.0, 1.5), 2)],
)
def test_evaluations_without_improvement_are_counted(losses: tuple[float, ...], count: int) -> None:
    from images.trainer.early_stop import is_over, without_improvement

    assert without_improvement(state(*losses)) == count
    assert is_over(state(*losses), steps=10, patience=2) is (count >= 2)
    assert not is_over(state(*losses), steps=10, patience=0)
    assert is_over(state(*losses), steps=5, patience=0)


@pytest.fixture(scope="module")
def stopped(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the stage's folder after a training that stopped early."""
    root = tmp_path_factory.mktemp("stopped")
    run(root, TRAIN, train.work, workspace(root, tiny_base, rows(10)), OVERSHOOTING)
    return folder_of(root, TRAIN)


def log_of(folder: Path) -> Any:
    return json.loads((folder / "out" / "training_log.json").read_text(encoding="utf-8"))


def adapter_of(folder: Path) -> bytes:
    return (folder / "out" / "lora_adapter" / "adapter_model.safetensors").read_bytes()


def test_training_ends_when_patience_does_and_keeps_the_best(stopped: Path) -> None:
    log = log_of(stopped)
    losses = [point["eval_loss"] for point in log["log"] if "eval_loss" in point]
    best = losses.index(min(losses))
    assert log["stopped_early"]
    assert len(losses) == log["metrics"]["steps"] == best + 3 < 12
    assert log["best_step"] == best + 1
    best_checkpoint = stopped / "work" / "checkpoints" / f"checkpoint-{best + 1}"
    kept = (best_checkpoint / "adapter_model.safetensors").read_bytes()
    assert adapter_of(stopped) == kept


@pytest.mark.parametrize(
    "moment", ["in the last step", "after the last checkpoint", "and the best one is damaged"]
)
def test_a_kill_does_not_change_when_it_stops(
    stopped: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    steps = log_of(stopped)["metrics"]["steps"]
    inputs = workspace(tmp_path, tiny_base, rows(10))

    def kill(event: Event) -> None:
        if event.done == steps:
            raise Killed

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if moment != "in the last step":
            patch.setattr(train, "_publish_adapter", killed)
        emit = kill if moment == "in the last step" else ignore
        with pytest.raises(Killed):
            run(tmp_path, TRAIN, train.work, inputs, OVERSHOOTING, emit)
    if moment == "and the best one is damaged":
        best = f"work/checkpoints/checkpoint-{log_of(stopped)['best_step']}"
        (folder_of(tmp_path, TRAIN) / best / "adapter_config.json").write_text("")
    run(tmp_path, TRAIN, train.work, inputs, OVERSHOOTING)

    resumed = folder_of(tmp_path, TRAIN)
    assert log_of(resumed)["metrics"]["steps"] == steps
    assert adapter_of(resumed) == adapter_of(stopped)
