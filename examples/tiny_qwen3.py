"""Make a tiny base model that is a real Qwen3: `python -m examples.tiny_qwen3 OUT`.

Ten million parameters, so that the whole pipeline runs on two CPU cores in minutes; the
architecture, the vocabulary of 151,936 tokens and the chat template are Qwen3's own, so every
stage, llama.cpp's converter and its server take it for one. Nothing is fetched: the vocabulary
lies in the package dashscope (Apache-2.0), the chat template in TRL (Apache-2.0).

The weights are random, but for two things that any pre-trained model has and a LoRA on a frozen
random model can hardly learn. Without them a training of two minutes ends with no valid answer:

- it knows which tokens are common: those of the sample's texts (`_embedding`);
- its first two layers look at the tokens just before (`_local_attention`).

The same arguments and texts give the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import itertools
import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

VOCAB_SIZE = 151_936
"""Rows of the embedding; Qwen3 pads its 151,669 tokens to a multiple of 128."""
FIRST_ADDED_ID = 151_643
END_OF_TEXT, IM_END = "<|endoftext|>", "<|im_end|>"

# In the order of their ids. A pair is (text, special): decoding drops the special ones.
_ADDED = (
    *((text, True) for text in (END_OF_TEXT, "<|im_start|>", IM_END)),
    *(
        (f"<|{name}_{end}|>", True)
        for name in ("object_ref", "box", "quad")
        for end in ("start", "end")
    ),
    *((f"<|{name}|>", True) for name in ("vision_start", "vision_end", "vision_pad")),
    *((f"<|{name}|>", True) for name in ("image_pad", "video_pad")),
    *((text, False) for text in ("<tool_call>", "</tool_call>")),
    *((f"<|fim_{name}|>", False) for name in ("prefix", "middle", "suffix", "pad")),
    *((f"<|{name}|>", False) for name in ("repo_name", "file_sep")),
    *((text, False) for text in ("<tool_response>", "</tool_response>", "<think>", "</think>")),
)

# Where Qwen cuts a text before BPE: contractions, words, single digits, punctuation, white space
# (`PAT_STR` of its published tokenizer). llama.cpp knows it as the pre-tokenizer "qwen2".
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_HEADS, _KV_HEADS, _HEAD_DIM = 4, 2, 32

# Qwen3's 0.02 leaves a model this narrow with logits near zero, and a LoRA cannot move the frozen
# head: training stops at a loss near 4. The larger embedding and the gain of the last norm give
# the head the range of a trained one. What the layers write is smaller, so that a token is not
# drowned in the noise of the first random layer.
_INIT_STD = 0.08
_WRITTEN_STD = 0.02
_FINAL_NORM_GAIN = 4.0

# Dimension 0 of the residual stream says "a common token". Of 151,936 tokens the sample has 2,300;
# a head of 64 random dimensions has no direction in which only these score high.
_COMMON, _COMMON_NORM_GAIN = 0.3, 16.0

_LOCAL_OFFSETS = ((1, 2, 3, 4), (1, 3, 5, 7))
"""By layer and head: how many tokens back it looks."""
_LOCAL_PAIRS = 6
"""Fastest pairs of the rotary embedding that a local head uses; the slow ones say little near."""
_LOCAL_SHARPNESS = 2.5
_ROPE_THETA = 1_000_000

_COMPLETE = "tiny_qwen3.json"
SAMPLE = Path(__file__).parent / "liga-sample"
"""Whose tokens are common, unless another folder is named."""


def make(
    out: Path,
    *,
    hidden: int = 64,
    layers: int = 4,
    seed: int = 17,
    sample: Path = SAMPLE,
) -> bool:
    """Write the model folder `out`; return False if it is there already, made alike.

    `hidden` is the width of the residual stream, a multiple of 32 because q8_0 works in blocks of
    32 weights. The tokens of `sample`'s items.jsonl and labels.jsonl are the common ones. A model
    made here with other arguments is replaced; for any other folder `FileExistsError` is raised.
    """
    texts = (sample / "items.jsonl", sample / "labels.jsonl")
    if hidden < 32 or hidden % 32 or layers < 1:
        raise ValueError(f"hidden {hidden} must be a multiple of 32, layers {layers} at least 1")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in texts]
    made_with = {"hidden": hidden, "layers": layers, "seed": seed, "texts": digests, "format": 2}
    marker = out / _COMPLETE
    if out.exists():
        if not marker.is_file():
            raise FileExistsError(f"{out} exists and was not made here")
        if json.loads(marker.read_text(encoding="utf-8")) == made_with:
            return False
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        building = Path(temporary) / "new"
        building.mkdir()
        tokenizer = _tokenizer()
        _write_json(building / "config.json", _config(hidden, layers))
        _write_json(building / "generation_config.json", _generation_config())
        _write_json(building / "tokenizer_config.json", _tokenizer_config())
        tokenizer.save(str(building / "tokenizer.json"), pretty=False)
        weights = _weights(hidden, layers, seed, _token_counts(tokenizer, texts))
        save_file(weights, building / "model.safetensors", metadata={"format": "pt"})
        _write_json(building / _COMPLETE, made_with)
        for path in building.iterdir():
            path.chmod(0o644)  # safetensors writes 0600, which another user cannot read
        if out.exists():
            out.rename(Path(temporary) / "old")
        building.rename(out)
    return True


# --- tokenizer -----------------------------------------------------------------------------------
def _tokenizer() -> Tokenizer:
    """Return Qwen's tokenizer, its merges rebuilt from the ranks of its tokens."""
    ranks = _ranks()
    letters = _byte_letters()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [
        (written[left], written[right])
        for left, right in (_last_merge(token, ranks) for token in ranks if len(token) > 1)
    ]
    tokenizer = Tokenizer(BPE(vocab={written[t]: rank for t, rank in ranks.items()}, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=s) for t, s in _ADDED])
    return tokenizer


