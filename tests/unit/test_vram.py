"""The estimate of a training's memory: against numbers by hand, and what torch holds."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import files, fit
from contracts.errors import OutOfMemory
from contracts.params import TrainParams
from contracts.vram import MIB, QWEN3_14B, Breakdown, LoadIn, Shape, Training, UnknownShape
from images.trainer.backends import load_model
from tests.unit.model_stages import TRAINING

PRODUCTION = Training.of(TrainParams(), QWEN3_14B, rows=1, length=2048)
CARD_24_GB = 24_576 - 400
"""What an RTX 3090 has free with nothing on it, about."""
SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
}
LOAD_IN: tuple[LoadIn, ...] = get_args(LoadIn)

shapes = st.builds(
    Shape,
    layers=st.integers(1, 80),
    hidden=st.integers(32, 8192),
    ffn=st.integers(32, 30_000),
    heads=st.integers(1, 64),
    kv_heads=st.integers(1, 16),
    head_dim=st.sampled_from([32, 64, 128]),
    vocabulary=st.integers(1000, 200_000),
    tied=st.booleans(),
)
trainings = st.builds(
    Training,
    shape=shapes,
    load_in=st.sampled_from(LOAD_IN),
    rank=st.integers(1, 256),
    cuda=st.booleans(),
    checkpointing=st.booleans(),
    rows=st.integers(1, 16),
    length=st.integers(64, 8192),
)


# --- by hand -------------------------------------------------------------------------------------
def test_the_weights_of_qwen3_14b() -> None:
    # q 5120·5120, k and v 5120·1024, o 5120·5120, three of 5120·17408
    projections = 40 * (2 * 26_214_400 + 2 * 5_242_880 + 3 * 89_128_960)
    assert QWEN3_14B.linear_weights == projections == 13_212_057_600
    # embedding and head 151936·5120; norms 5120 and 128 twice a layer; the last norm
    assert QWEN3_14B.other_weights == 2 * 777_912_320 + 40 * 10_496 + 5120
    outputs = 40 * (5120 + 1024 + 1024 + 5120 + 17408 + 17408 + 5120)
    expected = {
        "8bit": projections + 4 * outputs + 2 * QWEN3_14B.other_weights,
        "4bit": projections / 2 + projections / 64 * 4 + 2 * QWEN3_14B.other_weights,
        "bf16": 2 * (projections + QWEN3_14B.other_weights),
        "fp32": 4 * (projections + QWEN3_14B.other_weights),
    }
    for load_in in LOAD_IN:
        memory = replace(PRODUCTION, load_in=load_in).memory()
        assert memory.weights == pytest.approx(expected[load_in] / MIB)
    assert PRODUCTION.memory().weights == pytest.approx(15_576, abs=1)


def test_the_other_terms_of_the_production_setting() -> None:
    memory = PRODUCTION.memory()
    adapter = 16 * 40 * (4 * 10_240 - 2 * 4_096 + 3 * 22_528)  # rank · (in + out) of the seven
    assert adapter == 64_225_280
    assert memory.adapter == memory.gradients == pytest.approx(adapter * 4 / MIB)
    assert memory.optimizer == pytest.approx(adapter * 2 * (1 + 4 / 256) / MIB)
    assert memory.boundaries == pytest.approx(2048 * 5120 * (40 * 2 + 3 * 2 + 4) / MIB)
    assert memory.loss == pytest.approx(128 * 151_936 * 12 / MIB)
    assert memory.dequantised == pytest.approx(5120 * 17_408 * 2 / MIB)
    kept = 4 * (2 * 5120 + 6144) + 2 * 4 * 5120 + 4 * 40 + 2 * 3 * 17_408
    kept += 2 * (6 * 5120 + 17_408 + 7 * 16) + 2 * (2 * 5120 + 17_408)
    passing = 2 * 3 * 17_408 + 4 * 17_408 + 3 * 5120
    assert memory.layer == pytest.approx(2048 * (kept + passing) / MIB)
    assert memory.total == pytest.approx(19_461, abs=1)


def test_an_optimizer_in_32_bits_where_there_is_no_8_bit_one() -> None:
    adapter_mib = 64_225_280 / MIB
    assert replace(PRODUCTION, cuda=False).memory().optimizer == pytest.approx(8 * adapter_mib)
    divided = replace(PRODUCTION, load_in="bf16", shares=2)
    assert divided.memory().optimizer == pytest.approx(8 * adapter_mib)
    whole = replace(PRODUCTION, load_in="bf16")
    assert whole.memory().optimizer == PRODUCTION.memory().optimizer
    # rank 2: A and B of 2·1024 elements stay in 32 bits, the larger ones do not
    small = replace(PRODUCTION, rank=2).memory().optimizer * MIB
    a_layer = 2 * 2 * 1024 * 8 + 2 * (100_352 - 2 * 1024) * 2 * (1 + 4 / 256)
    assert small == pytest.approx(40 * a_layer)


# --- as it must behave ---------------------------------------------------------------------------
@settings(max_examples=60)
@given(trainings)
def test_more_rows_longer_rows_and_a_higher_rank_take_more(training: Training) -> None:
    total = _exact(training)
    assert _exact(replace(training, rows=training.rows + 1)) > total
    assert _exact(replace(training, length=training.length + 64)) > total
    assert _exact(replace(training, rank=training.rank + 1)) > total
    assert all(getattr(training.memory(), each.name) >= 0 for each in fields(Breakdown))


@settings(max_examples=60)
@given(trainings)
def test_what_is_meant_to_save_memory_does(training: Training) -> None:
    weights = [replace(training, load_in=each).memory().weights for each in LOAD_IN]
    eight, four, bf16, fp32 = weights
    assert four < eight < fp32
    assert eight < bf16 + 4 * training.shape.layers * training.shape.ffn  # scales of tiny layers
    kept = replace(training, checkpointing=False)
    if training.shape.layers > 1:
        assert _exact(replace(training, checkpointing=True)) < _exact(kept)


@settings(max_examples=60)
@given(trainings, st.integers(1, 24), st.integers(500, 100_000))
def test_the_choice_is_the_largest_divisor_that_fits(
    training: Training, rows_a_step: int, free_mib: int
) -> None:
    try:
        rows = fit.choose(training, rows_a_step=rows_a_step, free_mib=free_mib)
    except OutOfMemory:
        assert not fit.fits(training, 1, free_mib)
        return
    assert rows_a_step % rows == 0
    assert fit.fits(training, rows, free_mib)
    larger = [each for each in range(rows + 1, rows_a_step + 1) if rows_a_step % each == 0]
    assert not any(fit.fits(training, each, free_mib) for each in larger)


def _exact(training: Training) -> float:
    memory = training.memory()
    return float(sum(getattr(memory, each.name) for each in fields(memory)))


# --- the choice ----------------------------------------------------------------------------------
def test_the_production_setting_fits_24_gb() -> None:
    assert fit.choose(PRODUCTION, rows_a_step=4, free_mib=CARD_24_GB) == 2
    assert fit.choose(PRODUCTION, rows_a_step=4, free_mib=20_000) == 1
    assert fit.choose(PRODUCTION, rows_a_step=4, free_mib=80_000) == 4


def test_what_does_not_fit_is_told_with_what_would_help() -> None:
    with pytest.raises(OutOfMemory, match=r"about 19,461 MiB, 16,000 MiB are free") as caught:
        fit.choose(PRODUCTION, rows_a_step=4, free_mib=16_000)
    assert "weights 15,576" in caught.value.why
    assert "train.load_in=4bit (saves 5,822 MiB)" in caught.value.todo
    assert "max_length=1024 (saves 1,088 MiB, which is not enough)" in caught.value.todo
    assert "gradient_checkpointing" not in caught.value.todo  # it is on

    ways = fit.savings(replace(PRODUCTION, checkpointing=False), free_mib=14_000)
    assert [(way.setting, way.enough) for way in ways] == [
        ("train.gradient_checkpointing=on", False),
        ("train.max_length=1024", False),
        ("train.load_in=4bit", False),
        ("all of these", True),
    ]


def test_what_saves_nothing_or_cannot_be_set_is_not_advised() -> None:
    # Two narrow layers: to keep their ends, as checkpointing does, takes more than it saves.
    tiny = Shape(2, 32, 96, 4, 2, 32, 151_936, tied=True)
    short = Training(tiny, "8bit", 16, cuda=True, checkpointing=False, rows=1, length=38)
    ways = fit.savings(short, free_mib=0)
    assert not any("max_length" in way.setting for way in ways), "the settings begin at 64"


def test_a_smaller_rank_is_advised_where_the_adapter_is_large() -> None:
    large = replace(PRODUCTION, rank=512)
    needed = large.memory().total
    (way,) = (way for way in fit.savings(large, CARD_24_GB) if "rank" in way.setting)
    assert (way.setting, way.enough) == ("train.rank=64", True)
    assert needed - way.mib == replace(large, rank=64).memory().total <= CARD_24_GB
    assert replace(large, rank=128).memory().total > CARD_24_GB
    (way,) = (way for way in fit.savings(large, 0) if "rank" in way.setting)
    assert (way.setting, way.enough) == ("train.rank=8", False)
    assert not any("rank" in way.setting for way in fit.savings(PRODUCTION, 0)), "it is small"


@settings(max_examples=60)
@given(trainings)
def test_all_ways_together_are_named_where_they_save_more(training: Training) -> None:
    *ways, last = fit.savings(training, free_mib=0) or [fit.Saving("none", 1, enough=False)]
    assert all(way.mib > 0 for way in (*ways, last))
    if last.setting == "all of these":
        assert all(way.mib < last.mib for way in ways)


def test_a_shorter_length_is_named_as_long_as_possible() -> None:
    (shorter,) = (s for s in fit.savings(PRODUCTION, 19_000) if "max_length" in s.setting)
    length = int(shorter.setting.partition("=")[2])
    assert shorter.enough
    assert replace(PRODUCTION, length=length).memory().total <= 19_000
    assert replace(PRODUCTION, length=length + 64).memory().total > 19_000


@pytest.mark.parametrize(("rows", "half"), [(8, 4), (6, 3), (3, 1), (9, 3), (2, 1), (1, 1)])
def test_half_a_micro_batch_divides_it(rows: int, half: int) -> None:
    assert fit.halved(rows) == half


def test_a_divided_base_takes_a_share_and_what_is_put_together() -> None:
    whole = replace(PRODUCTION, load_in="bf16").memory()
    shared = replace(PRODUCTION, load_in="bf16", shares=4).memory()
    assert shared.weights == whole.weights / 4
    assert shared.gathered == 2 * (QWEN3_14B.other_weights + 2 * 330_301_440) / MIB
    assert whole.gathered == 0


# --- config.json ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hidden_size": 64},
        {"hidden_size": "wide", "num_attention_heads": 2},
        {"text_config": "wide"},
        {"hidden_size": 64, "num_attention_heads": 0},
        {"num_experts": 8, "hidden_size": 64},
        SIZES | {"hidden_size": float("inf")},
        SIZES | {"hidden_size": 10**400},
        SIZES | {"head_dim": 10**400},
    ],
)
def test_other_configs_are_no_shape(config: dict[str, Any], tmp_path: Path) -> None:
    files.write_json(tmp_path / "config.json", config)
    with pytest.raises(UnknownShape):
        Shape.read(tmp_path)


def test_a_config_nested_without_end_is_no_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(UnknownShape):
        Shape.read(tmp_path)


def test_divisors_come_largest_first() -> None:
    for number in range(1, 200):
        assert list(fit.divisors(number)) == [n for n in range(number, 0, -1) if number % n == 0]


def test_divisors_of_a_large_prime_come_at_once() -> None:
    assert list(fit.divisors(2**31 - 1)) == [2**31 - 1, 1]


def test_a_config_without_its_defaults_is_read(tiny_base: Path) -> None:
    shape = Shape.read(tiny_base)
    assert (shape.layers, shape.hidden, shape.kv_heads, shape.tied) == (2, 32, 2, True)
    plain = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
        "vocab_size": 1000,
    }
    assert Shape.of(plain) == Shape(2, 64, 96, 4, 4, 16, 1000, tied=False)


# --- against torch -------------------------------------------------------------------------------
@pytest.mark.parametrize("load_in", LOAD_IN)
def test_the_weights_are_what_a_loaded_model_holds(wide_base: Path, load_in: LoadIn) -> None:
    params = TrainParams(**{**TRAINING, "load_in": load_in})
    model = load_model("transformers", wide_base, params)
    held = 0
    for name, weight in model.named_parameters():
        if "lora_" in name:
            continue
        held += weight.nbytes
        for part in (getattr(weight, "SCB", None), getattr(weight, "quant_state", None)):
            scales = getattr(part, "absmax", part)
            held += scales.nbytes if isinstance(scales, torch.Tensor) else 0
    training = Training.of(params, Shape.read(wide_base), rows=1, length=64)
    assert training.memory().weights == pytest.approx(held / MIB, rel=1e-6)
    adapter = sum(w.numel() for name, w in model.named_parameters() if "lora_" in name)
    assert training.memory().adapter == pytest.approx(adapter * 4 / MIB)


@pytest.mark.parametrize("load_in", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_is_kept_is_what_autograd_saves(load_in: LoadIn, checkpointing: bool) -> None:
    training = Training(
        shape=Shape(3, 256, 768, 4, 2, 64, 1000, tied=False),
        load_in=load_in,
        rank=16,
        cuda=False,
        checkpointing=checkpointing,
        rows=2,
        length=512,
    )
    saved = _saved_bytes(training) / MIB
    memory = training.memory()
    if checkpointing:
        estimate = memory.boundaries
    else:
        passing = training.rows * training.length * training._passing_bytes() / MIB
        estimate = memory.boundaries + memory.layer - passing
    assert saved <= estimate
    # Over it by the gradients that follow, and by keys and values repeated where rows are padded.
    assert estimate < 1.15 * saved + 4 * training.rows * training.length * 4 * 256 / MIB


def _saved_bytes(training: Training) -> int:
    """Return what autograd saves in the forward pass of such a model, its weights apart."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from images.trainer.backends import PROJECTIONS
    from images.trainer.loss import answer_loss

    shape, bf16 = training.shape, training.load_in == "bf16"
    config = Qwen3Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.ffn,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    )
    base = Qwen3ForCausalLM(config).to(torch.bfloat16 if bf16 else torch.float32)
    lora = LoraConfig(task_type="CAUSAL_LM", r=training.rank, target_modules=list(PROJECTIONS))
    model = get_peft_model(base, lora).train()
    if training.checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    tensors = [*model.parameters(), *model.buffers()]
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor  # held, so that no other takes its place
        return tensor

    ids = torch.arange(training.rows * training.length).remainder(1000)
    ids = ids.view(training.rows, training.length)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    batch["labels"][:, :-50] = -100
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        answer_loss(model, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
