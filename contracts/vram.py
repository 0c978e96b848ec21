"""What a LoRA training holds in memory, term by term, computed before anything is loaded.

Nothing here is measured while it runs: the terms follow from the base's config.json and the
settings, by the formulas stated at each. They are for the transformers backend and err on the
high side. docs/reference/memory.md has a worked example, and says what was measured and what not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from contracts.params import TrainParams

MIB = 1 << 20
LoadIn = Literal["8bit", "4bit", "bf16", "fp32"]

LOSS_CHUNK_TOKENS = 128
"""Answer tokens whose logits exist at the same time (images/trainer/loss.py)."""
_CUDA_RUNTIME_MIB = 600
"""CUDA context, kernels loaded on demand and cuBLAS's work space. An estimate: PyTorch processes
show 300 to 600 MiB in nvidia-smi before their first tensor, more on newer cards."""
_CPU_RUNTIME_MIB = 700
"""Python with torch, transformers and TRL, measured: resident before a model is loaded."""
_CUDA_RESERVE = 0.10
"""Of everything but the weights: what PyTorch's caching allocator holds in pieces that fit
nothing. An estimate."""
_CPU_RESERVE = 2.6
"""The same of the C library's allocator, measured: beside weights and libraries a process was up to
3.6 times as large as these terms (docs/reference/memory.md)."""
_NF4_BLOCK = 64
"""Weights that share one absmax, which is kept in fp32 (bitsandbytes' default block size). Unsloth
quantises the absmax as well, which saves another 0.05 bytes a weight."""
_LARGEST_SIZE = 1 << 31
"""Above it nothing is a model's size: tools count in 32 bits, and products stay within a float."""
_ADAM8_BLOCK = 256
_ADAM8_SMALLEST = 4096
"""bitsandbytes keeps both moments in one byte each, with an fp32 absmax for every 256 elements, and
those of a tensor below 4096 elements in fp32 (`min_8bit_size`)."""


class UnknownShape(ValueError):
    """A config.json that these formulas do not cover; the message says why."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a dense decoder in the manner of Llama and Qwen3, by their names in formulas."""

    layers: int
    hidden: int
    ffn: int
    """Width of the gated MLP (`intermediate_size`)."""
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Whether the head is the embedding, and held once."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Read a config.json; raise `UnknownShape` for what is no such decoder."""
        config = config.get("text_config") or config
        if not isinstance(config, Mapping):
            raise UnknownShape("config.json: text_config is no object")
        if config.get("num_experts") or config.get("num_local_experts"):
            raise UnknownShape("a mixture of experts")
        try:
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            shape = cls(
                layers=int(config["num_hidden_layers"]),
                hidden=hidden,
                ffn=int(config["intermediate_size"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                vocabulary=int(config["vocab_size"]),
                tied=bool(config.get("tie_word_embeddings", False)),
            )
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:  # int() of infinity
            raise UnknownShape(f"config.json: {type(error).__name__}: {error}") from error
        sizes = (shape.layers, hidden, shape.ffn, heads, shape.vocabulary)
        if min(sizes) < 1:
            raise UnknownShape("config.json has a size below 1")
        if max(*sizes, shape.kv_heads, shape.head_dim) > _LARGEST_SIZE:
            raise UnknownShape(f"config.json has a size above {_LARGEST_SIZE:,}")
        return shape

    @classmethod
    def read(cls, base: Path) -> Shape:
        """Read the config.json of a base model's folder; raise `UnknownShape` without one."""
        try:
            found = json.loads((base / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UnknownShape(f"config.json: {error}") from error
        return cls.of(found if isinstance(found, dict) else {})

    @property
    def q_width(self) -> int:
        """Width of all queries together, and of the attention's result."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all keys, or all values, together."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of the seven projections of a layer: q, k, v, o, gate, up, down."""
        h, q, kv, f = self.hidden, self.q_width, self.kv_width, self.ffn
        return ((h, q), (h, kv), (h, kv), (q, h), (h, f), (h, f), (f, h))

    @property
    def linear_weights(self) -> int:
        """Weights of the projections of all layers: what is quantised."""
        return self.layers * sum(n_in * n_out for n_in, n_out in self.linears)

    @property
    def other_weights(self) -> int:
        """Embedding, head and norms (two a layer, those of queries and keys, the last one)."""
        heads = (1 if self.tied else 2) * self.vocabulary * self.hidden
        return heads + self.layers * 2 * (self.hidden + self.head_dim) + self.hidden


QWEN3_14B = Shape(
    layers=40,
    hidden=5120,
    ffn=17408,
    heads=40,
    kv_heads=8,
    head_dim=128,
    vocabulary=151936,
    tied=False,
)
"""What a base is taken for until its config.json is there."""


@dataclass(frozen=True)
class Breakdown:
    """MiB by what holds them; the sum is the peak, in the backward pass of the last layer."""

    weights: float
    """The frozen base."""
    runtime: float
    """CUDA's context, or on a CPU the libraries."""
    adapter: float
    """LoRA weights."""
    gradients: float
    """Of the LoRA weights."""
    optimizer: float
    """AdamW's two moments."""
    boundaries: float
    """What the forward pass leaves for the backward pass: each layer's input."""
    layer: float
    """Inside one layer while it is recomputed and differentiated; all layers' without
    checkpointing."""
    loss: float
    """Logits and softmax of one chunk of answer tokens."""
    dequantised: float
    """The widest weight in bf16, as the backward pass needs it."""
    gathered: float
    """What is put together of a base that is divided among devices."""
    reserve: float
    """Fragments of the allocator."""

    @property
    def total(self) -> int:
        """Everything, rounded up."""
        return -int(-sum(getattr(self, each.name) for each in fields(self)) // 1)

    def text(self) -> str:
        """Return the terms in one line, largest first, without those below 1 MiB."""
        terms = {each.name: getattr(self, each.name) for each in fields(self)}
        shown = sorted((item for item in terms.items() if item[1] >= 1), key=lambda it: -it[1])
        return ", ".join(f"{name} {mib:,.0f}" for name, mib in shown) + " MiB"


@dataclass(frozen=True)
class Training:
    """One LoRA training on one device: what its memory depends on."""

    shape: Shape
    load_in: LoadIn
    rank: int
    cuda: bool
    checkpointing: bool
    """Whether a layer's inside is computed again in the backward pass instead of kept."""
    rows: int
    """Micro-batch."""
    length: int
    """Tokens of the longest row, to which the others of its micro-batch are padded."""
    shares: int = 1
    """Devices among which the base is divided; what they compute is not."""

    @classmethod
    def of(cls, params: TrainParams, shape: Shape, *, rows: int, length: int) -> Training:
        """Return what the settings ask for, with `rows` of up to `length` tokens at once."""
        return cls(
            shape=shape,
            load_in=params.load_in,
            rank=params.rank,
            cuda=params.device == "cuda",
            checkpointing=params.checkpointing,
            rows=rows,
            length=length,
        )

    def with_rows(self, rows: int) -> Training:
        """Return the same with another micro-batch."""
        return replace(self, rows=rows)

    def memory(self) -> Breakdown:
        """Return the peak by terms."""
        adapter = self._adapter_weights() * 4 / MIB  # fp32: PEFT upcasts it; TRL may halve it
        at_once = 1 if self.checkpointing else self.shape.layers
        layer = at_once * self._kept_bytes() + self._passing_bytes()
        terms = {
            "runtime": float(_CUDA_RUNTIME_MIB if self.cuda else _CPU_RUNTIME_MIB),
            "adapter": adapter,
            "gradients": adapter,
            "optimizer": self._optimizer_bytes() / MIB,
            "boundaries": self._boundary_bytes() / MIB,
            "layer": self.rows * self.length * layer / MIB,
            "loss": self._loss_bytes() / MIB,
            "dequantised": self._dequantised_bytes() / MIB,
            "gathered": self._gathered_bytes() / MIB,
        }
        share = _CUDA_RESERVE if self.cuda else _CPU_RESERVE
        reserve = share * (sum(terms.values()) - terms["runtime"])
        weights = self._weight_bytes() / self.shares / MIB
        return Breakdown(weights=weights, **terms, reserve=reserve)

    # --- the terms, in bytes ---------------------------------------------------------------------
    @property
    def _width(self) -> int:
        """Bytes of an activation, and of a weight that is not quantised."""
        return 4 if self.load_in == "fp32" else 2

    @property
    def _quantised(self) -> bool:
        return self.load_in in {"8bit", "4bit"}

    def _weight_bytes(self) -> float:
        """Count the projections as held, and all else in bf16 (fp32).

        int8 (Dettmers et al. 2022, arXiv:2208.07339): a byte a weight, and a scale in fp32 for each
        row, that is each output. nf4 (Dettmers et al. 2023, arXiv:2305.14314): half a byte a
        weight, and an absmax in fp32 for each block.
        """
        shape = self.shape
        linears = float(shape.linear_weights)
        if self.load_in == "8bit":
            linears += 4 * shape.layers * sum(n_out for _, n_out in shape.linears)
        elif self.load_in == "4bit":
            linears *= 1 / 2 + 4 / _NF4_BLOCK
        else:
            linears *= self._width
        return linears + shape.other_weights * self._width

    def _adapter_weights(self) -> int:
        """Count A [rank, in] and B [out, rank] of every projection (Hu et al. 2021,
        arXiv:2106.09685)."""
        return self.shape.layers * sum(self.rank * (i + o) for i, o in self.shape.linears)

    def _optimizer_bytes(self) -> float:
        """Count two moments a weight: in fp32, or on CUDA in 8 bits (Dettmers et al. 2021,
        arXiv:2110.02861), unless the base is divided."""
        if not self.cuda or self.shares > 1:
            return 8 * self._adapter_weights()
        tensors = [self.rank * side for pair in self.shape.linears for side in pair]
        eight = 2 * (1 + 4 / _ADAM8_BLOCK)
        a_layer = sum(size * (8 if size < _ADAM8_SMALLEST else eight) for size in tensors)
        return self.shape.layers * a_layer

    def _boundary_bytes(self) -> int:
        """Count the input of every layer (Chen et al. 2016, arXiv:1604.06174), and the end: the
        last hidden states, their norm in fp32, and the gradient that comes back."""
        a_token = self._width * self.shape.hidden
        kept = self.shape.layers * a_token if self.checkpointing else 0
        return self.rows * self.length * (kept + 3 * a_token + 4 * self.shape.hidden)

    def _kept_bytes(self) -> int:
        """Count what one layer keeps of a token for its backward pass.

        Tensor by tensor what autograd saves in transformers' Qwen3 with PEFT's LoRA, as Korthikanti
        et al. (2022, arXiv:2205.05198) do for GPT; attention keeps no matrix of tokens by tokens
        (Dao et al. 2022, arXiv:2205.14135). A frozen projection saves no input of its own.
        """
        s, w = self.shape, self._width
        h, q, kv, f = s.hidden, s.q_width, s.kv_width, s.ffn
        norms = 4 * (2 * h + q + kv)  # inputs, which are in fp32: of the layer, of queries and keys
        attended = w * (2 * q + 2 * q) + 4 * s.heads  # queries, result; keys, values for all heads
        gated = w * 3 * f  # gate, its activation, up
        # A LoRA's input is cast for each of the seven; in fp32 those that share one share it.
        inputs = 2 * h + f if w == 4 else 5 * h + q + f
        narrow = 7 * self.rank  # A x
        kept = norms + attended + gated + w * (inputs + narrow)
        if self.load_in == "8bit":
            kept += w * (2 * h + f)  # bitsandbytes holds on to what it has quantised
        return kept

    def _passing_bytes(self) -> int:
        """Count what of a token is there for a moment in the widest place of a layer."""
        s = self.shape
        gradients = 3 * self._width * s.ffn  # of the product, of gate and up
        if self.load_in != "8bit":
            return gradients
        # A product in int32 and its input in fp16 and int8: of up, or of down.
        return gradients + max(4 * s.ffn + 3 * s.hidden, 3 * s.ffn + 4 * s.hidden)

    def _loss_bytes(self) -> int:
        """Count logits and softmax in fp32 and, for a head in bf16, a copy of each in bf16."""
        tokens = min(LOSS_CHUNK_TOKENS, self.rows * self.length)
        copies = 0 if self.load_in == "fp32" else 2 * 2
        return tokens * self.shape.vocabulary * (4 + 4 + copies)

    def _dequantised_bytes(self) -> int:
        """Count the widest projection in bf16: bitsandbytes' backward multiplies with it."""
        if not self._quantised:
            return 0
        return 2 * max(n_in * n_out for n_in, n_out in self.shape.linears)

    def _gathered_bytes(self) -> int:
        """Count what of a divided base is whole at a time: embedding and head, and two layers, one
        at work and the next on its way (Zhao et al. 2023, arXiv:2304.11277)."""
        if self.shares == 1:
            return 0
        a_layer = self.shape.linear_weights // self.shape.layers
        return self._width * (self.shape.other_weights + 2 * a_layer)
