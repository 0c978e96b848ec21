"""What a GGUF says of itself, held against what was trained.

An engine takes its tokenizer, the token that ends an answer, the context and the template from
here, and no weight is wrong when one of them is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from contracts import files
from contracts.errors import SentinelTripped
from contracts.gguf_header import GgufInvalid, Header, read_header
from contracts.reference import ProbeRow, Trained

_TOKENS, _TYPES, _MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges"))
VOCABULARY = (_TOKENS, _TYPES, _MERGES)
"""The arrays of a header that `check_vocabulary` looks at."""

_NORMAL, _BYTE = 1, 6  # enum llama_token_type in llama.h: never made from their own text as such
_SHOWN, _SHOWN_TOKENS = 40, 5
"""How much of a row is shown, in characters and in tokens."""
CONVERT_ANEW = "Convert with the pinned llama.cpp, from the model that was trained; see doctor."


def read_back(path: Path, arrays: Collection[str] = ()) -> Header:
    """Return the header of a file that was just written; raise `SentinelTripped` for none."""
    try:
        return read_header(path, arrays)
    except (GgufInvalid, OSError) as error:
        raise SentinelTripped(
            "sentinel gguf: the file cannot be read back", why=str(error), todo=CONVERT_ANEW
        ) from error


def check_metadata(header: Header, trained: Trained, row: ProbeRow | None = None) -> None:
    """Raise `SentinelTripped` where context, end of turn or template are not those of the training,
    or an engine would add a token, which is shown on a trained `row`.

    Only what the record of the training has is compared. `header` has the array of tokens.
    """
    architecture = header.values.get("general.architecture")
    expected: dict[str, Any] = {f"{architecture}.context_length": trained.context_length}
    if trained.turn_end in trained.control_tokens:
        end = trained.control_tokens[trained.turn_end]
        expected["tokenizer.ggml.eos_token_id"] = end
    for key, wanted in expected.items():
        if (found := header.values.get(key)) != wanted:
            raise SentinelTripped(
                f"sentinel gguf_metadata: {key} is {found!r}, and {wanted!r} in training",
                why="the engine takes it from here",
                todo=CONVERT_ANEW,
            )
    if header.values.get("tokenizer.ggml.add_bos_token") is True:
        raise SentinelTripped(
            "sentinel gguf_metadata: an engine would put a token in front of every prompt",
            why=f"tokenizer.ggml.add_bos_token is true{_in_front(header, row)}",
            todo="Training rows have no such token: train a copy of the base model with "
            '"add_bos_token": false in its tokenizer_config.json.',
        )
    template = header.values.get("tokenizer.chat_template", "")
    if trained.chat_template and files.digest_text(str(template)) != trained.chat_template:
        raise SentinelTripped(
            "sentinel gguf_metadata: the chat template is not the one of the training",
            why=f"it begins with {str(template)[:60]!r}" if template else "there is none",
            todo=CONVERT_ANEW,
        )


def _in_front(header: Header, row: ProbeRow | None) -> str:
    """Show how a row would be read with the header's BOS token: text and token ids."""
    bos = header.values.get("tokenizer.ggml.bos_token_id")
    if row is None or not isinstance(bos, int):
        return "; training rows have no such token"
    tokens = header.arrays[_TOKENS]
    added = str(tokens[bos]) if bos < len(tokens) else ""
    ids, text = list(row.tokens[:_SHOWN_TOKENS]), row.prompt[:_SHOWN]
    return (
        f": row {row.id} differs from token 0, character 0: trained {ids} ({text!r}), served "
        f"{[bos, *ids]} ({added + text!r})"
    )


def check_vocabulary(header: Header, folder: Path, trained: Trained) -> None:
    """Raise `SentinelTripped` unless tokens, merges and markup are those of tokenizer.json.

    `header` has the arrays of `VOCABULARY`; `folder` is the model that was converted. A tokenizer
    that is no byte-pair encoding is not looked at.
    """
    path = folder / "tokenizer.json"
    if not trained.tokenizer or not path.is_file():
        return
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    if tokenizer["model"].get("type") != "BPE":
        return
    tokens, merges = header.arrays.get(_TOKENS, []), header.arrays.get(_MERGES, [])
    for text, number in _vocabulary(tokenizer):
        if number >= len(tokens) or tokens[number] != text:
            found = repr(tokens[number]) if number < len(tokens) else "missing"
            raise SentinelTripped(
                f"sentinel gguf_vocabulary: token {number} is {found}, and {text!r} in training",
                why="the engine would read other texts than the model has learnt",
                todo=CONVERT_ANEW,
            )
    wanted = [each if isinstance(each, str) else " ".join(each) for each in _merges(tokenizer)]
    if merges != wanted:
        raise SentinelTripped(
            f"sentinel gguf_vocabulary: the {len(merges)} merges are not the {len(wanted)} of the "
            "training",
            why="the same text would become other tokens",
            todo=CONVERT_ANEW,
        )
    types = header.arrays.get(_TYPES, [])
    _check_ordinary(tokenizer, types)
    for text, number in trained.control_tokens.items():
        if number >= len(types) or types[number] == _NORMAL:
            raise SentinelTripped(
                f"sentinel gguf_vocabulary: {text} is an ordinary token",
                why="an engine would split this markup into letters",
                todo=CONVERT_ANEW,
            )


def _check_ordinary(tokenizer: dict[str, Any], types: list[Any]) -> None:
    """Raise `SentinelTripped` for tokens of the vocabulary that an engine would take for markup."""
    added = {each["id"] for each in tokenizer.get("added_tokens") or []}
    marked = [
        text
        for text, number in tokenizer["model"]["vocab"].items()
        if number not in added and types[number : number + 1] not in ([_NORMAL], [_BYTE])
    ]
    if marked:
        raise SentinelTripped(
            f"sentinel gguf_vocabulary: {len(marked)} ordinary tokens are markup, the first is "
            f"{marked[0]!r}",
            why="an engine would cut texts at them, or leave them out of answers",
            todo=CONVERT_ANEW,
        )


def _vocabulary(tokenizer: dict[str, Any]) -> Iterator[tuple[str, int]]:
    yield from tokenizer["model"]["vocab"].items()
    yield from ((each["content"], each["id"]) for each in tokenizer.get("added_tokens") or [])


def _merges(tokenizer: dict[str, Any]) -> list[str | list[str]]:
    found: list[str | list[str]] = tokenizer["model"].get("merges") or []
    return found
