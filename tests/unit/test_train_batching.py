"""Rows at once: chosen to fit, kept over restarts, halved when the card has no room."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from contracts import files
from contracts.errors import OutOfMemory
from contracts.params import TrainParams
from contracts.stage import Event, Result
from contracts.stages import TRAIN
from images.trainer import batching, sft, train
from images.trainer.loss import CHUNK_TOKENS, answer_loss
from tests.unit.model_stages import TRAINING, folder_of, job, rows, run, workspace
from tests.unit.small_card import SmallCard

SETTINGS = {**TRAINING, "micro_batch_size": 4}
"""Four rows a step and at once, four steps, a checkpoint after the second and the last."""


class Restarted(BaseException):
    """Stands for a process that another one takes the place of."""


def adapter(root: Path) -> dict[str, torch.Tensor]:
    path = folder_of(root, TRAIN) / "out" / "lora_adapter" / "adapter_model.safetensors"
    loaded: dict[str, torch.Tensor] = load_file(path)
    return loaded


def recorded(root: Path) -> tuple[int, int] | None:
    return batching.recorded(folder_of(root, TRAIN) / "work")


def validation_losses(root: Path) -> list[float]:
    log = json.loads((folder_of(root, TRAIN) / "out" / "training_log.json").read_text())
    return [point["eval_loss"] for point in log["log"] if "eval_loss" in point]


@pytest.fixture(scope="module")
def undisturbed(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return a training on a large card, and the rows that it has seen."""
    root = tmp_path_factory.mktemp("undisturbed")
    card = SmallCard(rows=4, step=0, compute=answer_loss)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "answer_loss", card)
        run(root, TRAIN, train.work, workspace(root, tiny_base, rows(10)), SETTINGS)
    assert len(card.seen) == 16
    return root, card.seen


