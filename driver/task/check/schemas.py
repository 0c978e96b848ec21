"""The pydantic schemas of a checkout that hold an answer, or a part of one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from driver.task.check import enums
from driver.task.check.finding import Compared, Edit, Finding, Severity
from driver.task.check.python_code import Attribute, Class, Code, below, instead
from driver.task.check.tied import Tied
from driver.task.check.values import (
    QUERIES,
    SHOWN,
    is_named,
    longest,
    missing_fields,
    too_short,
)
from driver.task.render.api_schemas import annotation
from driver.task.shape import Field, Kind, Shape
from driver.task.source import Source

PLACE = "schemas"
_ROOTS = ("BaseModel", "SQLModel")
_LIMITS = "max_length"
_EFFECT = "what is made with it is refused, if that is an answer or an item as a whole"
_ALIASES = frozenset({"alias", "validation_alias"})
_CHANGES = frozenset(
    {"'allow'", "Extra.allow", "'before'", "'wrap'", "'plain'"}
    | {"BeforeValidator", "WrapValidator", "PlainValidator"}
)
"""What a model's `extra` and the modes of its validators are called, and validators themselves."""


def compare(source: Source, code: Code, tied: Tied) -> Compared:
    """Hold every pydantic model that shares fields with the answer against it.

    Of two kinds a difference breaks: models that answers are parsed into, with most of their
    fields, and those that the API gives of a whole item. Any other may be narrower on purpose.
    """
    by_name = {field.name: field for field in source.fields}
    models = [
        each
        for each in code.each_class()
        if len(by_name.keys() & _filled(code, each)) >= 2
        and not is_named(each.name, QUERIES)
        and code.descends(each, *_ROOTS)
    ]
    firm = [each for each in models if not _is_changed_before(code, each)]
    read = [each for each in firm if each in tied.parsed and _has_most(source, code, each)]
    items = [each for each in models if _is_item(source, code, each)]
    given = [each for each in items if each in firm and is_named(each.name, SHOWN)]
    findings, checked = list[Finding](), 0
    for model in models:
        findings += [
            _absent(source, code, model, field, reads=_loses(code, tied, model, field, read))
            for field in _missing(source, code, models, model)
        ]
        for attribute in model.attributes:
            if (field := by_name.get(attribute.name)) is not None:
                checked += 1
                found = [*_narrower(source, code, field, attribute)]
                sure = _is_widest(source, code, field, attribute, read, read)
                sure = sure or _is_widest(source, code, field, attribute, given, items)
                findings += found if sure else [each.in_doubt(_EFFECT) for each in found]
    unclear = () if checked else ("no pydantic model has two fields of the answer",)
    return Compared(PLACE, tuple(findings), unclear, checked)


def _has_most(source: Source, code: Code, model: Class) -> bool:
    return 2 * len({each.name for each in source.fields} & _filled(code, model)) > len(
        source.fields
    )


def _is_item(source: Source, code: Code, model: Class) -> bool:
    """Return whether a model has most columns and the JSON value beside them."""
    there, columns = _filled(code, model), {*source.storage.columns}
    whole = not source.analysed or source.storage.analysis[0] in there
    return whole and 2 * len(columns & there) > len(columns)


def _narrower(source: Source, code: Code, field: Field, attribute: Attribute) -> Iterator[Finding]:
    """Yield what a model's field refuses of an answer's, as what breaks."""
    yield from enums.compare((field, each) for each in enums.named_by(code, field, attribute))
    yield from _limits(source, field, attribute)


def _is_widest(
    source: Source,
    code: Code,
    field: Field,
    attribute: Attribute,
    models: Sequence[Class],
    others: Sequence[Class],
) -> bool:
    """Return whether an attribute is that of one of these models, and no other takes all."""

    def counts(kind: Sequence[Class]) -> list[Attribute]:
        found = (code.inherited(each).get(field.name) for each in kind)
        return [each for each in found if each is not None]

    return attribute in counts(models) and all(
        any(_narrower(source, code, field, each)) for each in counts(others)
    )


def _loses(code: Code, tied: Tied, model: Class, field: Field, read: Sequence[Class]) -> bool:
    """Return whether a field is dropped that a model lacks: nothing else takes it from answers."""
    if tied.keeps_json or any(field.name in _filled(code, each) for each in tied.parsed):
        return False
    return any(model in code.lineage(each) for each in read)


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


def _missing(source: Source, code: Code, models: Sequence[Class], model: Class) -> list[Field]:
    """Return the fields that a model lacks, and none of its bases: those are named themselves.

    A base has what a class has that is made of it.
    """

    def lacking(one: Class) -> list[Field]:
        made = {name for m in models if one in code.lineage(m) for name in _filled(code, m)}
        return [
            field
            for field in missing_fields(source, _filled(code, one), one.name)
            if field.name not in made
        ]

    bases = [lacking(each) for each in code.lineage(model)[1:]]
    return [field for field in lacking(model) if not any(field in base for base in bases)]


def _limits(source: Source, field: Field, attribute: Attribute) -> Iterator[Finding]:
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
                yield too_short(place, field, limit.value, needed, edit)


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
