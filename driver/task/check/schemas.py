"""The pydantic schemas of a checkout that hold an answer, or a part of one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from driver.task.check import enums
from driver.task.check.finding import Compared, Edit, Finding, Severity
from driver.task.check.models import Models, limits
from driver.task.check.python_code import Attribute, Class, Code, below, instead
from driver.task.check.stored import Stored
from driver.task.check.tied import Tied
from driver.task.check.values import SHOWN, entry_of, is_named, longest, too_short
from driver.task.shape import Field, Kind, Shape
from driver.task.source import Source

PLACE = "schemas"
_EFFECT = "what is made with it is refused, if that is an answer or an item as a whole"
_UNCUT = f"{_EFFECT}, and its texts are not cut before"
_LOST = "an answer with more is refused when it is parsed: nothing of it is stored"
_WIDEN = "Widen it, or take the limit out."


def compare(source: Source, code: Code, tied: Tied) -> Compared:
    """Hold every pydantic model that shares fields with the answer against it."""
    by_name = {field.name: field for field in source.fields}
    models, kept = Models(source, code, tied), Stored(source, code, tied.program, frozenset())
    findings, checked = list[Finding](), 0
    for model in models.all:
        for absent in models.missing(model):
            found = _absent(source, models, model, absent)
            found = found if models.drops(model, absent.name) else found.in_doubt()
            edits = _adding(source, code, model, absent) if model in models.gaining else ()
            findings.append(replace(found, edit=edits[0], also=edits[1:]) if edits else found)
    of_small = (a for model in models.all for a in code.inherited(model).values())
    every = [*(a for model in models.all for a in model.attributes), *of_small]
    for attribute in {id(each): each for each in every}.values():
        if (field := by_name.get(attribute.name)) is not None:
            checked += 1
            findings += _enums(code, models, kept, field, attribute)
            findings += _limits(code, source, models, kept, field, attribute)
    unclear = () if checked else ("no pydantic model has two fields of the answer",)
    return Compared(PLACE, tuple(findings), unclear, checked)


def _enums(
    code: Code, models: Models, kept: Stored, field: Field, attribute: Attribute
) -> Iterator[Finding]:
    """Yield the enums of a field that lack a value; one that has none of them is another's."""
    known = enums.named_by(code, field, attribute)
    if enums.missed(field, known):
        sure = models.is_widest(field, attribute, by_limit=False) and not kept.doubt(field)
        known = [each for each in known if sure or enums.knows(field, each)]
        for found in enums.compare((field, each) for each in known):
            yield found if sure else found.in_doubt(_EFFECT)


def _limits(
    code: Code, source: Source, models: Models, kept: Stored, field: Field, attribute: Attribute
) -> Iterator[Finding]:
    """Yield what a field's texts or entries are limited to, and the texts of its entries."""
    for part, of in ((field, ""), (entry_of(field), "an entry of ")):
        if part is None or part.shape.kind not in {Kind.TEXT, Kind.CHOICE, Kind.LIST}:
            continue
        needed = longest(source, part)
        for node, limit, is_own in limits(code, part, attribute):
            if needed is None or limit < needed:
                wanted = "None" if needed is None else str(needed)
                edit = instead(attribute.file, node, wanted) if is_own else None
                place = attribute.file.at(attribute.line)
                told = too_short(place, part, limit, needed, edit, of)
                found = replace(told, leads_to=_LOST, todo=_WIDEN)
                sure = models.is_widest(part, attribute, by_limit=True)
                sure = sure and not kept.doubt(field)
                yield found if sure else found.in_doubt(_UNCUT)


def _absent(source: Source, models: Models, model: Class, field: Field) -> Finding:
    """Return a missing field, as what answers are parsed into drops it, or the API lacks it."""
    is_parsed = models.is_parsed(model)
    leads_to = f"what is made with it has no {field.name}: it is not stored, or pages lack it"
    if is_parsed:
        leads_to = f"pydantic drops {field.name} of each answer: it is never stored"
    elif model in models.items or is_named(model.name, SHOWN):
        leads_to = f"the API does not give {field.name} to pages"
    return Finding(
        model.file.at(model.node.lineno),
        f"{model.name} has no field {field.name}",
        leads_to,
        f"Add {_added(source, field)}.",
        Severity.BREAKS if is_parsed else Severity.DIFFERS,
    )


def _adding(source: Source, code: Code, model: Class, field: Field) -> tuple[Edit, ...]:
    """Return the new field behind the model's last one, and the import of its type.

    () where there is no place for either.
    """
    last = [n for n in model.node.body if isinstance(n, ast.AnnAssign)]
    imported = _importing_date(code, model) if _is_date(source, field) else ()
    if not last or imported is None:
        return ()
    return below(model.file, last[-1], _added(source, field)), *imported


def _added(source: Source, field: Field) -> str:
    """Return the line of a new field."""
    kind = "date" if _is_date(source, field) else _plain(field.shape)
    return f"{field.name}: {kind} | None = None"


def _is_date(source: Source, field: Field) -> bool:
    """Return whether a field is a date: its column gives one, while the JSON value has a text."""
    return field.shape.kind is Kind.DATE and field.name in source.storage.columns


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
