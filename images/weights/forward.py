"""What a Qwen3 predicts, computed one tensor after the other from the files of its weights.

A model of 28 GB is never in memory: of the weights no more than one matrix in fp32 (356 MB in
Qwen3-14B; the head goes in blocks), beside the hidden states of the tokens asked for. All in fp32,
so that nothing but the weights themselves makes a difference. Equal to transformers
(tests/unit/test_forward.py; formulas: Qwen3 as in transformers' modeling_qwen3.py, RoPE after Su et
al. 2021, arXiv:2104.09864, RMSNorm after Zhang & Sennrich 2019, arXiv:1910.07467).

Rows that begin alike (they share the system prompt) are one sequence here: the common tokens once,
then each row's own, which see the common ones and their own row only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import safe_open

from contracts.errors import BaseModelMissing
from images.weights.lora import Lora, NotCovered, Update
from images.weights.shards import model_shards

_HEAD_ROWS = 16_384
"""Rows of the head at a time: 335 MB in fp32 at a width of 5,120."""


class Weights(Protocol):
    """Where the tensors of a model come from: files, or a merge that happens as they are read."""

    def tensor(self, name: str) -> torch.Tensor | None:
        """Return a whole tensor, None where the model has none of this name."""
        ...

    def rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        """Return some rows of a matrix."""
        ...

    def update(self, name: str) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """Return A [rank, in], B [out, rank] and the scaling of what is added to a matrix."""
        ...


class FromFiles:
    """The tensors of a model's folder, with an adapter beside them if `updates` has one.

    Base and adapter stay apart: x W' = x W + scaling * (x A) B, which is not what a merge computes.
    """

    def __init__(self, folder: Path, updates: Mapping[str, Update] | None = None) -> None:
        self._places = {
            entry.name: folder / shard
            for shard, entries in model_shards(folder).items()
            for entry in entries
        }
        self._updates = updates or {}
        if odd := [name for name, each in self._updates.items() if not isinstance(each, Lora)]:
            raise NotCovered(f"{odd[0]} is trained, and not by a LoRA")
        self._open: dict[Path, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tensor(self, name: str) -> torch.Tensor | None:
        """Return a whole tensor in the type of its file."""
        if name not in self._places:
            return None
        found: torch.Tensor = self._file(name).get_tensor(name)
        return found

    def rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        """Return rows begin to end of a matrix."""
        found: torch.Tensor = self._file(name).get_slice(name)[begin:end]
        return found

    def update(self, name: str) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """Return the LoRA of a matrix, if it has one."""
        if (lora := self._updates.get(name)) is None:
            return None
        assert isinstance(lora, Lora)  # noqa: S101  # looked at above
        with safe_open(lora.adapter, framework="pt") as adapter:
            a, b = (adapter.get_tensor(part).float() for part in (lora.a, lora.b))
        return a, b, lora.scaling

    def _file(self, name: str) -> Any:
        if (path := self._places.get(name)) is None:
            raise BaseModelMissing(f"the model's files have no {name}")
        if path not in self._open:
            self._open[path] = self._stack.enter_context(safe_open(path, framework="pt"))
        return self._open[path]


@dataclass(frozen=True)
class Shape:
    """What of a config.json the computation needs."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    theta: float
    tied: bool
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Read a config.json; raises `NotCovered` for what is computed otherwise than here."""
        if config.get("model_type") != "qwen3":
            raise NotCovered(f"the model is a {config.get('model_type')}")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise NotCovered("its rotary embedding is scaled")
        if config.get("use_sliding_window"):
            raise NotCovered("it has a sliding window")
        if config.get("hidden_act", "silu") != "silu":
            raise NotCovered(f"its activation is {config['hidden_act']}")
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            eps=config.get("rms_norm_eps", 1e-6),
            theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            tied=bool(config.get("tie_word_embeddings")),
            vocabulary=config["vocab_size"],
        )


@dataclass(frozen=True)
class Packed:
    """Rows as one sequence. `tokens` and `places` are [n], `sees` is [n, n]; `wanted` are the
    indices whose hidden states predict what is asked for."""

    tokens: torch.Tensor
    places: torch.Tensor
    sees: torch.Tensor
    wanted: torch.Tensor


def pack(rows: Sequence[Sequence[int]], asked: Sequence[Sequence[int]]) -> Packed:
    """Return the rows as one sequence; `asked[i]` are lengths after which row i is predicted."""
    common = _common(rows)
    tokens, places, owners, wanted = list(rows[0][:common]), list(range(common)), [-1] * common, []
    for number, (row, lengths) in enumerate(zip(rows, asked, strict=True)):
        start = len(tokens) - common  # what a length has to be moved by, beyond the common part
        tokens += row[common:]
        places += range(common, len(row))
        owners += [number] * (len(row) - common)
        wanted += [length - 1 + (start if length > common else 0) for length in lengths]
    place, owner = torch.tensor(places), torch.tensor(owners)
    sees = (place[:, None] >= place[None]) & ((owner[:, None] == owner[None]) | (owner[None] == -1))
    return Packed(torch.tensor(tokens), place, sees, torch.tensor(wanted))


def tokens_in(rows: Sequence[Sequence[int]]) -> int:
    """Return how many tokens are computed for these rows together."""
    common = _common(rows)
    return common + sum(len(row) - common for row in rows)


def predict(
    weights: Weights,
    config: Mapping[str, Any],
    packed: Packed,
    *,
    device: str = "cpu",
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> torch.Tensor:
    """Return log-probabilities of the next token, [wanted, vocabulary] in fp32, on `device`.

    `tell` hears of layers done. Raises `NotCovered` for a model that is no plain Qwen3.
    """
    with torch.inference_mode():
        return _predicted(weights, Shape.of(config), packed, torch.device(device), tell)


def _predicted(
    weights: Weights,
    shape: Shape,
    packed: Packed,
    device: torch.device,
    tell: Callable[[int, int], None],
) -> torch.Tensor:
    run = _Run(weights, shape, packed, device)
    hidden = run.embedded()
    for layer in range(shape.layers):
        tell(layer, shape.layers)
        hidden = run.layer(hidden, f"model.layers.{layer}")
    tell(shape.layers, shape.layers)
    hidden = run.norm(hidden[packed.wanted.to(device)], "model.norm.weight")
    head = "model.embed_tokens.weight" if shape.tied else "lm_head.weight"
    logits = hidden.new_empty((len(hidden), shape.vocabulary))
    for begin in range(0, shape.vocabulary, _HEAD_ROWS):
        end = min(begin + _HEAD_ROWS, shape.vocabulary)
        logits[:, begin:end] = hidden @ run.here(weights.rows(head, begin, end)).T
    return torch.log_softmax(logits, dim=-1)


class _Run:
    """One pass; hidden states are [n, width] in fp32."""

    def __init__(
        self, weights: Weights, shape: Shape, packed: Packed, device: torch.device
    ) -> None:
        self._weights, self._shape, self._packed, self._device = weights, shape, packed, device
        self._sees = packed.sees.to(device)
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        angles = packed.places[:, None].float() / shape.theta**half
        turned = torch.cat([angles, angles], dim=-1)
        self._cos, self._sin = turned.cos().to(device), turned.sin().to(device)

    def here(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor in fp32 where the computation is."""
        return tensor.to(self._device).float()

    def embedded(self) -> torch.Tensor:
        """Return the embeddings of the tokens, each row read once."""
        used, where = torch.unique(self._packed.tokens, return_inverse=True)
        name = "model.embed_tokens.weight"
        rows = [self._weights.rows(name, begin, end) for begin, end in _runs(used.tolist())]
        return self.here(torch.cat(rows))[where.to(self._device)]

    def layer(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        """Return the hidden states behind one layer."""
        normed = self.norm(hidden, f"{name}.input_layernorm.weight")
        hidden = hidden + self._attention(normed, f"{name}.self_attn")
        normed = self.norm(hidden, f"{name}.post_attention_layernorm.weight")
        gate = F.silu(self._linear(normed, f"{name}.mlp.gate_proj"))
        gate *= self._linear(normed, f"{name}.mlp.up_proj")
        return hidden + self._linear(gate, f"{name}.mlp.down_proj")

    def norm(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        """Return hidden / rms(hidden) * weight, over the last dimension."""
        weight = self._needed(name)
        scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self._shape.eps)
        return hidden * scale * self.here(weight)

    def _needed(self, name: str) -> torch.Tensor:
        """Return a tensor that every Qwen3 has; raise `BaseModelMissing` if this one does not."""
        if (found := self._weights.tensor(name)) is None:
            raise BaseModelMissing(f"the model's files have no {name}")
        return found

    def _attention(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        shape = self._shape
        queries = self._heads(hidden, f"{name}.q", shape.heads)
        keys = self._heads(hidden, f"{name}.k", shape.kv_heads)
        values = self._linear(hidden, f"{name}.v_proj").view(-1, shape.kv_heads, shape.head_dim)
        mixed = F.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys.transpose(0, 1)[None],
            values.transpose(0, 1)[None],
            attn_mask=self._sees,
            enable_gqa=shape.heads != shape.kv_heads,
        )[0]
        joined = mixed.transpose(0, 1).reshape(len(hidden), shape.heads * shape.head_dim)
        return self._linear(joined, f"{name}.o_proj")

    def _heads(self, hidden: torch.Tensor, name: str, count: int) -> torch.Tensor:
        """Return queries or keys [n, heads, head_dim], each normed and turned to its place."""
        found = self._linear(hidden, f"{name}_proj").view(-1, count, self._shape.head_dim)
        found = self.norm(found, f"{name}_norm.weight")
        first, second = found.chunk(2, dim=-1)
        across = torch.cat([-second, first], dim=-1)
        return found * self._cos[:, None] + across * self._sin[:, None]

    def _linear(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        weight = self._needed(f"{name}.weight")
        out = hidden @ self.here(weight).T
        if (lora := self._weights.update(f"{name}.weight")) is not None:
            a, b, scaling = lora
            out += (hidden @ self.here(a).T) @ self.here(b).T * scaling
        if (bias := self._weights.tensor(f"{name}.bias")) is not None:
            out += self.here(bias)
        return out


def _common(rows: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all rows have in common; 0 for a single row."""
    if len(rows) < 2:
        return 0
    same = (len(set(tokens)) == 1 for tokens in zip(*rows, strict=False))
    return sum(itertools.takewhile(bool, same))


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of the runs of neighbours in rising numbers."""
    begin = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield numbers[begin], numbers[at - 1] + 1
            begin = at
