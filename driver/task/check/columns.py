"""The table's model in a checkout, in SQLAlchemy's old style (Column) and new (mapped_column)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from driver.task.check import constraints, enums
from driver.task.check.finding import Compared, Edit, Finding, Severity
from driver.task.check.lengths import CALLS, Limit, limits, type_of
from driver.task.check.python_code import Attribute, Class, Code, instead, is_table, last_name
from driver.task.check.stored import Stored
from driver.task.check.tied import Tied
from driver.task.check.values import entry_of, longest, too_short
from driver.task.check.walked import walked
from driver.task.render.columns import sql
from driver.task.shape import Field, Kind
from driver.task.source import Source

PLACE = "table"
_WITHOUT_COLUMNS = frozenset(
    {"DeclarativeBase", "DeclarativeBaseNoMeta", "MappedAsDataclass", "AsyncAttrs", "SQLModel"}
    | {"declarative_base", "generate_base", "Model", "Generic", "ABC", "Protocol", "object"}
)
"""Bases that are no class of a checkout's, or calls that make one."""
_DECORATORS = frozenset({"mapped", "mapped_as_dataclass", "dataclass", "as_declarative", "final"})
"""Those of a class that add no column to it."""
_OTHERS = frozenset(
    {"Integer", "BigInteger", "SmallInteger", "INTEGER", "BIGINT", "SMALLINT", "Float", "Numeric"}
    | {"Boolean", "Date", "DateTime"}
)
_WORDS = frozenset({Kind.TEXT, Kind.LIST, Kind.OBJECT})
"""What these types do not hold."""


def compare(source: Source, code: Code, tied: Tied) -> Compared:
    """Hold every column of the task's storage against the model of its table.

    One is surely missing where the model's whole body, and all of its bases, can be read. Only of a
    model in a program that asks the model anything is sure, and only where no class of that table
    agrees: a repository may have two of a name, and programs that know some columns only.
    """
    table = source.storage.table
    named = [each for each in code.each_class() if _table_of(each) == table]
    named += [each for each in code.each_class() if _is_kept_in(code, each, named)]
    models = [each for each in named if each.file.path in tied.program]
    is_tied, models = bool(models), models or named
    if not models:
        return Compared(PLACE, unclear=(f"no class has __tablename__ = {table!r}",))
    unclear = list[str]()
    paths = tied.program | code.imports.users({each.file.path for each in models})
    kept = Stored(source, code, paths, frozenset(each.name for each in models))
    held = {e: _of_model(source, kept, e, unclear if e in models else []) for e in named}
    agreed = {name for columns in held.values() for name, found in columns.items() if not found}
    differing = [*_missing(source, code, models, unclear)]
    differing += [(name, e) for m in models for name, found in held[m].items() for e in found]
    findings = dict.fromkeys(
        found if is_tied and name not in agreed else found.in_doubt() for name, found in differing
    )
    checked = sum(len(held[each]) for each in models)
    return Compared(PLACE, tuple(findings), tuple(dict.fromkeys(unclear)), checked)


def _missing(
    source: Source, code: Code, models: Sequence[Class], unclear: list[str]
) -> Iterator[tuple[str, Finding]]:
    """Yield the columns that none of a table's models has; what may be elsewhere is unclear."""
    mapped = [(model, {*_columns(code, model)}) for model in models]
    known = {name for _, columns in mapped for name in columns}
    fullest, _ = max(mapped, key=lambda each: len(source.storage.columns.keys() & each[1]))
    root = source.storage.analysis[:1] if source.analysed else ()
    missing = {*source.storage.columns, *root} - known
    if missing and (reasons := dict.fromkeys(_not_followed(source, code, models, missing))):
        listed = ", ".join(sorted(missing))
        unclear.append(f"{fullest.name} may lack {listed}: {'; '.join(reasons)}")
    else:
        yield from _absent(source, fullest, known)


def _columns(code: Code, model: Class) -> dict[str, Attribute]:
    return {_column_name(each): each for each in code.inherited(model).values()}


def _of_model(
    source: Source, kept: Stored, model: Class, unclear: list[str]
) -> dict[str, list[Finding]]:
    """Return what differs in each column that a model has; [] for one that agrees."""
    columns, found = _columns(kept.code, model), dict[str, list[Finding]]()
    for field, _ in source.columns:
        if (column := columns.get(field.name)) is not None:
            found[field.name] = [*_of_column(source, kept, model, field, column, unclear)]
    for refused, field in constraints.compare(source, kept.code, model, unclear):
        said = _as_kept(kept, refused, field, columns.get(field.name))
        found.setdefault(field.name, []).append(said)
    return found