@pytest.mark.slow
def test_out_of_memory_halves_the_rows_at_once_and_nothing_else(
    undisturbed: tuple[Path, Any], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = undisturbed
    inputs = workspace(tmp_path, tiny_base, rows(10))
    card = SmallCard(rows=1, step=3, compute=answer_loss)
    monkeypatch.setattr(sft, "answer_loss", card)

    def restart() -> None:
        raise Restarted

    monkeypatch.setattr(batching, "restart", restart)
    events: list[Event] = []

    def process() -> Result:
        return run(tmp_path, TRAIN, train.work, inputs, SETTINGS, events.append)

    with pytest.raises(Restarted):
        process()  # three steps of four rows at once
    assert recorded(tmp_path) == (4, 2)
    assert card.seen == expected[:12]

    card.seen = expected[:8]  # what the checkpoint of step 2 has seen
    card.step = 0  # and no room for two rows either
    with pytest.raises(Restarted):
        process()
    assert recorded(tmp_path) == (4, 1)

    result = process()

    seen = [sorted(card.seen[at : at + 4]) for at in range(0, 16, 4)]
    assert seen == [sorted(expected[at : at + 4]) for at in range(0, 16, 4)]
    assert (result.metrics["micro_batch_size"], result.metrics["steps"]) == (1, 4)
    assert [event.done for event in events if event.done][-1] == 4
    assert validation_losses(tmp_path) == pytest.approx(validation_losses(whole), rel=1e-4)
    for name, tensor in adapter(tmp_path).items():
        torch.testing.assert_close(tensor, adapter(whole)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_process_really_begins_anew_and_publishes_the_same(
    undisturbed: tuple[Path, Any], tiny_base: Path, tmp_path: Path
) -> None:
    whole, _ = undisturbed
    inputs = workspace(tmp_path, tiny_base, rows(10))
    given = job(tmp_path, TRAIN, inputs, SETTINGS)
    given = given.model_copy(update={"code_digest": files.code_digest(*TRAIN.code)})
    path = folder_of(tmp_path, TRAIN) / "job.json"
    files.write_json(path, given.model_dump(mode="json"))

    command = [sys.executable, "-m", "tests.unit.small_card", "2", "3", str(path)]
    with subprocess.Popen(
        command, cwd=files.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        stdout, stderr = process.communicate(timeout=900)

    assert process.returncode == 0, stderr
    assert stderr.count("going on with micro-batch 2") == 1
    assert "4 steps, from step 2" in stderr
    events = [Event.model_validate_json(line) for line in stdout.splitlines()]
    assert [event.done for event in events if event.done == 3], "both wrote to the same stdout"
    assert recorded(tmp_path) == (4, 2)
    result = Result.model_validate_json((path.parent / "result.json").read_text())
    assert result.metrics["micro_batch_size"] == 2
    for name, tensor in adapter(tmp_path).items():
        torch.testing.assert_close(tensor, adapter(whole)[name], rtol=1e-3, atol=1e-4)


def test_one_row_that_does_not_fit_is_a_named_error(tiny_base: Path, tmp_path: Path) -> None:
    params = TrainParams(**{**SETTINGS, "micro_batch_size": 1, "device": "cuda", "load_in": "8bit"})
    settled = batching.settle(tmp_path, params, tiny_base, longest=2048)
    with pytest.raises(OutOfMemory, match="one row at once") as caught, settled.computing():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nof much")
    assert caught.value.why == "CUDA out of memory. Tried to allocate 2 GiB"
    assert "train.load_in=4bit (saves about" in caught.value.todo
    assert "train.max_length=1024 (saves about" in caught.value.todo


def test_a_base_that_does_not_fit_is_not_tried_with_fewer_rows(
    tiny_base: Path, tmp_path: Path
) -> None:
    settled = batching.settle(tmp_path, TrainParams(**SETTINGS), tiny_base, longest=100)
    with pytest.raises(OutOfMemory, match="loading the base"), settled.loading():
        raise RuntimeError("CUDA error: out of memory")
    assert batching.recorded(tmp_path) == (4, 4)
    with pytest.raises(RuntimeError, match="shapes"), settled.computing():
        raise RuntimeError("shapes cannot be multiplied")


def test_one_of_several_processes_leaves_the_restart_to_their_parent(
    tiny_base: Path, tmp_path: Path
) -> None:
    params = TrainParams(**{**SETTINGS, "micro_batch_size": None})
    settled = batching.settle(tmp_path, params, tiny_base, longest=100, processes=2)
    assert batching.recorded(tmp_path) == (2, 2), "a step of four rows is shared by two"
    with pytest.raises(OutOfMemory, match="next try is with micro-batch 1"), settled.computing():
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert batching.recorded(tmp_path) == (2, 1)


def test_what_was_chosen_once_is_kept(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = TrainParams(**{**SETTINGS, "micro_batch_size": None})
    first = batching.settle(tmp_path, params, tiny_base, longest=100)
    assert (first.chosen, first.params.micro_batch_size) == (4, 4), "this machine has room"
    monkeypatch.setattr(batching, "free_mib", lambda _device, _processes: 0)
    assert batching.settle(tmp_path, params, tiny_base, longest=100) == first
    with pytest.raises(OutOfMemory, match="does not fit"):
        batching.settle(tmp_path / "new", params, tiny_base, longest=100)


def test_an_unknown_shape_means_one_row_at_once(tmp_path: Path) -> None:
    files.write_json(tmp_path / "config.json", {"n_embd": 768})
    params = TrainParams(**{**SETTINGS, "micro_batch_size": None})
    settled = batching.settle(tmp_path, params, tmp_path, longest=100)
    assert (settled.params.micro_batch_size, settled.training) == (1, None)


@pytest.mark.parametrize(
    ("setting", "device", "on"),
    [("auto", "cpu", False), ("auto", "cuda", True), ("on", "cpu", True), ("off", "cuda", False)],
)
def test_checkpointing_is_as_set(setting: str, device: str, on: bool, tmp_path: Path) -> None:
    params = TrainParams(**{**SETTINGS, "gradient_checkpointing": setting, "device": device})
    assert params.checkpointing is on
    if device == "cpu":
        config = sft.config("transformers", params, steps=4, folder=tmp_path)
        assert config.gradient_checkpointing is on


@pytest.mark.parametrize("load_in", ["8bit", "4bit", "bf16", "fp32"])
def test_the_optimizer_has_8_bits_on_cuda_whatever_the_base_is_in(load_in: str) -> None:
    on_cuda = TrainParams(**{**SETTINGS, "device": "cuda", "load_in": load_in})
    assert sft.optimizer(on_cuda, divided=False) == "adamw_8bit"
    assert sft.optimizer(on_cuda, divided=True) == "adamw_torch"
    on_cpu = on_cuda.model_copy(update={"device": "cpu"})
    assert sft.optimizer(on_cpu, divided=False) == "adamw_torch"


def test_free_memory_is_within_the_machine_s() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    assert 0 < batching.free_mib("cpu") <= total


def test_pages_of_files_that_were_read_are_free_in_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of a container's control group, with 28 of its 32 MiB filled by reading the base."""
    (tmp_path / "memory.max").write_text(f"{32 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{30 << 20}\n")
    stat = f"anon {2 << 20}\nfile {28 << 20}\nactive_file {8 << 20}\ninactive_file {20 << 20}\n"
    (tmp_path / "memory.stat").write_text(stat)
    monkeypatch.setattr(batching, "_GROUP", tmp_path)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
    assert batching.free_mib("cpu") - resident == pytest.approx(30, abs=5)
    assert batching.free_mib("cpu", 3) - resident == pytest.approx(10, abs=5), "all share it"
    (tmp_path / "memory.max").write_text("max\n")
    assert batching.free_mib("cpu") > 100


def test_processes_on_a_cpu_do_not_count_on_the_same_memory(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = TrainParams(**{**SETTINGS, "micro_batch_size": None})
    asked: list[int] = []

    def free(_device: str, processes: int) -> int:
        asked.append(processes)
        return 1

    monkeypatch.setattr(batching, "free_mib", free)
    with pytest.raises(OutOfMemory, match="one of 2 processes' part of this machine's memory"):
        batching.settle(tmp_path, params, tiny_base, longest=100, processes=2)
    assert asked == [2]


def test_the_estimate_knows_the_loss_s_chunk() -> None:
    from contracts.vram import LOSS_CHUNK_TOKENS

    assert LOSS_CHUNK_TOKENS == CHUNK_TOKENS
