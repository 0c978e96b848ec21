"""guide.md: how to label, for people: the teacher's prompt, the values, the rules."""

from __future__ import annotations

import re

from driver.task.render.tables import choices, table
from driver.task.source import Source

_FORM = (
    "Refuse text around the JSON object, a key that comes twice, a field too many or too few, a "
    "value of another type or beyond its limits."
)
_HEADING = re.compile(r"^(#{1,4} )", re.MULTILINE)


def render(source: Source) -> str:
    """Return the guide; what the teacher is told stands in it word for word."""
    task = source.task
    told = _HEADING.sub(r"##\1", task.label_prompt)
    fields = table(
        ("field", "what it is called", "values", "meaning"),
        [(f"`{f.name}`", f.title, f.shape.limits(), f.meaning) for f in source.fields],
    )
    parts = [
        f"<!-- {source.mark} -->",
        f"# How to label: {task.name}, version {task.version}",
        source.about,
        "## The answer",
        fields,
        *choices(source),
        "## What is refused",
        "Before any rule is looked at, the parser does this:",
        "\n".join(f"- {each}" for each in (_FORM, *source.as_a_whole)),
        *_rules(source),
        "## What the teacher is told",
        told,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rules(source: Source) -> list[str]:
    if not source.task.rules:
        return []
    rows = [(f"`{rule.id}`", rule.severity, rule.message) for rule in source.task.rules]
    return [
        "## Label rules",
        "An error bars an answer from training; a warning is counted.",
        table(("id", "severity", "what is wrong"), rows),
    ]
