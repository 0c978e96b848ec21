"""Packed rows learn what they would learn alone: loss and gradients, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.errors import SentinelTripped, SettingsInvalid
from contracts.params import TrainParams
from images.trainer import loss, packing
from images.trainer.backends import load_model
from images.trainer.packing import PACKED, Packed
from images.trainer.rows import IGNORED
from images.trainer.sentinels import check_packing
from tests.unit.model_stages import TRAINING
from tests.unit.packed_batches import Batch, batch_of, one_causal_sequence

PARAMS = TrainParams(**TRAINING)

# A row is (tokens of its own before the answer, tokens of the answer). Not fewer than six: BLAS
# sums over the vocabulary with an error of 1e-4 for a handful of positions, packed or not.
ROWS = st.lists(
    st.tuples(st.integers(1, 40), st.just(0) | st.integers(6, 12)), min_size=2, max_size=4
)


def made(base: Path) -> Any:
    """Return a LoRA model that is no longer equal to its base, with packing.

    The tiny base's heads look a few tokens back only; here they look everywhere.
    """
    model = load_model("transformers", base, PARAMS)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
        if "q_norm" in name:
            torch.nn.init.ones_(weight)
    packing.enable_packing(model)
    return model.train()


@pytest.fixture(scope="module")
def qwen3(tiny_base: Path) -> Any:
    return made(tiny_base)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen2")
    config = Qwen2Config(
        vocab_size=150_000,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
    )
    torch.manual_seed(1)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return made(folder)


@pytest.fixture
def clean(qwen3: Any) -> Iterator[Any]:
    """Return the model, and put its attention back afterwards."""
    yield qwen3
    packing.enable_packing(qwen3)


def learnt_alone(model: Any, batch: Batch, row: int) -> tuple[float, torch.Tensor]:
    """Return loss and gradients of one row without others, as transformers computes them."""
    length = int(batch["attention_mask"][row].sum())
    one = {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}
    tokens = int((one["labels"][:, 1:] != IGNORED).sum())
    return learnt(model, model(**one).loss * tokens)


def learnt_beside_others(model: Any, batch: Batch, row: int) -> tuple[float, torch.Tensor]:
    """Return loss and gradients of the same row, packed with the others."""
    others = torch.arange(len(batch["labels"])) != row
    labels = batch["labels"].masked_fill(others[:, None], IGNORED)
    return learnt(model, loss.answer_loss(model, batch | {"labels": labels})[0])


def learnt(model: Any, value: torch.Tensor) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    value.backward()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return value.item(), torch.cat([weight.grad.flatten() for weight in weights])


def check_rows(model: Any, batch: Batch) -> None:
    for row in range(len(batch["labels"])):
        if not (batch["labels"][row] != IGNORED).any():
            continue
        packed, packed_gradient = learnt_beside_others(model, batch, row)
        alone, gradient = learnt_alone(model, batch, row)
        assert packed == pytest.approx(alone, rel=1e-5)
        assert (packed_gradient - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("checkpointing", [False, True])
@settings(max_examples=10, deadline=None, derandomize=True)
@example(shared=0, rows=[(3, 6), (3, 6)], seed=0)
@example(shared=40, rows=[(1, 6), (1, 0), (30, 7)], seed=1)
@given(shared=st.integers(0, 50), rows=ROWS, seed=st.integers(0, 99))
def test_a_row_learns_beside_others_what_it_learns_alone(
    qwen3: Any, checkpointing: bool, shared: int, rows: list[tuple[int, int]], seed: int
) -> None:
    if checkpointing:
        qwen3.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        check_rows(qwen3, batch_of(shared, rows, seed))
    finally:
        qwen3.gradient_checkpointing_disable()


def test_so_it_is_with_qwen2(qwen2: Any) -> None:
    check_rows(qwen2, batch_of(30, [(5, 7), (20, 8), (9, 6)]))
    check_packing(qwen2, batch_of(30, [(5, 3), (20, 4)]))


def test_the_shared_prompt_is_computed_once_and_no_padding() -> None:
    packed = packing.pack(batch_of(31, [(5, 3), (20, 4), (9, 2)]))
    assert packed.layout.shared == 30  # all but the last one in common, as if it predicted a label
    assert packed.layout.rests == [9, 25, 12]
    assert packed.ids.shape == packed.labels.shape == packed.positions.shape == (1, 76)
    assert packed.positions[0].tolist() == [*range(39), *range(30, 55), *range(30, 42)]
    apart = packing.pack(batch_of(0, [(5, 3), (20, 4)]))
    assert (apart.layout.shared, apart.layout.rests) == (0, [8, 24])


def test_the_shared_part_ends_before_the_first_label() -> None:
    batch = batch_of(80, [(1, 4), (2, 4)])
    assert packing.shared_tokens(batch) == 79
    batch["labels"][1, 40] = 5
    assert packing.shared_tokens(batch) == 39
    assert packing.shared_tokens({name: tensor[:1] for name, tensor in batch.items()}) == 0


# --- planted contamination ------------------------------------------------------------------------
def rows_see_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, one_causal_sequence)


def positions_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(batch: Batch) -> Packed:
        right = packing.pack(batch)
        return replace(right, positions=torch.arange(right.ids.shape[1])[None])

    monkeypatch.setattr(loss, "pack", pack)


def rows_see_their_future(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = packing._seen

    def too_much(shared: int, end: int, device: torch.device) -> torch.Tensor | None:
        right = seen(shared, end, device)
        return None if right is None else torch.ones_like(right)

    monkeypatch.setattr(packing, "_seen", too_much)


def the_prompt_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = packing._seen

    def too_little(shared: int, end: int, device: torch.device) -> torch.Tensor | None:
        right = seen(shared, end, device)
        if right is not None:
            right[..., :shared] = False
        return right

    monkeypatch.setattr(packing, "_seen", too_little)


@pytest.mark.parametrize(
    "plant", [rows_see_others, positions_run_on, rows_see_their_future, the_prompt_is_not_seen]
)
def test_planted_contamination_is_seen(clean: Any, monkeypatch: Any, plant: Any) -> None:
    batch = batch_of(30, [(12, 8), (9, 8)])
    check_packing(clean, batch)
    plant(monkeypatch)
    with pytest.raises(SentinelTripped, match="sentinel packing"):
        check_packing(clean, batch)
    with pytest.raises(AssertionError):
        check_rows(clean, batch)


# --- when rows are packed -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("backend", "settings_", "packed", "said"),
    [
        ("transformers", {}, True, "rows are packed"),
        ("transformers", {"packing": "off"}, False, "train.packing=off"),
        ("transformers", {"micro_batch_size": 1}, False, "one row at a time"),
        ("unsloth", {}, False, "Unsloth has an attention of its own"),
    ],
)
def test_packing_is_chosen_and_said(
    tiny_base: Path,
    caplog: pytest.LogCaptureFixture,
    backend: str,
    settings_: dict[str, Any],
    packed: bool,
    said: str,
) -> None:
    params = PARAMS.model_copy(update=settings_)
    assert packing.choose_packing(backend, tiny_base, params) is packed
    assert said in caplog.text


def test_packing_that_cannot_be_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    params = PARAMS.model_copy(update={"packing": "on"})
    with pytest.raises(SettingsInvalid, match=r"packing=on is not possible"):
        packing.choose_packing("unsloth", tiny_base, params)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(SettingsInvalid) as caught:
        packing.choose_packing("transformers", tmp_path, params)
    assert caught.value.why == "packing is not proven for the architecture gpt2"
