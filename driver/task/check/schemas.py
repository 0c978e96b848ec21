"""The pydantic schemas of a checkout that hold an answer, or a part of one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from driver.task.check import enums
from driver.task.check.answer_object import parses
from driver.task.check.finding import Compared, Edit, Finding, Severity
from driver.task.check.python_code import Attribute, Class, Code, below, instead
from driver.task.check.values import (
    QUERIES,
    SHOWN,
    UPDATES,
    is_named,
    longest,
    missing_fields,
    too_short,
    wanted_fields,
)
from driver.task.render.api_schemas import annotation
from driver.task.shape import Field, Kind, Shape
from driver.task.source import Source

PLACE = "schemas"
_ROOTS = ("BaseModel", "SQLModel")
_LIMITS = "max_length"
_ALIASES = frozenset({"alias", "validation_alias"})
_CHANGES = frozenset(
    {"'allow'", "Extra.allow", "'before'", "'wrap'", "'plain'"}
    | {"BeforeValidator", "WrapValidator", "PlainValidator"}
)
"""What a model's `extra` and the modes of its validators are called, and validators themselves."""


def compare(source: Source, code: Code) -> Compared:
    """Hold every pydantic model that shares fields with the answer against it.

    Only one with more than half of them, which answers are read into or the API gives, surely
    breaks by a limit or a value that it lacks: of others that is in doubt, and left to people.
    """
    by_name = {field.name: field for field in source.fields}
    findings, checked = list[Finding](), 0
    used = {name for _, tree in code.modules if parses(tree) for name in _named(tree)}
    for model in code.each_class():
        shared = by_name.keys() & _filled(code, model)
        if len(shared) < 2 or is_named(model.name, QUERIES) or not code.descends(model, *_ROOTS):
            continue
        mostly = bool(wanted_fields(source, shared, model.name))
        made = [each for each in code.each_class() if model in code.lineage(each)]
        parsed = any(each.name in used for each in made)
        given = any(is_named(each.name, SHOWN) for each in made)
        changed = _is_changed_before(code, model)
        reads = parsed and not is_named(model.name, SHOWN) and not changed
        reads = reads and len({*source.analysed} & shared) >= 2
        findings += [
            _absent(source, code, model, field, reads=reads)
            for field in _missing(source, code, model)
        ]
        sure = mostly and (parsed or given) and not changed
        sure = sure and not is_named(model.name, UPDATES)
        for attribute in model.attributes:
            if (field := by_name.get(attribute.name)) is not None:
                checked += 1
                known = enums.named_by(code, field, attribute)
                findings += enums.compare(
                    (field, replace(each, sure=sure and each.sure)) for each in known
                )
                findings += _limits(source, field, attribute, sure=sure)
    unclear = () if checked else ("no pydantic model has two fields of the answer",)
    return Compared(PLACE, tuple(findings), unclear, checked)


