"""What the backend reads from an answer: the keys that its code asks a parsed object for."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from driver.task.check.answer_object import AnswerObject
from driver.task.check.checkout import SourceFile
from driver.task.check.finding import Compared, Finding, Severity
from driver.task.check.parsing import parses
from driver.task.check.python_code import Code, Function, is_table, last_name, texts_in
from driver.task.check.tied import Tied
from driver.task.check.walked import walked
from driver.task.shape import Field
from driver.task.source import MADE_BY, Source

PLACE = "processor"
_HEAD = 200  # bytes: the mark stands in the first lines


@dataclass(frozen=True)
class _Reading:
    """A module, and which fields of an answer it reads."""

    file: SourceFile
    lines: dict[str, int]
    """By the field's name."""
    parses: bool
    """Whether it parses JSON as well: others may read rows."""
    stores: bool
    """Whether it keeps fields where the task has them: others may write a table of them."""
    leaves: int | None
    """Where the object goes on as a whole, to be read elsewhere or stored as it is."""
    is_tied: bool
    """Whether it is tied to the module that asks the model."""

    @property
    def is_processor(self) -> bool:
        """Whether it is surely answers that it reads."""
        return self.parses and self.stores and self.is_tied


def compare(source: Source, code: Code, tied: Tied) -> Compared:
    """Hold the fields of an answer against what the module asks for that reads the most of them.

    At least half of them, and two: less is not taken for the reading of an answer. A field is
    surely lost where a processor reads most of the others by name and no answer leaves it as a
    whole; where one does, or another module that parses JSON reads the field, it is not compared.
    Where none asks for keys, the attributes count of what is of an answer's class by its type.
    """
    names = frozenset(field.name for field in source.fields)
    for typed in (frozenset[str](), _typed(code, tied, names)):
        readings = [
            each
            for file, tree in code.modules
            if MADE_BY.encode() not in file.content[:_HEAD]  # a rendered one reads nothing
            for each in _reading(source, code, tied, file, AnswerObject(tree, names, typed))
        ]
        found = [each for each in readings if len(each.lines) >= max(2, len(names) / 2)]
        if found:
            break
    else:
        return Compared(PLACE, unclear=_unseen(tied, readings))
    best = max(found, key=lambda each: (each.is_processor, each.parses, len(each.lines)))
    unread = [field for field in source.fields if field.name not in best.lines]
    if best.is_processor:  # what others do is no way of an answer
        readings = [each for each in readings if each.file.path in tied.program]
    left_out = dict(_not_stored(source, code, tied, {*best.lines}))
    if unread and (doubts := [*_doubts(best, readings, [field.name for field in unread])]):
        return Compared(PLACE, tuple(left_out.values()), tuple(doubts), len(best.lines))
    sure = best.is_processor and len(best.lines) > len(names) / 2
    place = best.file.at(min(best.lines.values()))
    lost = {field.name: _dropped(source, place, field, "read") for field in unread}
    findings = left_out | {k: each if sure else each.in_doubt() for k, each in lost.items()}
    return Compared(PLACE, tuple(findings.values()), (), len(names))


def _typed(code: Code, tied: Tied, names: frozenset[str]) -> frozenset[str]:
    """Return the classes of an answer in what asks the model, and the functions that give one."""
    below = code.imports.reached(tied.asking)
    held = {
        each.name
        for each in code.each_class()
        if each.file.path in below and not is_table(each)
        if "__tablename__" not in (there := code.inherited(each).keys())
        if 2 * len(names & there) > len(names)
    }
    functions = (n for _, tree in code.modules for n in walked(tree) if isinstance(n, Function))
    return frozenset(held | {each.name for each in functions if last_name(each.returns) in held})


def _unseen(tied: Tied, readings: Sequence[_Reading]) -> tuple[str, ...]:
    """Return why no module is the processor: an answer goes on where it is not followed."""
    whole = tuple(
        f"{each.file.at(each.leaves)}: an answer goes on as a whole"
        for each in readings
        if each.leaves is not None and each.file.path in tied.answers
    )
    return whole or ("no module is seen to read half of the answer's fields by name",)


def _listed(code: Code, file: SourceFile, answer: AnswerObject) -> Iterator[tuple[str, int]]:
    """Yield the fields in each constant that a module names, which may be another's."""
    for node in walked(answer.tree):
        if isinstance(node, ast.Name | ast.Attribute) and last_name(node).isupper():
            texts = {str(each.value) for each in texts_in(code.constant(file, node))}
            if len(found := answer.fields & texts) >= 2:
                yield from ((name, node.lineno) for name in found)