def _ranks() -> dict[bytes, int]:
    """Return Qwen's tokens and their ids, which are also their ranks in BPE, in rising order."""
    path = _package("dashscope") / "resources" / "qwen.tiktoken"
    lines = path.read_bytes().splitlines()
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two parts whose merge makes `token`.

    Byte-pair encoding of the token's own bytes, with only the merges of lower rank: what is left
    is the pair that the token was made from (the usual way from tiktoken's ranks to merges).
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = (ranks.get(left + right, VOCAB_SIZE) for left, right in itertools.pairwise(parts))
        _, at = min((rank, position) for position, rank in enumerate(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    left, right = parts
    return left, right


def _byte_letters() -> list[str]:
    """Return the letter that stands for each byte in a byte-level BPE vocabulary (GPT-2's table).

    Printable Latin-1 stands for itself; all other bytes follow from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _tokenizer_config() -> dict[str, Any]:
    template = (_package("trl") / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(FIRST_ADDED_ID + i): {
                "content": text,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": special,
            }
            for i, (text, special) in enumerate(_ADDED)
        },
        "bos_token": None,
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "eos_token": IM_END,
        "errors": "replace",
        "model_max_length": 131_072,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": False,
        # The name that transformers 4 and 5 and llama.cpp's converter all read; transformers 5
        # itself would write "TokenizersBackend".
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _package(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {name} is needed here (extra `local`)")
    return Path(spec.submodule_search_locations[0])


# --- model ---------------------------------------------------------------------------------------
def _added_id(text: str) -> int:
    return FIRST_ADDED_ID + [each for each, _ in _ADDED].index(text)


def _config(hidden: int, layers: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": _added_id(END_OF_TEXT),
        "eos_token_id": _added_id(IM_END),
        "head_dim": _HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": _INIT_STD,
        "intermediate_size": 3 * hidden,
        "max_position_embeddings": 40_960,
        "max_window_layers": layers,
        "model_type": "qwen3",
        "num_attention_heads": _HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": _KV_HEADS,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": _ROPE_THETA,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",  # as in Qwen3's own; readers ask for it
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCAB_SIZE,
    }


def _generation_config() -> dict[str, Any]:
    return {
        "bos_token_id": _added_id(END_OF_TEXT),
        "do_sample": True,
        "eos_token_id": [_added_id(IM_END), _added_id(END_OF_TEXT)],
        "pad_token_id": _added_id(END_OF_TEXT),
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
    }


def _weights(hidden: int, layers: int, seed: int, counts: Counter[int]) -> dict[str, torch.Tensor]:
    """Return Qwen3's tensors by name in bf16; matrices are [out, in]."""
    random = torch.Generator().manual_seed(seed)
    query, key, inner = _HEADS * _HEAD_DIM, _KV_HEADS * _HEAD_DIM, 3 * hidden
    matrices = {
        "self_attn.q_proj": (query, hidden, _INIT_STD),
        "self_attn.k_proj": (key, hidden, _INIT_STD),
        "self_attn.v_proj": (key, hidden, _INIT_STD),
        "self_attn.o_proj": (hidden, query, _WRITTEN_STD),
        "mlp.gate_proj": (inner, hidden, _INIT_STD),
        "mlp.up_proj": (inner, hidden, _INIT_STD),
        "mlp.down_proj": (hidden, inner, _WRITTEN_STD),
    }
    norms = {
        "self_attn.q_norm": _HEAD_DIM,
        "self_attn.k_norm": _HEAD_DIM,
        "input_layernorm": hidden,
        "post_attention_layernorm": hidden,
    }
    last_norm = torch.full((hidden,), _FINAL_NORM_GAIN)
    last_norm[0] = _COMMON_NORM_GAIN
    weights = {"embed_tokens": _embedding(hidden, counts, random), "norm": last_norm}
    for layer in range(layers):
        made = {
            n: torch.randn(rows, columns, generator=random) * std
            for n, (rows, columns, std) in matrices.items()
        }
        made |= {name: torch.ones(size) for name, size in norms.items()}
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            made[name][0] = 0  # dimension 0 stays what the embedding says
        if layer < len(_LOCAL_OFFSETS):
            _local_attention(made, _LOCAL_OFFSETS[layer])
        weights |= {f"layers.{layer}.{name}": tensor for name, tensor in made.items()}
    return {f"model.{n}.weight": tensor.to(torch.bfloat16) for n, tensor in weights.items()}


def _embedding(hidden: int, counts: Counter[int], random: torch.Generator) -> torch.Tensor:
    """Return [vocabulary, hidden], random but for dimension 0: how common the token is.

    The embedding is also the head, so with the last norm's gain a common token starts out with
    more, any other one with less: from -0.3 (does not occur) over 0.15 to 0.3, by log count.
    """
    embedding = torch.randn(VOCAB_SIZE, hidden, generator=random) * _INIT_STD
    embedding[:, 0] = -_COMMON
    most = math.log1p(max(counts.values()))
    for token, count in counts.items():
        embedding[token, 0] = _COMMON * (0.5 + 0.5 * math.log1p(count) / most)
    return embedding


def _local_attention(layer: dict[str, torch.Tensor], offsets: tuple[int, ...]) -> None:
    """Let each head of a layer look a fixed number of tokens back.

    Query and key are made constant, out of dimension 0. The rotary embedding turns pair i of both
    by the position times f_i, so with the query turned back by `offset * f_i` the score is
    sum_i cos(f_i (distance - offset)): largest at that distance.
    """
    half = _HEAD_DIM // 2
    frequencies = _ROPE_THETA ** (-torch.arange(_LOCAL_PAIRS) / half)
    query, key = layer["self_attn.q_proj"], layer["self_attn.k_proj"]
    query *= 0.1
    key *= 0.1
    for head, offset in enumerate(offsets):
        at = head * _HEAD_DIM
        query[at : at + _LOCAL_PAIRS, 0] = torch.cos(-offset * frequencies)
        query[at + half : at + half + _LOCAL_PAIRS, 0] = torch.sin(-offset * frequencies)
    for head in range(_KV_HEADS):
        at = head * _HEAD_DIM
        key[at : at + _LOCAL_PAIRS, 0] = 1
        key[at + half : at + half + _LOCAL_PAIRS, 0] = 0
    layer["self_attn.q_norm"] *= _LOCAL_SHARPNESS
    layer["self_attn.k_norm"] *= _LOCAL_SHARPNESS


def _token_counts(tokenizer: Tokenizer, texts: tuple[Path, ...]) -> Counter[int]:
    """Return how often each token occurs in JSON lines files of items and of labels."""
    lines = [text for path in texts for text in _texts(path)]
    return Counter(
        itertools.chain.from_iterable(found.ids for found in tokenizer.encode_batch(lines))
    )


def _texts(path: Path) -> Iterator[str]:
    """Yield the text of each item, or the answer of each label as a model gives it."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "label" in row:
            yield "\n\n" + json.dumps(row["label"], ensure_ascii=False) + IM_END
        else:
            yield "\n".join(value for value in row.values() if isinstance(value, str))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and make the model."""
    parser = argparse.ArgumentParser(prog="python -m examples.tiny_qwen3", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hidden", type=int, default=64, help="width, a multiple of 32")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument(
        "--sample", type=Path, default=SAMPLE, help="folder whose texts have the common tokens"
    )
    args = parser.parse_args()
    made = make(
        args.out, hidden=args.hidden, layers=args.layers, seed=args.seed, sample=args.sample
    )
    size = sum(path.stat().st_size for path in args.out.iterdir())
    state = "made" if made else "kept, made with the same arguments before"
    print(f"{os.fspath(args.out)}: {state} ({size / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()
