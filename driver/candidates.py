"""Candidates that an evaluation which was killed has left in the serving engine: 15 GB each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from contracts import candidate, stages
from contracts.entrypoint import JOB_FILE, RESULT_FILE
from contracts.errors import RetrainError
from driver.store import Store
from serving.engine import Engine


def drop(
    workspace: Path, engine: Engine, at_work: Callable[[], list[str]], say: Callable[[str], None]
) -> None:
    """Remove what evaluations of this workspace have left, unless one is `at_work` still.

    `at_work` returns the stages that run although no driver does; it is asked only if something is
    left. Another workspace's candidates stay: that one may be evaluating. Raises nothing, since a
    leftover costs disk, no more.
    """
    made = set(_made(workspace))
    if not made:
        return
    with suppress(RetrainError):
        left = sorted(made & engine.models().keys())
        if not left or stages.EVALUATE.name in at_work():
            return
        loaded = {model.tag for model in engine.loaded()}
        for tag in left:
            if tag in loaded:
                engine.unload(tag)
            engine.delete(tag)
            say(f"removed {tag} from {engine.name}, left by an evaluation that was killed")


def _made(workspace: Path) -> Iterator[str]:
    """Yield the candidates of those evaluations that have begun, and not ended well since."""
    store = Store(workspace)
    for place in (store.folder / stages.EVALUATE.name).glob("*"):
        with suppress(OSError, ValueError, KeyError):
            if not _has_ended(place):
                inputs = store.job(stages.EVALUATE.name, place.name).inputs
                yield candidate.tag(inputs[stages.GGUF.name])


def _has_ended(place: Path) -> bool:
    """Return whether an execution has left its result; a repetition writes its job anew first."""
    ended = place / RESULT_FILE
    return ended.exists() and ended.stat().st_mtime_ns >= (place / JOB_FILE).stat().st_mtime_ns
