"""What a LoRA adapter does to each tensor of the base, read from its two files alone.

The formulas are PEFT's (tuners/lora/layer.py: update_layer, get_delta_weight, merge). What is not
known here for certain is not guessed: `NotCovered` says what it is, and PEFT merges it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from contracts.errors import InputMissing, SentinelTripped
from contracts.safetensors_header import Entry
from images.weights.adapter_config import read_config
from images.weights.shards import FLOATS

WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_TENSOR = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<part>[AB])\.(?P<kind>weight|bias)"
    r"|(?:base_layer\.)?bias)"
)
_FACTOR = re.compile(r"\.lora_(?:embedding_)?[AB](?:\.weight)?$")
_OWN_PARTS = re.compile(r"\.(?:(?:lora_|base_layer\.|token_adapter\.).*|[^.]+)$")
"""What follows a module's name in the adapter file: PEFT's parts of a layer, or one parameter."""

_TRAINED_IN = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INDICES_IN = (torch.int32, torch.int64)
"""What kinds of adapter beside LoRA keep with their weights: the places that these are for."""

_READ = {
    "peft_type",
    "base_model_name_or_path",
    "target_modules",
    "exclude_modules",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "fan_in_fan_out",
    "bias",
    "lora_bias",
    "init_lora_weights",
}
_WITHOUT_EFFECT = {
    "task_type",
    "auto_mapping",
    "peft_version",
    "revision",
    "inference_mode",
    "lora_dropout",
    "qalora_group_size",
    "megatron_core",
    "runtime_config",
}
_PLAIN_STARTS = (True, False, "gaussian")
"""Ways to draw the first LoRA that leave the base alone; PiSSA and its kin change it."""

_CONV1D_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
"""Model types whose layers keep their weights as [in, out], which is what fan_in_fan_out means."""


class NotCovered(Exception):
    """The streaming merge does not know something of this adapter; the text says what."""


@dataclass(frozen=True)
class Lora:
    """The update of one matrix: scaling * B [out, rank] @ A [rank, in]."""

    adapter: Path
    a: str
    b: str
    scaling: float
    transposed: bool = False

    def product(self) -> torch.Tensor:
        """Return B @ A in fp32, in the shape of the base's matrix, before it is scaled.

        In one multiplication, as PEFT does it: a product in blocks of rows may take other
        kernels, and round otherwise.
        """
        with safe_open(self.adapter, framework="pt") as tensors:
            # A clone is aligned as PEFT's parameters are, whatever the file's offsets.
            a, b = (tensors.get_tensor(name).float().clone() for name in (self.a, self.b))
        product = b @ a
        return product.T.contiguous() if self.transposed else product


@dataclass(frozen=True)
class LoraBias:
    """The update of a bias: scaling * B's bias."""

    adapter: Path
    name: str
    scaling: float

    def product(self) -> torch.Tensor:
        """Return the bias in fp32, before it is scaled."""
        with safe_open(self.adapter, framework="pt") as tensors:
            bias: torch.Tensor = tensors.get_tensor(self.name)
        return bias.float().clone()


@dataclass(frozen=True)
class Trained:
    """A bias of the base that was trained itself, and takes its place."""

    adapter: Path
    name: str

    def value(self) -> torch.Tensor:
        """Return it as the adapter holds it."""
        with safe_open(self.adapter, framework="pt") as tensors:
            found: torch.Tensor = tensors.get_tensor(self.name)
        return found


Update = Lora | LoraBias | Trained