def _of_column(
    source: Source, kept: Stored, model: Class, field: Field, column: Attribute, unclear: list[str]
) -> Iterator[Finding]:
    values = enums.named_by(kept.code, field, column)
    for found in enums.compare((field, each) for each in values):
        yield _as_kept(kept, found, field, column)
    yield from _of_another_type(field, column)
    for found in _too_short(source, kept.code, model, field, column, unclear):
        yield _as_kept(kept, found, field, column)


def _as_kept(kept: Stored, found: Finding, field: Field, column: Attribute | None) -> Finding:
    """Return what a column refuses, in doubt where it may get other texts than the answer's."""
    where = kept.doubt(field, column.name if column is not None else "")
    effect = f"if {where} stores it as the answer has it: {found.leads_to}" if where else ""
    return found if where is None else found.in_doubt(effect)


def _too_short(
    source: Source, code: Code, model: Class, field: Field, column: Attribute, unclear: list[str]
) -> Iterator[Finding]:
    """Yield that a column of texts, or of arrays of them, is too short."""
    of = ""
    if "ARRAY" in _told(column.value) and (entry := entry_of(field)) is not None:
        field, of = entry, "an entry of "
    if field.shape.kind not in {Kind.TEXT, Kind.CHOICE}:
        return
    for limit in limits(code, model, column):
        length = _number(code, column, limit.argument)
        if length is None:
            unclear.append(f"{column.file.at(column.line)}: the length of {field.name} is computed")
            continue
        needed = longest(source, field)
        if needed is None or length < needed:
            edit = _wider(source, field, column, limit, needed) if limit.is_own else None
            yield too_short(column.file.at(column.line), field, length, needed, edit, of)


def _wider(
    source: Source, field: Field, column: Attribute, limit: Limit, needed: int | None
) -> Edit:
    """Return what gives a column the length that the task names, or none."""
    if needed is not None:
        room = source.storage.columns[field.name].length or needed
        return instead(column.file, limit.argument, str(room))
    if limit.type is None:
        return instead(column.file, limit.argument, "None")
    return instead(column.file, limit.type, f"{_prefix(limit.type)}Text()")


def _of_another_type(field: Field, column: Attribute) -> Iterator[Finding]:
    """Yield that a text, list or object has a column of numbers or days, which may encode it."""
    held = last_name(type_of(column.value))
    if field.shape.kind in _WORDS and held in _OTHERS and "ForeignKey" not in _told(column.value):
        yield Finding(
            column.file.at(column.line),
            f"{field.name} is {held}, and an answer has {field.shape.limits()}",
            "the database refuses it, if the code does not store something else for it",
            "Give it the type that `driver task render` does (columns.py), with a migration.",
        )


def _told(value: ast.expr | None) -> set[str]:
    nodes = ast.walk(value) if value is not None else ()
    return {last_name(each) for each in nodes if isinstance(each, ast.Call)}


def _absent(source: Source, model: Class, columns: set[str]) -> Iterator[tuple[str, Finding]]:
    """Yield what the table lacks, by its name: none of its models has it; the fullest is named."""
    for field, column in source.columns:
        if field.name not in columns:
            yield (
                field.name,
                Finding(
                    model.file.at(model.node.lineno),
                    f"{model.name} has no column {field.name}",
                    f"{field.name} of an answer cannot be stored: it is lost, or the commit fails",
                    f"Add {sql(field.shape, column)}, with the migration that `driver task render` "
                    "makes (columns.py, migration.py).",
                    Severity.BREAKS,
                ),
            )
    root = source.storage.analysis[0]
    if source.analysed and root not in columns:
        yield (
            root,
            Finding(
                model.file.at(model.node.lineno),
                f"{model.name} has no column {root}",
                f"the fields {', '.join(source.analysed)} have no JSON value to be kept in",
                "Add a JSON column, or name the one there is in Task.storage.analysis.",
            ),
        )


def _table_of(each: Class) -> str:
    """Return the table that a class names itself, or ""; SQLModel names one after its class."""
    for attribute in each.attributes:
        if attribute.name == "__tablename__" and isinstance(attribute.value, ast.Constant):
            return str(attribute.value.value)
    return each.name.lower() if is_table(each) else ""


