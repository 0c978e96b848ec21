"""schema.json: the schema that answers are made under, with the fields' meaning for people."""

from __future__ import annotations

import json
from typing import Any

from driver.task.shape import Field
from driver.task.source import Source


def render(source: Source) -> str:
    """Return the served schema; only words that no validator heeds are added to it."""
    schema = source.task.schema()
    said = {
        "$comment": source.mark,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": source.answer,
        "description": source.about,
    }
    return json.dumps(said | _explained(schema, source.fields), ensure_ascii=False, indent=2) + "\n"


def _explained(node: dict[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    by_name = {each.name: each for each in fields}
    properties = {}
    for name, child in node["properties"].items():
        said = {"title": by_name[name].title, "description": by_name[name].meaning}
        properties[name] = {key: word for key, word in said.items() if word} | child
    return node | {"properties": properties}
