"""The types and pages of the backend's frontend, held against the task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from driver.task.check.constants import Part, Values
from driver.task.check.enums import member
from driver.task.check.finding import Compared, Edit, Finding, Severity
from driver.task.check.script import Member, Scripts, Shape, compared, listed, used
from driver.task.check.syntax import decoded, name_of, quote_of, strings_in, text_of
from driver.task.check.type_nodes import Table
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
_REFUSED = "the schema refuses an item with such a value: its page is an error"
_Key = tuple[str, int]


def compare_types(source: Source, scripts: Scripts) -> Compared:
    """Hold every interface that shares fields with the answer, and each enum, against it.

    So each schema of zod's, and each table by an enum (`Record<Colour, string>`).
    """
    by_name = {field.name: field for field in source.fields}
    findings, checked, seen = list[Finding](), 0, set[_Key]()
    enums, unclear = dict[_Key, Field](), list[str]()
    for shape in scripts.each_shape():
        members = scripts.inherited(shape)
        missing = _missing(source, scripts, shape)
        if missing and (foreign := scripts.unknown(shape)):
            lacks = ", ".join(field.name for field in missing)
            unclear.append(f"{shape.name} may lack {lacks}: {foreign[0]} is not in the checkout")
        else:
            findings += [_absent(scripts, shape, field) for field in missing]
        if is_named(shape.name, QUERIES) or len(by_name.keys() & members.keys()) < 2:
            continue
        ours = bool(wanted_fields(source, members, shape.name))
        for each in shape.members:
            if (field := by_name.get(each.name)) is not None:
                checked += 1
                known = _allowed(scripts, each)
                enums |= {_key(one): field for one in known} if ours else {}
                found = _of_member(field, shape, known, seen)
                findings += found if ours else (replace(one, edit=None) for one in found)
    for field in source.fields:
        choice = choice_of(field.shape)
        for one in scripts.values.get(choice.name, []) if choice else ():
            checked += 1
            enums[_key(one)] = field
            findings += _unknown(field, one, seen)
    findings += [each for table in scripts.tables for each in _incomplete(scripts, table, enums)]
    unclear += [] if checked else ["no interface has two fields of the answer"]
    return Compared(TYPES, tuple(findings), (*scripts.unclear, *unclear), checked)


def _of_member(
    field: Field, shape: Shape, known: list[Values], seen: set[_Key]
) -> Iterator[Finding]:
    """Yield what a field of a type does not know: of several unions, what none of them has."""
    if lacking(field, [value for each in known for value in each.values]):
        for each in known:
            for found in _unknown(field, each, seen):
                yield replace(found, leads_to=_REFUSED) if shape.is_schema else found


def _incomplete(scripts: Scripts, table: Table, enums: dict[_Key, Field]) -> Iterator[Finding]:
    """Yield that a table by a field's enum lacks one of its values."""
    for known in _keyed_by(scripts, table):
        field = enums.get(_key(known))
        keys = scripts.constants.words(table.part, table.keys)
        names = lacking(field, keys) if field is not None and keys is not None else []
        if names:
            listed = ", ".join(names)
            yield Finding(
                table.part.place(table.node),
                f"{table.name} has no entry for {listed}",
                f"tsc refuses it, and pages show nothing where they look up {names[0]}",
                f"Add {listed}.",
            )


def _keyed_by(scripts: Scripts, table: Table) -> Iterator[Values]:
    """Yield the enums that a table has entries for, also those of a field: `Item["colour"]`."""
    yield from scripts.allowed(table.part, table.by)
    if table.by.type == "lookup_type":
        of, index = table.by.named_children[0], table.by.named_children[-1]
        for shape in scripts.shapes.get(decoded(of), ()):
            for member in (scripts.inherited(shape).get(text_of(t)) for t in strings_in(index)):
                yield from _allowed(scripts, member) if member is not None else ()


def _missing(source: Source, scripts: Scripts, shape: Shape) -> list[Field]:
    """Return the fields that a type lacks, and none that it extends: those are named themselves."""
    if not scripts.is_whole(shape):
        return []
    own, *missed = (
        missing_fields(source, {_snake(n) for n in scripts.inherited(each)}, each.name)
        for each in (shape, *scripts.bases(shape))
    )
    return [field for field in own if not any(field in base for base in missed)]


def compare_pages(source: Source, scripts: Scripts) -> Compared:
    """Hold what the pages show, and the values that they ask for, against the answer."""
    names = {field.name for field in source.fields}
    shown = {file.path: set[str]() for file, _, _ in scripts.pages}
    for file, _, parts in scripts.pages:
        for part in parts:
            shown[file.path] |= {_snake(each) for each in used(part)} & names
        shown[file.path] |= {_snake(each) for each in listed(parts)} & names
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


def _snake(name: str) -> str:
    """Return a name as the task writes it: an API may give it in camelCase."""
    return re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


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


def _allowed(scripts: Scripts, each: Member) -> list[Values]:
    """Return the values that a field's type, or what a schema says of it, names."""
    if each.type is None:
        return []
    texts, name = strings_in(each.type), f"the type of {each.name}"
    if each.is_of_schema:
        found = scripts.constants.allowed(each.part, each.type)
        return [replace(found, name=found.name or name)] if found is not None else []
    written = [Values(each.part, name, each.node, texts)] if texts else []
    return [*written, *scripts.allowed(each.part, each.type)]


def _key(known: Values) -> _Key:
    return known.part.file.path, known.part.base + known.node.start_byte


def _unknown(field: Field, known: Values, seen: set[_Key]) -> Iterator[Finding]:
    names = lacking(field, known.values)
    key = _key(known)
    if not names or key in seen:
        return
    seen.add(key)
    place, holder = known.part.place(known.node), known.name
    edit = _adding(known, names)
    yield unknown_values(place, field, known.values, names, holder, edit, breaks=False)


def _adding(known: Values, names: list[str]) -> Edit | None:
    if known.kind == "other":
        return None
    last = known.texts[-1]
    quote = quote_of(last)
    if known.kind != "enum":
        before = " | " if known.kind == "union" else ", "
        return known.part.after(last, "".join(f"{before}{quote}{name}{quote}" for name in names))
    if last.parent is None:
        return None
    taken = {name_of(text.parent) for text in known.texts if text.parent}
    members = [member(name) for name in names]
    if taken & {*members} or len({*members}) < len(members):
        return None
    line = ", ".join(f"{member(name)} = {quote}{name}{quote}" for name in names)
    return known.part.after(last.parent, f", {line}")


def _absent(scripts: Scripts, shape: Shape, field: Field) -> Finding:
    there = scripts.names_in(shape.part.file)
    line = f"{field.name}: {typed(_written_out(field.shape, there))}"
    is_known = _objects(field.shape) <= there
    return Finding(
        shape.part.place(shape.node),
        f"{shape.name} has no field {field.name}",
        f"zod drops {field.name} of what the API gives, so it is not shown"
        if shape.is_schema
        else f"pages cannot use {field.name}: tsc refuses it, so it is not shown",
        f"Add {field.name}." if shape.is_schema else f"Add `{line}`.",
        Severity.DIFFERS,
        _member_below(shape, line) if is_known and not shape.is_schema else None,
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