def _is_kept_in(code: Code, each: Class, tables: Sequence[Class]) -> bool:
    """Return whether a class without a table is kept in one of its bases' (single-table
    inheritance), which has its columns too; of SQLModel it is a schema."""
    named = next((one for one in code.lineage(each) if _table_of(one)), None)
    return each is not named and named in tables and not code.descends(each, "SQLModel")


def _belongs(each: Class, table: str) -> bool:
    """Return whether a class has a foreign key to a table."""
    return any(
        isinstance(node, ast.Constant) and str(node.value).startswith(f"{table}.")
        for key in ast.walk(each.node)
        if isinstance(key, ast.Call) and last_name(key) == "ForeignKey"
        for node in key.args
    )


def _not_followed(
    source: Source, code: Code, models: Sequence[Class], missing: set[str]
) -> Iterator[str]:
    """Yield why models may have missing columns all the same; of bases of one name, all count."""
    known = [*models]
    for each in known:  # which grows
        for base in each.node.bases:
            same = code.named(base, each.file)
            known += [one for one in same if one not in known]
            there = {_column_name(a) for one in same for a in code.inherited(one).values()}
            if not same and not _is_without_columns(code, last_name(base)):
                yield f"{ast.unparse(base)}, a base of {each.name}, is not in the checkout"
            elif len(same) > 1 and there & missing:
                yield f"{len(same)} classes are called {ast.unparse(base)}"
        body: list[ast.expr | ast.stmt] = [*each.node.decorator_list, *each.node.body]
        yield from (
            f"{each.file.at(node.lineno)} is not followed"
            for node in body
            if _may_add(node, missing)
        )
    table = source.storage.table
    yield from (
        f"{each.name} at {each.file.at(each.node.lineno)} has such a column of its rows"
        for each in code.each_class()
        if missing & {attribute.name for attribute in each.attributes} and _belongs(each, table)
    )
    names = {each.name for each in models}
    yield from (
        f"{file.at(node.lineno)} is not followed"
        for file, tree in code.modules
        for node in walked(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if node.attr in missing and last_name(node.value) in names
    )


def _may_add(node: ast.stmt | ast.expr, missing: set[str]) -> bool:
    """Return whether a decorator, or a statement that is no plain assignment, may make a column.

    So does a table that is read from the database (`autoload_with`).
    """
    if isinstance(node, ast.expr):
        return last_name(node) not in _DECORATORS
    inner = [*ast.walk(node)]
    if isinstance(node, ast.FunctionDef):
        if node.name in missing:  # a property, say, over another table
            return True
        names = {last_name(each) for each in inner if isinstance(each, ast.Name | ast.Attribute)}
        return "declared_attr" in names and not CALLS.isdisjoint(names)
    match node:
        case ast.AnnAssign() | ast.Assign(targets=[ast.Name()]):
            said = {each.value for each in inner if isinstance(each, ast.Constant)}
            said |= {each.arg for each in inner if isinstance(each, ast.keyword)}
            return "autoload_with" in said
    return any(isinstance(each, ast.Call) and last_name(each) in CALLS for each in inner)


def _is_without_columns(code: Code, base: str) -> bool:
    """Return whether a base is SQLAlchemy's own, or made by it of no class (`cls=`)."""
    if base in _WITHOUT_COLUMNS:
        return True
    made = [value for (_, name), value in code.constants.items() if name == base]
    return bool(made) and all(
        isinstance(value, ast.Call)
        and last_name(value) in _WITHOUT_COLUMNS
        and not any(each.arg == "cls" for each in value.keywords)
        for value in made
    )


def _column_name(attribute: Attribute) -> str:
    """Return the name in the database, which may be another than the attribute's."""
    for node in ast.walk(attribute.value) if attribute.value is not None else ():
        if isinstance(node, ast.Call) and last_name(node) in CALLS:  # within `deferred(…)` as well
            named = [each.value for each in node.keywords if each.arg == "name"]
            for each in [*named, *node.args[:1]]:
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    return each.value
            break
    return attribute.name


def _number(code: Code, column: Attribute, node: ast.expr | None) -> int | None:
    if isinstance(node, ast.Name):
        node = code.constant(column.file, node)
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    return None


def _prefix(node: ast.Call) -> str:
    """Return how the module of types is named before a type: "sa." or nothing."""
    return f"{ast.unparse(node.func.value)}." if isinstance(node.func, ast.Attribute) else ""
