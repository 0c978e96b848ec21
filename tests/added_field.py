"""The field `deadline` added to the news task by an edit of its files, and taken out again.

As a user edits them (docs/how-to/add-a-field.md): nothing outside of tasks/liga_relevance changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

NAME = "deadline"
Edits = Mapping[str, tuple[tuple[str, str], ...]]
"""By file: a text that stands there once, and what is written in its place."""

_VALIDATORS = '    @model_validator(mode="after")\n    def _blank_texts'
_FIELD = """\
    deadline: date | None = Field(title="Frist", description="Der letzte Tag; sonst null.")

"""
_SECTION = """
## deadline
Der Tag, bis zu dem zu handeln ist.
"""
TASK_EDITS: Edits = {
    "output.py": (
        ("from enum import StrEnum\n", "from datetime import date\nfrom enum import StrEnum\n"),
        (_VALIDATORS, _FIELD + _VALIDATORS),
    ),
    "prompts/label.md": (("\n# Prüfe vor dem Absenden", f"{_SECTION}\n# Prüfe vor dem Absenden"),),
    "prompts/system.md": (
        (
            "relevant ist oder nicht\n\nIst",
            "relevant ist oder nicht\n- deadline: der letzte Tag, oder null\n\nIst",
        ),
    ),
    "__init__.py": (
        ("import Serving, Task\n", "import OnlyFor, Serving, Task\n"),
        (
            "    rules=RULES,\n",
            '    rules=RULES,\n    only_for={"deadline": OnlyFor(where={"relevant": True})},\n',
        ),
        (
            '"assigned_aks": Column(edited=True),\n',
            '"assigned_aks": Column(edited=True),\n            "deadline": Column(),\n',
        ),
    ),
}
BACKEND_EDITS: Edits = {
    "app.py": (
        ("    updated_at: str | None\n", "    updated_at: str | None\n    deadline: str | None\n"),
    ),
    "store.py": (("    metadata TEXT DEFAULT", "    deadline TEXT, metadata TEXT DEFAULT"),),
    "llm.py": (('    "reasoning",\n)', '    "reasoning",\n    "deadline",\n)'),),
    "reprocess.py": (
        (
            '            "priority": analysis',
            '            "deadline": analysis.get("deadline"),\n            "priority": analysis',
        ),
    ),
}
"""What the owner of the test backend does about it."""


def add(checkout: Path) -> None:
    """Add the field to the task of a checkout."""
    edit(checkout / "tasks/liga_relevance", TASK_EDITS)


def remove(checkout: Path) -> None:
    """Take it out again: the files are as they were."""
    back = {name: tuple((new, old) for old, new in each) for name, each in TASK_EDITS.items()}
    edit(checkout / "tasks/liga_relevance", back)


def mend_backend(checkout: Path) -> None:
    """Let the test backend of a checkout store and show the field, in a column of its own."""
    edit(checkout / "tests/services/backend", BACKEND_EDITS)


def edit(folder: Path, edits: Edits) -> None:
    """Replace texts in files."""
    for name, changes in edits.items():
        path = folder / name
        text = path.read_text(encoding="utf-8")
        for there, instead in changes:
            assert text.count(there) == 1, f"{there!r} stands {text.count(there)} times in {path}"
            text = text.replace(there, instead)
        path.write_text(text, encoding="utf-8")
