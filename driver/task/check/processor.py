"""What the backend reads from an answer: the keys that its code asks a parsed object for."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from driver.task.check.finding import Compared, Finding, Severity
from driver.task.check.python_code import Code, texts_in
from driver.task.source import Source

PLACE = "processor"
_READS = frozenset({"get", "pop", "setdefault"})


def compare(source: Source, code: Code) -> Compared:
    """Hold the fields of an answer against what the module asks for that reads the most of them.

    At least half of them, and two: less is not taken for the reading of an answer.
    """
    names = {field.name for field in source.fields}
    best, read, line = None, set[str](), 0
    for file, tree in code.modules:
        found = dict(_read(tree, names))
        if len(found) > len(read):
            best, read, line = file, {*found}, min(found.values())
    if best is None or len(read) < max(2, len(names) / 2):
        return Compared(
            PLACE,
            unclear=("no module reads half of the answer's fields by their names",),
        )
    findings = tuple(
        Finding(
            best.at(line),
            f"{field.name} of an answer is not read",
            f"{field.name} is dropped from every answer: it is never stored, and verify would "
            "find each item without it",
            f"Read it as the others are, into {_target(source, field.name)}.",
            Severity.BREAKS,
        )
        for field in source.fields
        if field.name not in read
    )
    return Compared(PLACE, findings, (), len(names))


def _target(source: Source, name: str) -> str:
    if name in source.storage.columns:
        return f"the column {name}"
    return ".".join((*source.storage.analysis, name))


def _read(tree: ast.Module, names: set[str]) -> Iterator[tuple[str, int]]:
    """Yield the names that are looked up in an object, or listed beside others, with their lines.

    A name in an object that is made (`{"summary": …}`) is not read, but written.
    """
    for node in reversed([*ast.walk(tree)]):  # so that the first line of a name counts
        match node:
            case ast.Call(func=ast.Attribute(attr=attr), args=[ast.Constant(value=str(key)), *_]):
                if attr in _READS and key in names:
                    yield key, node.lineno
            case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=ast.Load()):
                if key in names:
                    yield key, node.lineno
            case ast.Tuple() | ast.List() | ast.Set():
                listed = [each.value for each in texts_in(node)]
                if len(names & {*listed}) >= 2:
                    yield from ((str(key), node.lineno) for key in listed if key in names)
