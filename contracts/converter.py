"""Where llama.cpp's tools lie: asked by the stage that runs them, and before a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from contracts.errors import StageFailed
from contracts.files import ROOT

CONVERTER = "convert_hf_to_gguf.py"
LORA_CONVERTER = "convert_lora_to_gguf.py"
"""The one for adapters, beside it and of the same version."""
IMAGE_FOLDER = Path("/app")
"""Where llama.cpp's own image keeps its tools."""
LOCAL_FOLDER = ROOT / ".cache" / "llama.cpp"
"""Where `make demo` puts them."""


def find_converter(script: str = CONVERTER) -> Path:
    """Return a converter in LLAMA_CPP_DIR, else in llama.cpp's image, else of `make demo`.

    Raises `StageFailed` if it is not there.
    """
    named = os.environ.get("LLAMA_CPP_DIR")
    folders = [Path(named).resolve()] if named else [IMAGE_FOLDER, LOCAL_FOLDER]
    for folder in folders:
        if (folder / script).is_file():
            return folder / script
    raise StageFailed(
        f"llama.cpp's converter is missing: {folders[-1] / script}",
        todo="Point LLAMA_CPP_DIR to llama.cpp's tools; "
        "`python -m images.gguf.fetch_converter FOLDER` fetches them.",
    )


def find_program(name: str) -> str:
    """Return llama-quantize or llama-imatrix in LLAMA_CPP_BIN, else in llama.cpp's image, or PATH.

    Raises `StageFailed` if it is not there.
    """
    named = os.environ.get("LLAMA_CPP_BIN")
    usual = os.pathsep.join((str(IMAGE_FOLDER), os.environ.get("PATH", os.defpath)))
    found = shutil.which(name, path=named or usual)
    if found is None:
        where = named or f"{IMAGE_FOLDER} and PATH"
        raise StageFailed(
            f"llama.cpp's {name} is missing",
            why=f"it is not in {where}",
            todo="Point LLAMA_CPP_BIN to the folder of llama.cpp's programs, or set runner=docker: "
            "the gguf image has them. The output types q8_0, f16 and bf16 need none.",
        )
    return str(Path(found).resolve())