def _named(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module uses or imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield name


def _filled(code: Code, model: Class) -> set[str]:
    """Return the names that a model's fields are filled by: their own, and their aliases."""
    attributes = code.inherited(model)
    return {*attributes} | {
        inner.value
        for each in attributes.values()
        for expression in (each.annotation, each.value)
        for node in (ast.walk(expression) if expression is not None else ())
        if isinstance(node, ast.keyword) and node.arg in _ALIASES
        for inner in ast.walk(node.value)
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
    }


def _is_changed_before(code: Code, model: Class) -> bool:
    """Return whether a model keeps what it has no field for, or changes values before it looks."""
    for node in (node for each in code.lineage(model) for node in ast.walk(each.node)):
        match node:
            case ast.Constant() | ast.Name() | ast.Attribute() if ast.unparse(node) in _CHANGES:
                return True
            case ast.keyword(arg="pre"):  # of pydantic 1
                return True
    return False


def _missing(source: Source, code: Code, model: Class) -> list[Field]:
    """Return the fields that a model lacks, and none of its bases: those are named themselves."""
    own, *bases = (
        missing_fields(source, _filled(code, each), each.name) for each in code.lineage(model)
    )
    return [field for field in own if not any(field in base for base in bases)]


def _limits(source: Source, field: Field, attribute: Attribute, *, sure: bool) -> Iterator[Finding]:
    if field.shape.kind not in {Kind.TEXT, Kind.CHOICE}:
        return
    needed = longest(source, field)
    for expression in (attribute.annotation, attribute.value):
        for node in ast.walk(expression) if expression is not None else ():
            if not isinstance(node, ast.keyword) or node.arg != _LIMITS:
                continue
            limit = node.value
            if isinstance(limit, ast.Constant) and isinstance(limit.value, int):
                if needed is not None and limit.value >= needed:
                    continue
                edit = instead(attribute.file, limit, "None" if needed is None else str(needed))
                place = attribute.file.at(attribute.line)
                found = too_short(place, field, limit.value, needed, edit)
                yield found if sure else _in_doubt(found)


def _in_doubt(found: Finding) -> Finding:
    """Return what differs in a model that may be of something else."""
    effect = "a longer text is refused by what is made with it, if that is an answer"
    return replace(found, leads_to=effect, severity=Severity.DIFFERS, edit=None)


def _absent(source: Source, code: Code, model: Class, field: Field, *, reads: bool) -> Finding:
    """Return a missing field; `reads`: the model is what answers are read with."""
    edits = _adding(source, code, model, field)
    return Finding(
        model.file.at(model.node.lineno),
        f"{model.name} has no field {field.name}",
        f"pydantic drops {field.name} of each answer: it is never stored"
        if reads
        else f"the API does not give {field.name} to pages",
        f"Add {field.name}: {annotation(field.shape, bounded=False)}.",
        Severity.BREAKS if reads else Severity.DIFFERS,
        edits[0] if edits else None,
        edits[1:],
    )


def _adding(source: Source, code: Code, model: Class, field: Field) -> tuple[Edit, ...]:
    """Return the new field behind the model's last one, and the import of its type.

    () where there is no place for either. A date is one where it comes from a column, which gives
    a `date`; the JSON value has a text.
    """
    last = [n for n in model.node.body if isinstance(n, ast.AnnAssign)]
    is_date = field.shape.kind is Kind.DATE and field.name in source.storage.columns
    imported = _importing_date(code, model) if is_date else ()
    if not last or imported is None:
        return ()
    kind = "date" if is_date else _plain(field.shape)
    return below(model.file, last[-1], f"{field.name}: {kind} | None = None"), *imported


def _importing_date(code: Code, model: Class) -> tuple[Edit, ...] | None:
    """Return the import of `date` below a module's first ones; () where it has that already.

    None where the name stands for something else there, or nothing is imported.
    """
    [tree] = [tree for file, tree in code.modules if file is model.file]
    bound = [each for each in map(_date_bound, ast.walk(tree)) if each]
    if bound:
        return () if bound == ["datetime"] else None
    defined = [n.lineno for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    before = [node for node in imports if node.lineno < min(defined)]
    return (below(model.file, before[-1], "from datetime import date"),) if before else None


def _date_bound(node: ast.AST) -> str:
    """Return what module a node takes the name `date` from, "here" where it gives it; or ""."""
    match node:
        case ast.ImportFrom(module=module, names=names):
            return next((module or "here" for n in names if (n.asname or n.name) == "date"), "")
        case ast.Name(id="date", ctx=ast.Store()) | ast.FunctionDef(name="date"):
            return "here"
    return ""


def _plain(shape: Shape) -> str:
    """Return a type of built-in names, since what a module imports is its own business."""
    words = {Kind.NUMBER: "float", Kind.INTEGER: "int", Kind.FLAG: "bool", Kind.OBJECT: "dict"}
    if shape.kind is Kind.LIST and shape.entry:
        return f"list[{_plain(shape.entry)}]"
    return words.get(shape.kind, "str")
