"""The supervisor of several training processes: what it passes on, and that nobody is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import GpuUnavailable, OutOfMemory, SettingsInvalid, StageFailed, StageKilled
from contracts.params import TrainParams
from contracts.stage import Event
from contracts.stages import TRAIN
from contracts.vram import Shape, Training
from images.trainer import batching, ranks
from images.trainer.order import micro_batches, training_order
from images.trainer.sharding import divides
from images.trainer.supervisor import supervise as run_ranks
from images.trainer.world import World
from tests.unit.model_stages import TRAINING, job, rows, run, workspace

CUDA = {"device": "cuda", "backend": "transformers", "load_in": "bf16"}


def supervise(script: str, size: int = 2) -> list[Event]:
    """Run `script` as each rank; `rank` is its number there."""
    head = "import os, sys, time, signal\nrank = int(os.environ['RANK'])\n"
    command = [sys.executable, "-S", "-c", head + textwrap.dedent(script)]
    events: list[Event] = []
    run_ranks(command, [{"RANK": str(number)} for number in range(size)], events.append)
    return events


def is_gone(pid: int) -> bool:
    """Return whether a process has ended within some seconds; a zombie has."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state.split()[0] in "ZX":
            return True
        time.sleep(0.1)
    return False


def test_the_first_reports_and_all_may_speak(capfd: pytest.CaptureFixture[str]) -> None:
    events = supervise(
        """
        print(f'{{"stage": "train", "done": {rank + 1}}}')
        print("hello", file=sys.stderr)
        sys.stderr.write("no end of line")
        """
    )
    assert [event.done for event in events] == [1]
    err = capfd.readouterr().err
    assert {"[rank 0] hello", "[rank 1] hello", "[rank 1] no end of line"} <= set(err.split("\n"))


def test_a_named_error_counts_before_what_it_does_to_others(tmp_path: Path) -> None:
    script = f"""
    open("{tmp_path}/" + str(os.getpid()), "w").close()
    if rank == 0:
        sys.exit("connection closed")
    if rank == 1:
        time.sleep(0.5)
        error = '{{"what": "no room", "why": "24 GB", "todo": "less"}}'
        print('{{"stage": "train", "error": ' + error + '}}')
        sys.exit(23)
    time.sleep(60)
    """
    with pytest.raises(OutOfMemory, match="rank 1 of 3: no room") as caught:
        supervise(script, size=3)
    assert (caught.value.why, caught.value.todo) == ("24 GB", "less")
    assert all(is_gone(int(each.name)) for each in tmp_path.iterdir())


def test_a_killed_rank_is_named_and_ends_the_others(tmp_path: Path) -> None:
    script = f"""
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    open("{tmp_path}/" + str(os.getpid()), "w").close()
    time.sleep(60)
    """
    with pytest.raises(StageKilled, match="rank 1 of 2 was killed") as caught:
        supervise(script)
    assert "SIGKILL" in caught.value.why
    assert all(is_gone(int(each.name)) for each in tmp_path.iterdir())


def test_an_unnamed_failure_shows_the_last_words() -> None:
    with pytest.raises(StageFailed, match="rank 0 of 1 failed with exit code 1") as caught:
        supervise("sys.exit('something broke')", size=1)
    assert caught.value.why == "something broke"