def _not_stored(
    source: Source, code: Code, tied: Tied, read: AbstractSet[str]
) -> Iterator[tuple[str, Finding]]:
    """Yield the fields that the JSON value lacks where it is written out, by their names.

    For sure where it is read, and nothing else in the programs that ask gives an object such an
    entry.
    """
    wanted, names = {*source.analysed}, {*source.storage.analysis[-1:]}
    nodes = [
        (file, node)
        for file, tree in code.modules
        for node in (walked(tree) if file.path in tied.program else ())
    ]
    variables = ast.Name | ast.Attribute
    told = [value for _, node in nodes for key, value in _entries(node, names) if key in names]
    names |= {last_name(value) for value in told if isinstance(value, variables)}
    given = [(file, *each) for file, node in nodes for each in _entries(node, names)]
    made = [(f, v) for f, key, v in given if key in names and not isinstance(v, variables)]
    own = {inner for _, value in made if isinstance(value, ast.Dict) for inner in value.values}
    kept = {key for _, key, value in given if value in own}
    beside = {key for _, key, value in given if value not in own}
    if all(isinstance(v, ast.Dict) for _, v in made) and 2 * len(kept & wanted) > len(wanted):
        place = made[0][0].at(made[0][1].lineno)
        sure = read - beside if not tied.keeps_json else set()
        for field in source.fields if None not in kept else ():
            if field.name in wanted - kept:
                found = _dropped(source, place, field, "stored")
                yield field.name, found if field.name in sure else found.in_doubt()


def _entries(node: ast.AST, names: AbstractSet[str]) -> Iterator[tuple[object, ast.expr]]:
    """Yield the names and values that a node gives an object; None for what it is spread of.

    Of variables, and of what calls are told by name, only these `names`.
    """
    match node:
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                yield key.value if isinstance(key, ast.Constant) else None, value
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute() as target], value=value):
            yield _name_of(target), value
        case ast.Call(func=ast.Attribute(value=of, attr="update" | "setdefault"), args=args):
            yield from ((each.arg, each.value) for each in node.keywords)
            if args:
                yield _name_of(args[0] if len(args) > 1 else of), args[-1]
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.keyword(arg=str(name), value=value)
        ) if name in names:
            yield name, value


def _name_of(node: ast.expr) -> object:
    match node:
        case ast.Subscript(slice=ast.Constant(value=name)) | ast.Constant(value=name):
            return name
    return last_name(node)


def _dropped(source: Source, place: str, field: Field, by: str) -> Finding:
    return Finding(
        place,
        f"{field.name} of an answer is not {by}",
        f"{field.name} is dropped from every answer: it is never stored, and verify would find "
        "each item without it",
        f"{'Read' if by == 'read' else 'Store'} it as the others are{_target(source, field.name)}.",
        Severity.BREAKS,
    )


def _reading(
    source: Source, code: Code, tied: Tied, file: SourceFile, answer: AnswerObject
) -> Iterator[_Reading]:
    named = sum(name.encode() in file.content for name in answer.fields)
    lines = answer.read() if named >= 2 else {}  # which goes through the whole tree
    if lines and any(isinstance(n, Function | ast.For) for n in walked(answer.tree)):
        lines = dict(_listed(code, file, answer)) | lines
    elif not parses(answer.tree):  # names that others read by
        lines = {}
    if len(lines) >= 2:
        stores = any(_stores(source, node) for node in walked(answer.tree))
        is_tied = file.path in tied.parsing
        yield _Reading(file, lines, parses(answer.tree), stores, answer.leaves(), is_tied)


def _doubts(best: _Reading, readings: Sequence[_Reading], unread: Sequence[str]) -> Iterator[str]:
    """Yield why fields that a module does not read may be kept all the same."""
    listed = ", ".join(unread)
    for each in readings:
        if each is not best and not each.parses:
            continue
        if each.leaves is not None:
            yield f"{each.file.at(each.leaves)}: an answer goes on as a whole, maybe with {listed}"
        elif not {*unread}.isdisjoint(each.lines):
            yield f"{best.file.path}: {listed} may be read in {each.file.path}"


def _stores(source: Source, node: ast.AST) -> bool:
    """Return whether a field's column is assigned, or the place of the others is named."""
    match node:
        case ast.Attribute(attr=name, ctx=ast.Store()) | ast.keyword(arg=name):
            return name in source.storage.columns
        case ast.Constant(value=name):
            return name == source.storage.analysis[-1]
    return False


def _target(source: Source, name: str) -> str:
    if source.task.storage is None:
        return ""
    if name in source.storage.columns:
        return f", into the column {name}"
    return f", into {'.'.join((*source.storage.analysis, name))}"
