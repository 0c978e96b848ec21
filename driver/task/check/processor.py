"""What the backend reads from an answer: the keys that its code asks a parsed object for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from driver.task.check.checkout import SourceFile
from driver.task.check.finding import Compared, Finding, Severity
from driver.task.check.python_code import Code, last_name, texts_in
from driver.task.source import MADE_BY, Source

PLACE = "processor"
_READS = frozenset({"get", "pop", "setdefault"})
_HEAD = 200  # bytes: the mark stands in the first lines
_PARSERS = frozenset({"loads", "raw_decode", "model_validate_json", "validate_json"})


@dataclass(frozen=True)
class _Reading:
    """A module, and which fields of an answer it reads."""

    file: SourceFile
    lines: dict[str, int]
    """By the field's name."""
    parses: bool
    """Whether it parses JSON as well: then it is surely answers that it reads."""
    keeps_whole: bool
    """Whether it stores the object itself that it reads the fields of."""


def compare(source: Source, code: Code) -> Compared:
    """Hold the fields of an answer against what the module asks for that reads the most of them.

    At least half of them, and two: less is not taken for the reading of an answer. One that parses
    JSON comes before others, which may read rows; of those a field is only in doubt.
    """
    names = {field.name for field in source.fields}
    readings = [
        _Reading(file, dict(_read(tree, names)), parses(tree), _keeps_whole(tree, names))
        for file, tree in code.modules
        if MADE_BY.encode() not in file.content[:_HEAD]  # a rendered module declares, reads nothing
    ]
    least = max(2, len(names) / 2)
    found = [each for each in readings if len(each.lines) >= least]
    if not found:
        return Compared(
            PLACE, unclear=("no module reads half of the answer's fields by their names",)
        )
    best = max(found, key=lambda each: (each.parses, len(each.lines)))
    unread = [field for field in source.fields if field.name not in best.lines]
    kept = [
        field.name
        for field in unread
        if best.keeps_whole and field.name not in source.storage.columns
    ]
    unclear = f"{best.file.path}: an answer is stored as a whole, maybe with {', '.join(kept)}"
    findings = tuple(
        Finding(
            best.file.at(min(best.lines.values())),
            f"{field.name} of an answer is not read",
            f"{field.name} is dropped from every answer: it is never stored, and verify would "
            "find each item without it",
            f"Read it as the others are, into {_target(source, field.name)}.",
            Severity.BREAKS if best.parses else Severity.DIFFERS,
        )
        for field in unread
        if field.name not in kept
    )
    return Compared(PLACE, findings, (unclear,) if kept else (), len(names))


def parses(tree: ast.Module) -> bool:
    """Return whether a module parses JSON."""
    return any(
        isinstance(node, ast.Call) and last_name(node) in _PARSERS for node in ast.walk(tree)
    )


def _keeps_whole(tree: ast.Module, names: set[str]) -> bool:
    """Return whether an object whose fields are read is assigned, spread or named as a value.

    An argument without a name is none: it may be `isinstance` that it is given to.
    """
    read, kept = set[str](), set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr=attr, value=ast.Name(id=name)),
                args=[ast.Constant(value=str(key)), *_],
            ) if attr in _READS and key in names:
                read.add(name)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))):
                if key in names:
                    read.add(name)
            case ast.Assign(targets=[ast.Subscript() | ast.Attribute()], value=ast.Name(id=name)):
                kept.add(name)
            case ast.keyword(value=ast.Name(id=name)):
                kept.add(name)
            case ast.Dict(values=values):
                kept |= {each.id for each in values if isinstance(each, ast.Name)}
    return bool(read & kept)


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