def touched_modules(adapter: Path, base: Collection[str]) -> set[str]:
    """Return the modules (`model.layers.0.mlp.up_proj`, …) that the adapter file holds tensors for.

    `base` are the names of the base's tensors. Raises `SentinelTripped` for an adapter that holds
    nothing, numbers of another kind than those that are trained, or NaN or infinity;
    `InputMissing` for a file that cannot be read.
    """
    modules = set()
    own = {name.rpartition(".")[0] for name in base}
    lora = read_config(adapter).get("peft_type") == "LORA"
    types = _TRAINED_IN if lora else _TRAINED_IN + _INDICES_IN
    try:
        with safe_open(adapter / WEIGHTS, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensor = tensors.get_tensor(name)
                if tensor.dtype not in types:
                    raise SentinelTripped(
                        f"sentinel adapter_tensors: {name} is {str(tensor.dtype)[6:]}",
                        why="an adapter is trained in floating point, and merged as it is",
                        todo="Take the adapter as it was trained: it was converted or damaged.",
                    )
                if not bool(torch.isfinite(tensor).all()):
                    raise SentinelTripped(
                        f"sentinel finite_adapter: NaN or infinity in {name}",
                        why="its training took too large a step, or the file is damaged",
                        todo="Train again with a lower train.learning_rate.",
                    )
                modules.add(_module_among(name, own))
    except (OSError, SafetensorError) as error:
        raise InputMissing(f"the adapter's {WEIGHTS} is damaged", why=str(error)) from error
    if not modules:
        raise SentinelTripped(
            "sentinel adapter_modules: the adapter holds no LoRA",
            why=f"{WEIGHTS} has no tensor",
            todo="Train again, or give it another adapter.",
        )
    return modules


def _module_of(name: str) -> str:
    """Return the module of the base that a tensor of a LoRA's adapter file is for."""
    return _OWN_PARTS.sub("", name.removeprefix(_PREFIX))


def _module_among(name: str, own: Collection[str]) -> str:
    """Return the module of the base that a tensor of any adapter file is for.

    `own` are the base's modules with tensors of their own. Beside LoRA, some kinds of adapter have
    modules within the one that they change (`….q_proj.oft_R.weight`).
    """
    found = _module_of(name)
    if ".lora_" in name:
        return found
    parts = found.split(".")
    parents = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((parent for parent in parents if parent in own), found)


def without_effect(adapter: Path, modules: Collection[str]) -> set[str]:
    """Return those of these modules whose A or B is zero throughout, and so their product."""
    with safe_open(adapter / WEIGHTS, framework="pt") as tensors:
        return {
            module
            for name in tensors.keys()  # noqa: SIM118
            if (module := _module_of(name)) in modules
            and _FACTOR.search(name)
            and not bool(tensors.get_tensor(name).any())
        }


def lora_modules(adapter: Path) -> set[str]:
    """Return those of `touched_modules` that the adapter has a LoRA for."""
    with safe_open(adapter / WEIGHTS, framework="pt") as tensors:
        return {_module_of(name) for name in tensors.keys() if ".lora_" in name}  # noqa: SIM118


def plan_updates(
    adapter: Path, base: Mapping[str, Entry], model: Mapping[str, Any]
) -> dict[str, Update]:
    """Return the update of each tensor of the base that the adapter changes, by tensor name.

    `base` are the tensors of the base model, `model` is its config.json. Raises `NotCovered` unless
    all of config, adapter and base agree with each other and are understood.
    """
    config = read_config(adapter)
    _check_config(config, model)
    with safe_open(adapter / WEIGHTS, framework="pt") as tensors:
        shapes = {
            name: tuple(tensors.get_slice(name).get_shape())
            for name in tensors.keys()  # noqa: SIM118
        }
    updates: dict[str, Update] = {}
    modules: set[str] = set()
    for name in sorted(shapes):
        found = _TENSOR.fullmatch(name.removeprefix(_PREFIX))
        if found is None or not name.startswith(_PREFIX):
            raise NotCovered(f"the adapter holds {name}")
        module = found["module"]
        if found["part"] is None:
            _add(updates, f"{module}.bias", Trained(adapter / WEIGHTS, name), shapes[name], base)
        elif found["kind"] == "bias":
            bias = LoraBias(adapter / WEIGHTS, name, _scaling(module, config))
            _add(updates, f"{module}.bias", bias, shapes[name], base)
        elif found["part"] == "A":
            other = f"{_PREFIX}{module}.lora_B.weight"
            a, b = shapes[name], shapes.get(other, ())
            if len(a) != 2 or len(b) != 2 or not a[0] == b[1] == _rank(module, config):
                raise NotCovered(f"the LoRA of {module} has shapes {a} and {b}")
            turned = bool(config.get("fan_in_fan_out"))
            lora = Lora(adapter / WEIGHTS, name, other, _scaling(module, config), turned)
            shape = (a[1], b[0]) if turned else (b[0], a[1])
            _add(updates, f"{module}.weight", lora, shape, base)
            modules.add(module)
        elif name.replace(".lora_B.", ".lora_A.") not in shapes:
            raise NotCovered(f"the LoRA of {module} has no A")
    if model.get("tie_word_embeddings") and "lm_head" in modules:
        raise NotCovered("the adapted lm_head is tied to the embedding")
    if odd := modules ^ _targets(config, base):
        raise NotCovered(f"{min(odd)} is among target_modules or in the adapter, not in both")
    return updates


def _check_config(config: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise `NotCovered` for a setting that is not known to be without effect, if it is set."""
    if config.get("peft_type") != "LORA":
        raise NotCovered(f"the adapter is of type {config.get('peft_type')}")
    for name, value in config.items():
        if value and name not in _READ | _WITHOUT_EFFECT:
            raise NotCovered(f"{name} is set")
    if (start := config.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        raise NotCovered(f"init_lora_weights is {start}")
    turned = bool(config.get("fan_in_fan_out"))
    if turned != (model.get("model_type") in _CONV1D_MODELS):
        raise NotCovered(f"fan_in_fan_out is {turned} on {model.get('model_type')}")


def _add(
    updates: dict[str, Update],
    name: str,
    update: Update,
    shape: tuple[int, ...],
    base: Mapping[str, Entry],
) -> None:
    """Add an update of the tensor, unless the base has none of this name and shape."""
    if name not in base:
        raise NotCovered(f"the base's files have no {name}")
    if base[name].shape != shape:
        raise NotCovered(f"{name} is {base[name].shape} in the base, {shape} in the adapter")
    if base[name].dtype not in FLOATS:
        raise NotCovered(f"{name} is {base[name].dtype} in the base")
    if name in updates:
        raise NotCovered(f"the adapter has two updates of {name}")
    updates[name] = update


def _targets(config: Mapping[str, Any], base: Mapping[str, Entry]) -> set[str]:
    """Return the modules with a matrix that target_modules names (PEFT, tuners_utils.py)."""
    wanted, unwanted = config.get("target_modules") or [], config.get("exclude_modules") or []
    if wanted == "all-linear":
        raise NotCovered("target_modules is all-linear")
    modules = {
        entry.name.removesuffix(".weight")
        for entry in base.values()
        if entry.name.endswith(".weight") and len(entry.shape) == 2
    }
    return {m for m in modules if _is_named(m, wanted) and not _is_named(m, unwanted)}


def _is_named(module: str, names: str | list[str]) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _rank(module: str, config: Mapping[str, Any]) -> int:
    return int(_of_pattern(module, config.get("rank_pattern"), config.get("r", 8)))


def _scaling(module: str, config: Mapping[str, Any]) -> float:
    """Return alpha / rank, or alpha / sqrt(rank) with rsLoRA (arXiv 2312.03732)."""
    alpha = _of_pattern(module, config.get("alpha_pattern"), config.get("lora_alpha", 8))
    rank = _rank(module, config)
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _of_pattern(module: str, patterns: Mapping[str, float] | None, default: float) -> float:
    """Return the value of the first pattern that the end of the module's name matches."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
