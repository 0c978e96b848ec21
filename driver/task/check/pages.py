"""The types and pages of the backend's frontend, held against the task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tree_sitter import Node

from driver.task.check.enums import member
from driver.task.check.finding import Compared, Edit, Finding, Severity
from driver.task.check.script import (
    ELSEWHERE,
    Member,
    Part,
    Scripts,
    Shape,
    Values,
    compared,
    quote_of,
    strings_in,
    text_of,
    used,
    walk,
)
from driver.task.check.values import (
    QUERIES,
    choice_of,
    is_named,
    lacking,
    missing_fields,
    unknown_values,
    wanted_fields,
)
from driver.task.render.types import typed
from driver.task.shape import Field, Kind
from driver.task.shape import Shape as TaskShape
from driver.task.source import Source

TYPES = "TypeScript"
PAGES = "Vue"


def compare_types(source: Source, scripts: Scripts) -> Compared:
    """Hold every interface that shares fields with the answer, and each enum, against it."""
    by_name = {field.name: field for field in source.fields}
    findings, checked, seen = list[Finding](), 0, set[tuple[str, int]]()
    for shape in scripts.each_shape():
        members = scripts.inherited(shape)
        findings += [_absent(scripts, shape, field) for field in _missing(source, scripts, shape)]
        if is_named(shape.name, QUERIES) or len(by_name.keys() & members.keys()) < 2:
            continue
        ours = bool(wanted_fields(source, members, shape.name))
        for each in shape.members:
            if (field := by_name.get(each.name)) is not None:
                checked += 1
                for known in _named_by(scripts, shape.part, each):
                    found = _unknown(field, known, seen)
                    findings += found if ours else (replace(one, edit=None) for one in found)
    for field in source.fields:
        choice = choice_of(field.shape)
        for known in scripts.values.get(choice.name, []) if choice else ():
            checked += 1
            findings += _unknown(field, known, seen)
    unclear = [] if checked else ["no interface has two fields of the answer"]
    return Compared(TYPES, tuple(findings), (*scripts.unclear, *unclear), checked)


def _missing(source: Source, scripts: Scripts, shape: Shape) -> list[Field]:
    """Return the fields that a type lacks, and none that it extends: those are named themselves."""
    own = missing_fields(source, scripts.inherited(shape), shape.name)
    bases = scripts.bases(shape) if own else ()
    missed = [missing_fields(source, scripts.inherited(each), each.name) for each in bases]
    return [field for field in own if not any(field in base for base in missed)]


def compare_pages(source: Source, scripts: Scripts) -> Compared:
    """Hold what the pages show, and the values that they ask for, against the answer."""
    names = {field.name for field in source.fields}
    shown = {file.path: set[str]() for file, _, _ in scripts.pages}
    for file, _, parts in scripts.pages:
        for part in parts:
            shown[file.path] |= used(part) & names
    everywhere = {name for each in shown.values() for name in each}
    findings = [each for part in _all_parts(scripts) for each in _never_true(source, part)]
    unclear = list[str]()
    if len(everywhere) >= 2:
        file, line, _ = max(scripts.pages, key=lambda page: len(shown[page[0].path]))
        findings += [
            Finding(
                file.at(line),
                f"no page shows {field.name}",
                f"nobody sees {field.name} ({field.title}) of an answer",
                "Show it (ItemDetails.vue of `driver task render`), if people need it.",
            )
            for field in source.fields
            if field.name not in everywhere
        ]
    elif scripts.pages:
        unclear.append("no page uses two fields of the answer")
    return Compared(PAGES, tuple(findings), tuple(unclear), len(everywhere))


def _all_parts(scripts: Scripts) -> Iterator[Part]:
    known = {(part.file.path, part.base) for part in scripts.parts}
    yield from scripts.parts
    for _, _, parts in scripts.pages:
        yield from (part for part in parts if (part.file.path, part.base) not in known)


def _never_true(source: Source, part: Part) -> Iterator[Finding]:
    by_name = {field.name: field for field in source.fields}
    for name, text in compared(part):
        choice = choice_of(by_name[name].shape) if name in by_name else None
        column = source.storage.columns.get(name)
        known = {"", column.null if column else None}
        known |= {each.value for each in choice.choices} if choice else set()
        if choice and text_of(text) not in known:
            yield Finding(
                part.place(text),
                f"{name} is compared with {text_of(text)!r}, which no answer has",
                "this branch is never taken",
                f"Compare with one of {', '.join(each.value for each in choice.choices)}.",
            )


def _named_by(scripts: Scripts, part: Part, each: Member) -> Iterator[Values]:
    if each.type is None:
        return
    if texts := strings_in(each.type):
        yield Values(part, f"the type of {each.name}", each.node, texts)
    for node in walk(each.type, ELSEWHERE):
        if node.type == "type_identifier":
            found = scripts.only((node.text or b"").decode())
            if found is not None:
                yield found


def _unknown(field: Field, known: Values, seen: set[tuple[str, int]]) -> Iterator[Finding]:
    names = lacking(field, known.values)
    key = known.part.file.path, known.part.base + known.node.start_byte
    if not names or key in seen:
        return
    seen.add(key)
    place, holder = known.part.place(known.node), known.name
    edit = _adding(known, names)
    yield unknown_values(place, field, known.values, names, holder, edit, breaks=False)


def _adding(known: Values, names: list[str]) -> Edit | None:
    last = known.texts[-1]
    quote = quote_of(last)
    if known.kind != "enum":
        before = " | " if known.kind == "union" else ", "
        return known.part.after(last, "".join(f"{before}{quote}{name}{quote}" for name in names))
    if last.parent is None:
        return None
    taken = {_member_name(text) for text in known.texts}
    members = [member(name) for name in names]
    if taken & {*members} or len({*members}) < len(members):
        return None
    line = ", ".join(f"{member(name)} = {quote}{name}{quote}" for name in names)
    return known.part.after(last.parent, f", {line}")


def _member_name(text: Node) -> str:
    """Return what the member of a TypeScript enum is called that a text is the value of."""
    name = text.parent.child_by_field_name("name") if text.parent else None
    return (name.text or b"").decode().strip("'\"") if name else ""


def _absent(scripts: Scripts, shape: Shape, field: Field) -> Finding:
    there = scripts.names_in(shape.part.file)
    line = f"{field.name}: {typed(_written_out(field.shape, there))}"
    return Finding(
        shape.part.place(shape.node),
        f"{shape.name} has no field {field.name}",
        f"pages cannot use {field.name}: tsc refuses it, so it is not shown",
        f"Add `{line}`.",
        Severity.DIFFERS,
        _member_below(shape, line) if _objects(field.shape) <= there else None,
    )


def _member_below(shape: Shape, line: str) -> Edit | None:
    """Return the insertion of a member; None where the last one does not end its line."""
    if not shape.members:
        return None
    node, part = shape.members[-1].node, shape.part
    end = part.base + node.end_byte
    rest = part.file.content[end : part.file.line_end(end)]
    if rest.strip() not in {b"", b";", b","}:
        return None
    return part.below(node, f"{line}{rest.strip().decode()}")


def _written_out(shape: TaskShape, there: set[str]) -> TaskShape:
    """Return a shape that names an enum only where its file has that name: else its values."""
    if shape.entry is not None:
        return replace(shape, entry=_written_out(shape.entry, there))
    known = shape.kind is not Kind.CHOICE or shape.name in there
    return shape if known else replace(shape, name="")


def _objects(shape: TaskShape) -> set[str]:
    """Return the names of the objects in a shape, which cannot be written out."""
    if shape.entry is not None:
        return _objects(shape.entry)
    return {shape.name} if shape.kind is Kind.OBJECT else set()
