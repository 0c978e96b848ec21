"""The gguf stage on a base and an adapter that stays one, for tests of what serves it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.converter import LORA_CONVERTER
from contracts.stages import CONVERT, convert_stage
from images.gguf import convert
from images.weights.checks import BASE_BY_DIGEST
from tests.unit.lora_models import make_adapter
from tests.unit.model_stages import folder_of, run

TOOLS = Path(os.environ.get("LLAMA_CPP_DIR", files.ROOT / ".cache" / "llama.cpp"))
needs_converter = pytest.mark.skipif(
    not (TOOLS / LORA_CONVERTER).is_file(), reason="LLAMA_CPP_DIR has no converter of adapters"
)


def adapter_of(base: Path, out: Path, **lora: Any) -> Path:
    """Save a random LoRA that names its base as the trainer does."""
    make_adapter(out, base, **lora)
    config = out / "adapter_config.json"
    named = {"base_model_name_or_path": BASE_BY_DIGEST + files.digest_path(base)}
    files.write_json(config, {**json.loads(config.read_text()), **named})
    return out


def converted_adapter(root: Path, base: Path, adapter: Path) -> tuple[Path, dict[str, Any]]:
    """Return the GGUF that the stage makes of an adapter, and its metrics."""
    (root / "in").mkdir(parents=True)
    inputs = {"base": root / "in" / "base", "lora_adapter": root / "in" / "lora_adapter"}
    inputs["base"].symlink_to(base)
    inputs["lora_adapter"].symlink_to(adapter)
    stage = convert_stage(one_pass=True, imatrix=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_CPP_DIR", str(TOOLS))
        result = run(root, stage, convert.work, inputs, {"form": "adapter"})
    return folder_of(root, CONVERT) / "out" / "model.gguf", result.metrics
