"""The train stage on a tiny real model: what it is fed, what it leaves, and a kill."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import SentinelTripped
from contracts.params import (
    TrainParams,
)
from contracts.stage import Event
from contracts.stages import (
    TRAIN,
)
from images.trainer import train
from images.trainer.backends import load_model
from images.trainer.checkpoints import fault_of, newest_whole
from images.trainer.curve import loss_curve
from images.trainer.rows import encode
from tasks.chat import QWEN3
from tests.unit.model_stages import TRAINING, folder_of, rows, run, workspace


class Killed(BaseException):
    """Stands for a kill: nothing in the stage may catch it."""


def test_the_model_is_fed_exactly_the_rows(tiny_base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from images.trainer.sft import make_trainer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    wanted = [encode(row, tokenizer, QWEN3) for row in rows(8)]
    params = TrainParams(**TRAINING)
    trainer = make_trainer(
        "transformers",
        load_model("transformers", tiny_base, params),
        tokenizer,
        wanted,
        wanted[:2],
        params,
        tmp_path,
        lambda *_: None,
    )
    fed = []
    for batch in trainer.get_train_dataloader():
        assert batch["input_ids"].shape[0] == params.micro_batch_size
        for ids, labels, mask in zip(
            *(batch[n] for n in ("input_ids", "labels", "attention_mask")), strict=False
        ):
            fed.append(tokenizer.decode(ids[mask.bool()]))
            learnt = tokenizer.decode(labels[labels != -100])
            assert learnt.startswith("Antwort ")
            assert learnt.endswith("<|im_end|>")
            assert fed[-1].endswith(f"</think>\n\n{learnt}")
    assert fed == [tokenizer.decode(row.ids) for row in wanted]


@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    tiny_base: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    whole = tmp_path / "whole"
    inputs = workspace(whole, tiny_base, rows(10))
    result = run(whole, TRAIN, train.work, inputs, TRAINING, events.append)

    out = folder_of(whole, TRAIN) / "out"
    assert sorted(p.name for p in (out / "lora_adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = (out / "lora_adapter" / "adapter_config.json").read_text()
    assert str(tmp_path) not in config
    assert json.loads(config)["base_model_name_or_path"].startswith("base@sha256:")
    targets = json.loads(config)["target_modules"]
    assert targets == sorted(targets), "PEFT's set has another order in every process"
    log = json.loads((out / "training_log.json").read_text())
    assert [p["step"] for p in log["log"] if "eval_loss" in p] == [2, 4]
    assert log["params"]["rank"] == 16
    ET.fromstring((out / "loss_curve.svg").read_text())  # noqa: S314  # our own file
    assert (events[-1].done, events[-1].total, events[-1].unit) == (4, 4, "steps")
    assert {"loss", "validation_loss"} <= set(events[-1].metrics)
    assert result.metrics["rows"] == 10
    assert result.metrics["train_loss"] < log["log"][0]["loss"]

    killed = tmp_path / "killed"
    inputs = workspace(killed, tiny_base, rows(10))

    def kill_in_step_3(event: Event) -> None:
        if event.done == 3:
            raise Killed

    with pytest.raises(Killed):
        run(killed, TRAIN, train.work, inputs, TRAINING, kill_in_step_3)
    checkpoints = folder_of(killed, TRAIN) / "work" / "checkpoints"
    partial = checkpoints / "checkpoint-3"  # as if the kill had come while it was written
    shutil.copytree(checkpoints / "checkpoint-2", partial)
    (partial / "optimizer.pt").write_bytes((partial / "optimizer.pt").read_bytes()[:1000])

    steps: list[float] = []
    run(killed, TRAIN, train.work, inputs, TRAINING, lambda event: steps.append(event.done))

    assert min(steps) == 3
    assert not partial.exists()
    name = "out/lora_adapter/adapter_model.safetensors"
    resumed = (folder_of(killed, TRAIN) / name).read_bytes()
    assert resumed == (folder_of(whole, TRAIN) / name).read_bytes()


@pytest.mark.parametrize(
    "damage", ["trainer_state.json", "optimizer.pt", "rng_state.pth", "adapter_config.json"]
)
def test_partial_checkpoints_are_skipped(tmp_path: Path, damage: str) -> None:
    first, second = (whole_checkpoint(tmp_path, step) for step in (2, 10))
    assert fault_of(second) is None
    assert newest_whole(tmp_path) == second
    (second / damage).write_bytes((second / damage).read_bytes()[:-20])
    assert newest_whole(tmp_path) == first
    assert not second.exists()
    (first / "adapter_model.safetensors").unlink()
    assert newest_whole(tmp_path) is None


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_checkpoint_without_the_best_one_until_then_is_skipped(
    tmp_path: Path, damage: str
) -> None:
    first, best, last = (whole_checkpoint(tmp_path, step) for step in (2, 4, 6))
    state = {"global_step": 6, "best_global_step": 4}
    (last / "trainer_state.json").write_text(json.dumps(state))
    assert newest_whole(tmp_path) == last
    if damage == "gone":
        shutil.rmtree(best)
    else:
        adapter = best / "adapter_model.safetensors"
        adapter.write_bytes(adapter.read_bytes()[:-1])
    assert newest_whole(tmp_path) == first


def whole_checkpoint(folder: Path, step: int) -> Path:
    import torch
    from safetensors.torch import save_file

    path = folder / f"checkpoint-{step}"
    path.mkdir()
    save_file({"a": torch.ones(3)}, path / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"a": torch.ones(3)}, path / name)
    (path / "adapter_config.json").write_text(json.dumps({"r": 8, "more": "x" * 20}))
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "more": "x" * 20}))
    return path


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_training(loss: float) -> None:
    from types import SimpleNamespace

    from images.trainer.sft import Watch

    watch = Watch(lambda *_: None)
    with pytest.raises(SentinelTripped, match=r"finite_loss.*step 7"):
        watch.on_log(None, SimpleNamespace(global_step=7, max_steps=9), None, {"loss": loss})


@pytest.mark.parametrize(
    ("value", "sentinel"), [(0.0, "adapter_changed"), (float("nan"), "finite_adapter")]
)
def test_a_worthless_adapter_is_not_published(tmp_path: Path, value: float, sentinel: str) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"m.lora_A.weight": torch.ones(2, 2), "m.lora_B.weight": torch.full((2, 2), value)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(SentinelTripped, match=sentinel):
        train._publish_adapter(tmp_path, tmp_path / "out", base_digest="0")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "points", [[], [(1.0, 2.5)], [(1.0, 9.0), (40.0, 0.5), (41.0, float("nan"))]]
)
def test_the_curve_is_an_image_with_named_axes(points: list[tuple[float, float]]) -> None:
    svg: Any = ET.fromstring(loss_curve(points, points, title="A < B"))  # noqa: S314
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"training", "validation", "optimizer step"} <= set(texts)
    assert "nan" not in loss_curve(points, points, title="")
