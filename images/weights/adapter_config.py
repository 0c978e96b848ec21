"""adapter_config.json: what PEFT has saved beside an adapter's tensors, and what it may say."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.errors import InputMissing

CONFIG = "adapter_config.json"


def read_config(adapter: Path) -> dict[str, Any]:
    """Return adapter_config.json; of a LoRA, with a rank, an alpha and targets that can be used.

    Raises `InputMissing` for one that cannot be read, or that says what no adapter can have.
    """
    try:
        config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(str(error)) from error
    if not isinstance(config, dict):
        raise _damaged("it holds no object")
    if config.get("peft_type") == "LORA":
        _check_lora(config)
    return config


def _check_lora(config: Mapping[str, Any]) -> None:
    """Raise `InputMissing` for a value that PEFT or our own merge could not compute with."""
    for name, of_pattern, fits, wanted in (
        ("r", "rank_pattern", _is_rank, "a positive whole number"),
        ("lora_alpha", "alpha_pattern", _is_number, "a number"),
    ):
        if not fits(config.get(name, 8)):
            raise _damaged(f"{name} is {config[name]!r}, and has to be {wanted}")
        patterns = config.get(of_pattern) or {}
        if not isinstance(patterns, dict):
            raise _damaged(f"{of_pattern} is {patterns!r}, and has to map names to values")
        for pattern, value in patterns.items():
            _check_expression(of_pattern, pattern)
            if not fits(value):
                raise _damaged(f"{of_pattern} has {value!r} for {pattern}, no {wanted[2:]}")
    for name in ("target_modules", "exclude_modules"):
        names = config.get(name) or []
        if isinstance(names, str):
            _check_expression(name, names)
        elif not (isinstance(names, list) and all(isinstance(each, str) for each in names)):
            raise _damaged(f"{name} is {names!r}, neither names nor a regular expression")


def _is_rank(value: object) -> bool:
    return type(value) is int and value > 0


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # which NaN is not


def _check_expression(name: str, text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise _damaged(f"{name} has {text!r}, no regular expression: {error}") from error


def _damaged(why: str) -> InputMissing:
    return InputMissing(f"the adapter's {CONFIG} is damaged", why=why)
