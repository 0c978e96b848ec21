"""Two processes train as one does: the same losses, the same adapter, from any checkpoint."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from contracts import files
from contracts.errors import StageKilled
from contracts.stage import Event
from contracts.stages import TRAIN
from images.trainer import ranks
from images.trainer.supervisor import supervise
from tests.unit.model_stages import TRAINING, folder_of, rows, run, workspace

STEPS = {**TRAINING, "batch_size": 8, "max_steps": 8}
"""Two rows at once, so that they are packed, and two or four times a step."""
DATA_PARALLEL = {**STEPS, "processes": 2}
DIVIDED = {**DATA_PARALLEL, "sharding": "fsdp"}


class Stopped(BaseException):
    """Stands for the end of the whole stage: nothing in it may catch it."""


def prepared(root: Path, base: Path) -> dict[str, Path]:
    """Return inputs with a prompt in common and answers of very different length.

    Of the rows to validate on, there are too few for the second process's last turn.
    """
    train = rows(10)
    for number, row in enumerate(train):
        row["messages"][0]["content"] *= 3
        row["messages"][-1]["content"] += " und" * (number % 4) * 5
    inputs = workspace(root, base, train)
    files.write_jsonl(inputs["validation_split"], train[:5])
    return inputs


def ranks_of(parent: int) -> dict[int, int]:
    """Return the processes that one has started to train, by their number."""
    found = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = each.read_text(encoding="utf-8").rpartition(")")[2].split()
            environ = (each.parent / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if int(fields[1]) == parent and fields[0] != "Z" and b"WORLD_SIZE=2" in environ:
            number = next(word for word in environ if word.startswith(b"RANK="))
            found[int(number.removeprefix(b"RANK="))] = int(each.parent.name)
    return found


def at_step(step: int, act: Callable[[], None]) -> Callable[[Event], None]:
    done: list[float] = []

    def emit(event: Event) -> None:
        if event.done == step and step not in done:
            done.append(step)
            act()

    return emit


def result(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    out = folder_of(root, TRAIN) / "out"
    log = json.loads((out / "training_log.json").read_text(encoding="utf-8"))
    return log, load_file(out / "lora_adapter" / "adapter_model.safetensors")


def curve(log: dict[str, Any], name: str) -> dict[int, float]:
    return {point["step"]: point[name] for point in log["log"] if name in point}


@pytest.mark.slow
def test_two_processes_train_as_one_whatever_happens(
    tiny_base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(one, TRAIN, ranks.work, prepared(one, tiny_base), STEPS)
    inputs = prepared(two, tiny_base)
    checkpoints = folder_of(two, TRAIN) / "work" / "checkpoints"

    def kill_one() -> None:
        os.kill(ranks_of(os.getpid())[1], signal.SIGKILL)

    # From the start with a divided base; the second process is killed.
    with pytest.raises(StageKilled, match="rank 1 of 2 was killed"):
        run(two, TRAIN, ranks.work, inputs, DIVIDED, at_step(4, kill_one))
    assert ranks_of(os.getpid()) == {}
    assert {each.name for each in checkpoints.glob("checkpoint-*")} >= {"checkpoint-2"}
    assert "divided among 2, 10 rows, 8 steps, from" in capfd.readouterr().err

    def stop() -> None:
        raise Stopped

    # On from there, each with the whole base; all of it is stopped.
    with pytest.raises(Stopped):
        run(two, TRAIN, ranks.work, inputs, DATA_PARALLEL, at_step(7, stop))
    assert ranks_of(os.getpid()) == {}
    assert "divided" not in capfd.readouterr().err

    # And to the end from that checkpoint, divided again.
    steps: list[float] = []
    run(two, TRAIN, ranks.work, inputs, DIVIDED, lambda event: steps.append(event.done))
    assert min(step for step in steps if step) == 7

    (log, adapter), (other_log, other_adapter) = result(one), result(two)
    for name, points in (("loss", 8), ("eval_loss", 4), ("grad_norm", 8)):
        expected, got = curve(log, name), curve(other_log, name)
        assert len(expected) == points
        assert got == pytest.approx(expected, rel=1e-5)
    assert log["best_step"] == other_log["best_step"]
    metrics, other = log["metrics"], other_log["metrics"]
    for name in ("packed", "untrained_loss", "trained_tokens", "reference_positions"):
        assert metrics[name] == pytest.approx(other[name], rel=1e-5)
    assert metrics["packed"]
    assert other["held_drift"] < 1e-6, "the divided model is base and adapter"
    assert adapter.keys() == other_adapter.keys()
    for name, tensor in adapter.items():
        assert_close(other_adapter[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_see_the_rows_of_one_where_they_compute_fewer_at_once(
    tiny_base: Path, tmp_path: Path
) -> None:
    # One packs both rows of a step. Of two, each has one row, and nothing to pack.
    chosen = {**TRAINING, "batch_size": 2, "micro_batch_size": None, "eval_steps": 4}
    found = []
    for processes in (1, 2):
        root = tmp_path / str(processes)
        inputs = prepared(root, tiny_base)
        run(root, TRAIN, ranks.work, inputs, {**chosen, "processes": processes})
        found.append(result(root)[0])
    one, two = found
    assert (one["metrics"]["packed"], two["metrics"]["packed"]) == (True, False)
    assert curve(two, "loss") == pytest.approx(curve(one, "loss"), rel=1e-5)
    assert len(curve(one, "loss")) == 4
    assert two["metrics"]["validation_loss"] == pytest.approx(
        one["metrics"]["validation_loss"], rel=1e-4
    )


@pytest.mark.slow
def test_all_halve_the_rows_at_once_where_the_memory_of_one_is_too_small(
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = {**TRAINING, "batch_size": 8, "processes": 2}
    found = []
    for rows_at_once, command in ((2, None), (4, ["tests.unit.small_card", "2", "3"])):
        root = tmp_path / str(rows_at_once)
        inputs = workspace(root, tiny_base, rows(16))
        with monkeypatch.context() as patched:
            if command:
                patched.setattr(ranks, "supervise", _as(command))
            run(root, TRAIN, ranks.work, inputs, {**chosen, "micro_batch_size": rows_at_once})
        found.append(result(root))
    assert sum("all ranks start again" in record.getMessage() for record in caplog.records) == 1
    (log, adapter), (halved_log, halved_adapter) = found
    assert [each["metrics"]["micro_batch_size"] for each in (log, halved_log)] == [2, 2]
    for name, points in (("loss", 4), ("eval_loss", 2)):
        assert len(curve(log, name)) == points
        assert curve(halved_log, name) == pytest.approx(curve(log, name), rel=1e-4)
    for name, tensor in adapter.items():
        assert_close(halved_adapter[name], tensor, rtol=1e-3, atol=1e-4)


def _as(module: list[str]) -> Callable[..., None]:
    """Return a supervisor whose ranks are another module's processes."""

    def start(command: list[str], *others: Any) -> None:
        supervise([*command[:2], *module, *command[3:]], *others)

    return start
