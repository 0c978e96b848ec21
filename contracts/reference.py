"""What was trained, and what it predicts: the record that later stages are held against.

Written by the train stage, read by merge, gguf and evaluate. One JSON file of some hundred
kilobytes, so that a stage without torch reads it too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from contracts.errors import InputMissing
from contracts.files import write_text
from contracts.stage import Frozen

KEPT = 64
"""Tokens kept of each prediction. A trained model puts all but a thousandth of an answer's
probability on fewer."""


class Position(Frozen):
    """What comes next after `before` tokens of a row."""

    before: int
    answer: str
    """The answer's text so far: tokenized again behind the prompt it gives the same tokens."""
    tokens: tuple[int, ...]
    """The likeliest tokens, likeliest first."""
    logprobs: tuple[float, ...]
    """The natural logarithm of each one's probability."""

    def known(self) -> dict[int, float]:
        """Return the prediction by token."""
        return dict(zip(self.tokens, self.logprobs, strict=True))


class ProbeRow(Frozen):
    """A validation row up to the last place looked at."""

    id: str
    prompt: str
    prompt_tokens: int
    tokens: tuple[int, ...]
    positions: tuple[Position, ...]


class Trained(Frozen):
    """What the training took for granted, and serving has to keep."""

    chat_format: str
    chat_template: str
    """SHA-256 of the base's own template; "" where it has none."""
    turn_end: str
    control_tokens: dict[str, int]
    """Token of each markup text, the end of a turn among them."""
    tokenizer: str
    """SHA-256 of tokenizer.json; "" where the base has a tokenizer of another kind."""
    context_length: int
    """Most tokens that the base was made for."""
    load_in: str
    probes: dict[str, int]
    """Texts that tokenizers like to disagree on, and how many tokens each has."""


class Reference(Frozen):
    """The whole record."""

    trained: Trained
    of: Literal["original", "trained"]
    """Whose predictions these are: `original` (the base in its own type with the adapter) or
    `trained` (the base as it was held in training)."""
    texts: dict[int, str]
    """What each predicted token adds to a text: "" for markup and for a part of a character."""
    rows: tuple[ProbeRow, ...]

    def positions(self) -> int:
        """Return at how many places there are predictions."""
        return sum(len(row.positions) for row in self.rows)


def write(path: Path, reference: Reference) -> None:
    """Publish the record."""
    write_text(path, json.dumps(reference.model_dump(mode="json"), ensure_ascii=False) + "\n")


def read(path: Path) -> Reference:
    """Return the record; raises `InputMissing` for a file that is none."""
    try:
        return Reference.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputMissing(f"{path} is no reference of the train stage", why=str(error)) from error