def test_an_error_while_listening_leaves_nobody(tmp_path: Path) -> None:
    script = f"""
    open("{tmp_path}/" + str(os.getpid()), "w").close()
    print('{{"stage": "train"}}', flush=True)
    time.sleep(60)
    """

    def broken(_event: Event) -> None:
        raise BrokenPipeError("the driver is gone")

    command = [sys.executable, "-S", "-c", "import os, time\n" + textwrap.dedent(script)]
    with pytest.raises(BrokenPipeError):
        run_ranks(command, [{}, {}], broken)
    assert all(is_gone(int(each.name)) for each in tmp_path.iterdir())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_rank_outlives_its_supervisor(tmp_path: Path, how: signal.Signals) -> None:
    script = f"import os, time; open('{tmp_path}/' + str(os.getpid()), 'w'); time.sleep(60)"
    # Whoever starts the tests in the background lets them ignore SIGINT, and so their children.
    supervisor = f"""
import signal, sys
from images.trainer.supervisor import supervise
signal.signal(signal.SIGINT, signal.default_int_handler)
supervise([sys.executable, "-S", "-c", {script!r}], [{{}}, {{}}], print)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", supervisor], env={**os.environ, "PYTHONPATH": str(files.ROOT)}
    )
    while len(pids := list(tmp_path.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    assert process.wait(20) != 0
    assert all(is_gone(int(each.name)) for each in pids)


def test_a_step_is_dealt_out_evenly_and_stays_the_same_rows() -> None:
    lengths = [10 + (7 * i) % 90 for i in range(64)]
    order = training_order(lengths, steps=4, batch_size=16, seed=1)
    alone, shared = (
        micro_batches(order, lengths, batch_size=16, micro_batch_size=2, processes=processes)
        for processes in (1, 2)
    )

    def forward_passes(rows: list[int]) -> list[tuple[int, ...]]:
        return [tuple(rows[i : i + 2]) for i in range(0, len(rows), 2)]

    for start in range(0, 64, 16):
        before, after = (forward_passes(rows[start : start + 16]) for rows in (alone, shared))
        assert sorted(before) == sorted(after)
        tokens = [
            sum(lengths[row] for rows in after[process::2] for row in rows) for process in (0, 1)
        ]
        assert max(tokens) - min(tokens) <= 40, "a micro-batch has 120 tokens in the mean"


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"processes": 3}, "must divide batch_size"),
        ({"processes": 2, "backend": "unsloth"}, "backend=unsloth is for one process"),
        ({"sharding": "fsdp", "load_in": "8bit"}, "needs load_in=bf16"),
        ({"sharding": "fsdp", "load_in": "4bit"}, "needs load_in=bf16"),
        ({"sharding": "fsdp", "backend": "unsloth", "load_in": "bf16"}, "unsloth"),
        ({"sharding": "fsdp", "load_in": "bf16", "processes": 1}, "and there is one"),
        ({"sharding": "fsdp", "load_in": "bf16", "device": "cpu"}, "and there is one"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        TrainParams(batch_size=4, micro_batch_size=1, **settings)


def test_one_process_for_each_gpu_that_training_sees() -> None:
    params = TrainParams(batch_size=4, micro_batch_size=1)
    assert [params.processes_on(gpus) for gpus in (1, 2, 4)] == [1, 2, 4]
    assert params.model_copy(update={"processes": 2}).processes_on(4) == 2
    assert params.model_copy(update={"device": "cpu"}).processes_on(0) == 1
    assert params.model_copy(update={"backend": "unsloth"}).processes_on(4) == 1
    with pytest.raises(SettingsInvalid, match="3 processes cannot share a batch of 4 rows"):
        params.processes_on(3)
    with pytest.raises(GpuUnavailable, match="sees 1 GPUs"):
        params.model_copy(update={"processes": 2}).processes_on(1)


@pytest.mark.parametrize(
    ("settings", "size", "divided"),
    [
        ({}, 2, True),
        ({"load_in": "8bit"}, 2, False),
        ({"sharding": "none"}, 2, False),
        ({}, 1, False),
        ({"device": "cpu"}, 2, False),
        ({"device": "cpu", "sharding": "fsdp", "processes": 2}, 2, True),
    ],
)
def test_a_base_is_divided_where_the_smallest_card_cannot_hold_it(
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    size: int,
    divided: bool,
) -> None:
    """The cards are doubles: there are none here."""
    import torch

    params = TrainParams(**{**CUDA, **settings})
    needed = Training.of(params, Shape.read(tiny_base), rows=1, length=200).memory().total
    sizes = [int(needed * share * 2**20) for share in (5, 1)]
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(total_memory=sizes[index]),
    )
    assert divides(params, tiny_base, World(0, size), longest=200) is divided


def test_one_process_divides_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="there is one"):
        divides(TrainParams(**CUDA, sharding="fsdp"), tmp_path, World(), longest=1)


@pytest.mark.parametrize(
    ("records", "tries"),
    [
        ([None], 1),  # not one row fits, by estimate
        ([(4, 4)], 1),  # the base alone is too much
        ([(4, 2), (4, 1), (4, 1)], 3),
    ],
)
def test_all_ranks_start_again_as_long_as_one_has_lowered_its_rows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    records: list[tuple[int, int] | None],
    tries: int,
) -> None:
    """The ranks are doubles that run out of memory each time."""
    params = TrainParams(**TRAINING)
    context = StageContext(
        TRAIN, job(tmp_path, TRAIN, {}, TRAINING), params, tmp_path, tmp_path, print
    )
    done: list[int] = []

    def out_of_memory(_context: StageContext[TrainParams], size: int) -> None:
        if record := records[len(done)]:
            batching._record(context.work, *record)
        done.append(size)
        raise OutOfMemory("no room")

    monkeypatch.setattr(ranks, "_run", out_of_memory)
    with pytest.raises(OutOfMemory, match="no room"):
        ranks._spread(context, 2)
    assert done == [2] * tries


def test_a_place_that_a_cluster_gave_is_not_a_rank_s(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    inputs = workspace(tmp_path, tiny_base, rows(4))
    metrics = run(tmp_path, TRAIN, ranks.work, inputs, {**TRAINING, "max_steps": 2}).metrics
    assert metrics["steps"] == 2
