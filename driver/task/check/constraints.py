"""What the CHECK constraints of a table's model let in, held against the task."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from driver.task.check.checkout import SourceFile
from driver.task.check.finding import Finding, Severity
from driver.task.check.python_code import Class, Code, last_name
from driver.task.check.values import lacking, longest, too_short
from driver.task.shape import Field, Kind
from driver.task.source import Source

_COLUMN = r'(?:\w+\.)?"?(?P<column>\w+)"?'
_SAME = r'(?:\w+\.)?"?(?P=column)"?'
_TEXTS = r"(?P<texts>'(?:[^']|'')*'(?:\s*,\s*'(?:[^']|'')*')*)"
_LENGTH = r"(?:func\.)?(?:char_length|character_length|length|len)"
_IN = rf"{_COLUMN}(?:\s+IN\s*\(|\s*=\s*ANY\s*\(\s*ARRAY\s*\[|\.in_\([\[(])\s*{_TEXTS}\s*[\])]+"
_LIMIT = (
    rf"{_LENGTH}\s*\(\s*{_COLUMN}\s*\)\s*(?:(?P<below><=?)\s*(?P<most>\d+)"
    r"|BETWEEN\s+[01]\s+AND\s+(?P<last>\d+)|>\s*0|>=\s*1)"
)
_CONDITIONS = tuple(
    re.compile(
        rf"(?:(?P<null>\w+)\s+IS\s+NULL\s+OR\s+)?\(?\s*{each}(?:\s*\))?"
        rf"(?:\s+OR\s+{_SAME}\s+IS\s+NULL)?\s*",
        re.IGNORECASE,
    )
    for each in (_IN, _LIMIT)
)
"""The conditions that are understood; a row with NULL keeps each of them anyway."""
_AND = re.compile(r"AND\s+", re.IGNORECASE)


def compare(
    source: Source, code: Code, model: Class, unclear: list[str]
) -> Iterator[tuple[Finding, Field]]:
    """Yield each CHECK that refuses what an answer may hold, and its field.

    Only of conditions that all have to be kept: one of another kind that names a field is said to
    be unclear.
    """
    for one in code.lineage(model):
        for node in ast.walk(one.node):
            if isinstance(node, ast.Call) and last_name(node) == "CheckConstraint" and node.args:
                yield from _of_one(source, code, one.file, node, unclear)


def _of_one(
    source: Source, code: Code, file: SourceFile, node: ast.Call, unclear: list[str]
) -> Iterator[tuple[Finding, Field]]:
    said = _said(code, file, node.args[0])
    fields = {field.name: field for field, _ in source.columns}
    conditions = [*_conditions(said)]
    if not conditions:
        named = [name for name in fields if re.search(rf"\b{name}\b", said)]
        unclear += [f"{file.at(node.lineno)}: the CHECK on {name}" for name in named]
    for found in conditions:
        field = fields.get(found["column"])
        if field is not None and field.shape.kind in {Kind.TEXT, Kind.CHOICE}:
            yield from _refused(source, field, file.at(node.lineno), found.groupdict())


def _refused(
    source: Source, field: Field, place: str, condition: dict[str, str | None]
) -> Iterator[tuple[Finding, Field]]:
    if texts := condition.get("texts"):
        known = [each.replace("''", "'") for each in re.findall(r"'((?:[^']|'')*)'", texts)]
        values, word = lacking(field, known), source.storage.columns[field.name].null
        names = [*values, word] if word and word not in known else values
        if names:
            found = Finding(
                place,
                f"the CHECK on {field.name} does not know {', '.join(names)}, of {field.name}",
                "the database refuses such a row, and a bulk reprocess loses its whole batch",
                f"Let it have {', '.join(names)}, with a migration.",
                Severity.BREAKS,
            )
            # A backend may keep NULL where the task names a word for it.
            doubt = found.in_doubt(f"a row with {word} is refused, if that is kept for null")
            yield found if values else doubt, field
    most = condition.get("most") or condition.get("last")
    if most is not None:
        length = int(most) - (condition.get("below") == "<")
        needed = longest(source, field)
        if needed is None or length < needed:
            yield too_short(place, field, length, needed, None), field


def _said(code: Code, file: SourceFile, node: ast.expr) -> str:
    """Return a condition in one line: SQL, or the Python that stands for it."""
    if isinstance(node, ast.Call) and last_name(node) == "text" and node.args:
        node = node.args[0]
    if isinstance(node, ast.Name) and (named := code.constant(file, node)) is not None:
        node = named
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return " ".join(node.value.split())
    return ast.unparse(node)


def _conditions(said: str) -> Iterator[re.Match[str]]:
    """Yield the conditions that are joined by AND; none where one of them is not understood."""
    found, at = list[re.Match[str]](), 0
    while at < len(said):
        here = next((m for each in _CONDITIONS if (m := each.match(said, at))), None)
        if here is None or here["null"] not in {None, here["column"]}:
            return
        found.append(here)
        at = here.end()
        if at < len(said):
            if (joined := _AND.match(said, at)) is None:
                return
            at = joined.end()
    yield from found
