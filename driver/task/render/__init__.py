"""Everything that others need of a task: one module here for each, made from the definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from driver.task.render import (
    api_schemas,
    columns,
    details,
    fields,
    guide,
    modelfile,
    parser,
    schema,
    types,
)
from driver.task.source import Source

RENDERERS: Mapping[str, Callable[[Source], str]] = {
    "guide.md": guide.render,
    "fields.md": fields.render,
    "schema.json": schema.render,
    "Modelfile": modelfile.render,
    "parser.py": parser.render,
    "api_schemas.py": api_schemas.render,
    "columns.py": columns.render,
    "migration.py": columns.migration,
    "types.ts": types.render,
    "ItemDetails.vue": details.render,
}
"""What makes each file, by the file's name."""


def render(source: Source) -> dict[str, str]:
    """Return the text of every file; the same for the same definition, whatever the host."""
    return {name: make(source) for name, make in RENDERERS.items()}
