"""The Modelfile of the deployed tag, as the serving engine shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from driver.task.check.finding import Compared, Finding
from driver.task.check.prompt import differing_system
from driver.task.source import Source

if TYPE_CHECKING:
    from serving.ollama_answers import Shown

PLACE = "Modelfile"
_TODO = (
    "`driver run` deploys a model with the task's Modelfile; `driver plan` says what it would do."
)


def compare(source: Source, tag: str, shown: Shown) -> Compared:
    """Hold what is served against the Modelfile that the task would be served with now."""
    wanted = source.task.modelfile()
    findings = [
        Finding(
            f"{tag}: SYSTEM",
            each.differs,
            "callers that send no system prompt of their own, as the canary does not, have the "
            "model answer to another one than it was trained on",
            _TODO,
        )
        for each in differing_system(source, tag, shown.system, ())
    ]
    if shown.template.strip() != wanted.template.strip():
        findings.append(
            Finding(
                f"{tag}: TEMPLATE",
                "the chat template is another",
                "the model reads other markup than in training: answers without end, or no JSON",
                _TODO,
            )
        )
    findings += _parameters(tag, wanted.parameters, shown.parameters)
    return Compared(PLACE, tuple(findings), (), 2 + len(wanted.parameters))


def _parameters(
    tag: str,
    wanted: dict[str, int | float | list[str]],
    shown: dict[str, list[str]],
) -> Iterator[Finding]:
    for name, value in wanted.items():
        values = value if isinstance(value, list) else [str(value)]
        found = shown.get(name, [])
        if not _same(values, found):
            yield Finding(
                f"{tag}: PARAMETER {name}",
                f"it is {', '.join(found) or 'not set'}, and the task's is {', '.join(values)}",
                "callers that do not set it get other answers than were measured",
                _TODO,
            )


def _same(wanted: list[str], found: list[str]) -> bool:
    try:
        return [float(each) for each in wanted] == [float(each) for each in found]
    except ValueError:
        return sorted(wanted) == sorted(found)
