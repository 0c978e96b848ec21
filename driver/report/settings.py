"""`driver settings`: every setting with its default and its meaning, as YAML."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from pathlib import Path
from typing import Any

from contracts.stage import Params
from driver.settings import Settings, section


def describe() -> str:
    """Return every key with its default and meaning, as a commented YAML file."""
    lines = [
        "# Every setting with its default. Values also come from RETRAIN__SECTION__KEY",
        "# and --set section.key=value.",
    ]
    told = meanings(Settings)
    for name, field in Settings.model_fields.items():
        model = section(name)
        if model is None:
            lines += _described(name, told.get(name, ""), field.get_default(), "")
            continue
        lines += ["", f"# {(model.__doc__ or '').strip()}", f"{name}:"]
        inside = meanings(model)
        for key, inner in model.model_fields.items():
            lines += _described(key, inside.get(key, ""), inner.get_default(), "  ")
        if not model.model_fields:
            lines[-1] += " {}"
    return "\n".join(lines) + "\n"


def meanings(model: type[Params]) -> dict[str, str]:
    """Return the docstring below each field of a model, by the field.

    Read from the source when asked for: pydantic's own way does so at every import, which took
    most of the time of `driver plan`.
    """
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: str(below.value.value)
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def _described(key: str, meaning: str, default: Any, indent: str) -> list[str]:
    text = " ".join(meaning.split())
    value = list(default) if isinstance(default, tuple) else default
    value = str(value) if isinstance(value, Path) else value
    shown = f"{key}: {json.dumps(value, ensure_ascii=False)}"  # JSON is YAML
    return [f"{indent}# {text}", f"{indent}{shown}"]
