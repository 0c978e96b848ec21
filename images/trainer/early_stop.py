"""When to stop early: the validation loss has not become lower for a while.

Everything follows from the log of the evaluations, which every checkpoint holds. So there is no
count that a kill could lose, and a resumed training stops where an unbroken one would have.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


def without_improvement(state: Any) -> int:
    """Return how many evaluations there were since the one of the lowest validation loss."""
    losses = [point["eval_loss"] for point in state.log_history if "eval_loss" in point]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def is_over(state: Any, *, steps: int, patience: int) -> bool:
    """Return whether a training that has come to `state` has nothing left to do."""
    return state.global_step >= steps or 0 < patience <= without_improvement(state)


class EarlyStop(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Stops the training after `patience` evaluations without improvement; 0: never."""

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for the end; this evaluation's checkpoint is written all the same."""
        if is_over(state, steps=state.max_steps, patience=self._patience):
            control.should_training_stop = True
