"""Where llama.cpp's converter lies: asked by the stage that runs it, and before a run."""

from __future__ import annotations

import os
from pathlib import Path

from contracts.errors import StageFailed
from contracts.files import ROOT

CONVERTER = "convert_hf_to_gguf.py"
IMAGE_FOLDER = Path("/app")
"""Where llama.cpp's own image keeps its tools."""
LOCAL_FOLDER = ROOT / ".cache" / "llama.cpp"
"""Where `make demo` puts them."""


def find_converter() -> Path:
    """Return the converter in LLAMA_CPP_DIR, else in llama.cpp's image, else of `make demo`.

    Raises `StageFailed` if it is not there.
    """
    named = os.environ.get("LLAMA_CPP_DIR")
    folders = [Path(named).resolve()] if named else [IMAGE_FOLDER, LOCAL_FOLDER]
    for folder in folders:
        if (folder / CONVERTER).is_file():
            return folder / CONVERTER
    raise StageFailed(
        f"llama.cpp's converter is missing: {folders[-1] / CONVERTER}",
        todo="Point LLAMA_CPP_DIR to llama.cpp's tools; "
        "`python -m images.gguf.fetch_converter FOLDER` fetches them.",
    )
