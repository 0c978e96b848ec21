"""A small backend's checkout that agrees with the news task, and changes to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from driver.task.check import outside
from driver.task.check.finding import Compared, Finding
from driver.task.source import Source

SOURCE = Source.of("liga_relevance")

ENUMS, MODELS = "backend/app/enums.py", "backend/app/models.py"
SCHEMAS, PROCESSOR = "backend/app/schemas.py", "backend/app/processor.py"
PROMPT, TYPES = "backend/app/prompts/analysis.md", "frontend/src/types/index.ts"
VIEW = "frontend/src/views/ItemView.vue"

ASKS = 'httpx.post(URL + "/api/chat", json=request)\n'
"""Makes of a module one that asks the model: only what is tied to such a one breaks."""

# Three drifts that a patch mends.
RENAMED = (ENUMS, '    MEDIUM = "medium"\n', '    NORMAL = "normal"\n')
SHORTER = (MODELS, "String(20)", "String(4)")
MISSING = (TYPES, "  reasoning: string | null\n", "")


def deployed() -> dict[str, Any]:
    """Return what /api/show says of a model that is served with the task's own Modelfile."""
    made = SOURCE.task.modelfile()
    parameters = "\n".join(
        f"{name:<30} {f'{chr(34)}{each}{chr(34)}' if isinstance(each, str) else each}"
        for name, value in made.parameters.items()
        for each in (value if isinstance(value, list) else [value])
    )
    return {"system": made.system, "template": made.template, "parameters": parameters}


def lay_out(folder: Path) -> Path:
    """Copy it into a new folder, with the task's own system prompt, and return the folder."""
    shutil.copytree(
        Path(__file__).parent / "backend_checkout",
        folder,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    prompt = folder / PROMPT
    prompt.parent.mkdir()
    prompt.write_text(SOURCE.task.system_prompt + "\n", encoding="utf-8")
    return folder


def change(checkout: Path, path: str, old: str, new: str) -> None:
    """Replace a text that stands in a file exactly once."""
    text = (checkout / path).read_bytes().decode()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    (checkout / path).write_bytes(text.replace(old, new).encode())


def compared(checkout: Path) -> list[Compared]:
    return outside.without_doubles(list(outside.in_checkout(SOURCE, checkout)))


def findings(checkout: Path) -> list[Finding]:
    return [finding for each in compared(checkout) for finding in each.findings]


def unclear(checkout: Path) -> list[str]:
    return [reason for each in compared(checkout) for reason in each.unclear]
