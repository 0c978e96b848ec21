"""How few tokens an answer can have: a `num_predict` below that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from driver.task import made

NAMES = ("a_text", "due_on", "_", "x__y", "is", "größe", "p99_ms", "URLs")
TEXTS = ("it's", 'He said: "1,000.5"', "§ 3_a – [x]", "naïve_2")


@pytest.mark.parametrize("value", [{"const": each} for each in TEXTS] + [{"type": "boolean"}])
def test_no_answer_has_fewer_than_are_reckoned(tiny_base: Path, value: dict[str, str]) -> None:
    """By the pieces that Qwen3 cuts a text into first, each one token at least: an underscore
    and the word behind it are one."""
    tokenizer = Tokenizer.from_file(str(tiny_base / "tokenizer.json"))
    schema = {"type": "object", "properties": dict.fromkeys(NAMES, value)}
    answer = made.text_of(next(made.answers(schema)))
    assert made.least_tokens(schema) <= len(tokenizer.pre_tokenizer.pre_tokenize_str(answer))
