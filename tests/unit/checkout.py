"""A small backend's checkout that agrees with the news task, and changes to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks import load_task

ENUMS, MODELS = "backend/app/enums.py", "backend/app/models.py"
SCHEMAS, PROCESSOR = "backend/app/schemas.py", "backend/app/processor.py"
PROMPT, TYPES = "backend/app/prompts/analysis.md", "frontend/src/types/index.ts"
VIEW = "frontend/src/views/ItemView.vue"


def lay_out(folder: Path) -> Path:
    """Copy it into a new folder, with the task's own system prompt, and return the folder."""
    shutil.copytree(
        Path(__file__).parent / "backend_checkout",
        folder,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    prompt = folder / PROMPT
    prompt.parent.mkdir()
    prompt.write_text(load_task("liga_relevance").system_prompt + "\n", encoding="utf-8")
    return folder


def change(checkout: Path, path: str, old: str, new: str) -> None:
    """Replace a text that stands in a file exactly once."""
    text = (checkout / path).read_bytes().decode()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    (checkout / path).write_bytes(text.replace(old, new).encode())
