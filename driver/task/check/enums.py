"""The values that Python code knows of an enum: by a class, by Literal, by a named collection."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from driver.task.check.checkout import SourceFile
from driver.task.check.finding import Edit, Finding
from driver.task.check.python_code import (
    CHANGING,
    Attribute,
    Class,
    Code,
    after,
    below,
    last_name,
    texts_in,
)
from driver.task.check.values import choice_of, lacking, unknown_values
from driver.task.check.walked import walked
from driver.task.shape import Field
from driver.task.source import Source

_PLAIN = frozenset(
    {
        *("str", "list", "List", "set", "tuple", "dict", "Any", "None", "Optional", "Union"),
        *("Sequence", "Mapped", "Annotated", "Field", "StringConstraints", "constr"),
    }
)
"""Names in annotations that say nothing of values."""
_CHANGES = re.compile("|".join(CHANGING))
_ENUM_TYPE = re.compile("[A-Z][A-Za-z]*Enum|Enum|ENUM")
"""How SQLAlchemy's types of enums are called where they are imported: Enum, ENUM, SAEnum."""


@dataclass(frozen=True)
class Known:
    """An enum of the backend's, as it stands somewhere."""

    file: SourceFile
    line: int
    holder: str
    values: tuple[str, ...]
    last: ast.expr | ast.stmt
    """What stands before a value that is added: an entry, or of a class a line."""
    is_one_line: bool = False
    """Whether it is a class whose body begins on the line of its head: a line cannot be added."""
    taken: frozenset[str] = frozenset()
    """The names of a class: a member with one of them cannot be added."""
    sure: bool = True
    """Whether it is surely the field's: what is so by its name only may have reasons to differ."""
    made: str = ""
    """Where one is made of something: `Colour(text)`."""

    def adding(self, names: Sequence[str]) -> Edit | None:
        """Return what adds values at its end; None where that would be no valid code."""
        if not isinstance(self.last, ast.stmt):
            quote = _quote(self.file, self.last)
            return after(self.file, self.last, "".join(f", {quote}{n}{quote}" for n in names))
        members = [member(name) for name in names]
        if self.is_one_line or self.taken & {*members} or len({*members}) < len(members):
            return None
        quote = _quote(self.file, getattr(self.last, "value", None))
        lines = [f"{member(name)} = {quote}{name}{quote}" for name in names]
        edit = below(self.file, self.last, lines[0])
        indent = edit.text.removesuffix(lines[0])
        return replace(edit, text="".join(indent + line for line in lines))


def member(value: str) -> str:
    """Return what the member of an enum is called that stands for a value."""
    name = re.sub(r"\W", "_", value.upper())
    return name if name.isidentifier() else f"VALUE_{name}"


def named_by(code: Code, field: Field, attribute: Attribute) -> list[Known]:
    """Return the enums that a field's annotation, or its column's type, names.

    Where a field has an enum, and the annotation names a type that is not understood,
    `code.unclear` says so.
    """
    found = [
        known
        for expression in (attribute.annotation, *_types_in(attribute.value))
        for node in (ast.walk(expression) if expression is not None else ())
        if isinstance(node, ast.expr)
        for known in _in_node(code, attribute, node)
    ]
    if not found and choice_of(field.shape) is not None and attribute.annotation is not None:
        names = {last_name(node) for node in _names(attribute.annotation)} - _PLAIN
        if names:
            place = attribute.file.at(attribute.line)
            code.unclear.append(
                f"{place}: the values of {', '.join(sorted(names))}, of {field.name}"
            )
    return found


def _in_node(code: Code, attribute: Attribute, node: ast.expr) -> Iterator[Known]:
    if isinstance(node, ast.Subscript) and last_name(node) == "Literal":
        yield from _listed(attribute.file, node, "Literal", texts_in(node))
    elif isinstance(node, ast.Call) and _ENUM_TYPE.fullmatch(last_name(node)):
        texts = [each for each in node.args if isinstance(each, ast.Constant)]
        if len(texts) == len(node.args) > 1:  # else it may be a type of the backend's own
            yield from _listed(attribute.file, node, "the column's Enum", texts)
    elif isinstance(node, ast.Name | ast.Attribute):
        enum = code.only(node, attribute.file)
        if enum is not None and enum.is_enum:
            yield from of_class(enum)
        alias = code.constant(attribute.file, node)
        if isinstance(alias, ast.Subscript):
            sure = not _CHANGES.search(ast.unparse(alias))
            literals = [n for n in ast.walk(alias) if isinstance(n, ast.Subscript)]
            for each in (n for n in literals if last_name(n) == "Literal"):
                for known in _listed(attribute.file, each, "Literal", texts_in(each)):
                    yield replace(known, sure=sure)


def _types_in(value: ast.expr | None) -> list[ast.expr]:
    """Return what a column's call is told without a name: the type is among it, no default is."""
    return value.args if isinstance(value, ast.Call) else []


def _names(annotation: ast.expr) -> Iterator[ast.expr]:
    """Yield the names in an annotation, of dotted ones the last part only."""
    nodes = [*ast.walk(annotation)]
    dotted = [node.value for node in nodes if isinstance(node, ast.Attribute)]
    for node in nodes:
        if isinstance(node, ast.Name | ast.Attribute) and node not in dotted:
            yield node


def of_class(enum: Class) -> Iterator[Known]:
    """Yield what an enum's class knows, where its members are texts."""
    body = enum.node.body
    members = [n for n in body if isinstance(n, ast.Assign)]
    if members and len(enum.values) == len(members):
        taken = frozenset(each.name for each in enum.attributes)
        holder, first = f"enum {enum.name}", body[0]
        indent = enum.file.indent(enum.file.offset(first.lineno, 0)).encode()
        one_line = len(indent) < first.col_offset
        line = enum.node.lineno
        found = Known(enum.file, line, holder, enum.values, members[-1], one_line, taken)
        takes_others = any(isinstance(n, ast.FunctionDef) and n.name == "_missing_" for n in body)
        yield replace(found, sure=not takes_others)


def named_alike(code: Code, source: Source) -> Iterator[tuple[Field, Known]]:
    """Yield what is an enum of a field's by its name, and holds one of its values.

    That is a class named like the task's, while no column or schema refers to it (`named_by`), and
    a collection in capitals. Both are in doubt: ALLOWED_PRIORITIES may be a queue's.
    """
    for field in source.fields:
        choice = choice_of(field.shape)
        if choice is None:
            continue
        values = {each.value for each in choice.choices}
        alike = [*_classes(code, choice.name), *_constants(code, field.name, choice.name)]
        yield from ((field, known) for known in alike if values & {*known.values})


def _classes(code: Code, name: str) -> Iterator[Known]:
    for each in code.each_class():
        if each.is_enum and each.name in {name, f"{name}Enum"}:
            for known in of_class(each):
                made = _made_at(code, each) if known.sure else ""
                yield replace(known, sure=False, made=made)


def _made_at(code: Code, enum: Class) -> str:
    calls = ((f, n) for f, tree in code.modules for n in walked(tree) if isinstance(n, ast.Call))
    return next((f.at(n.lineno) for f, n in calls if code.only(n.func, f) is enum), "")


def _constants(code: Code, *words: str) -> Iterator[Known]:
    for file, tree in code.modules:
        for name, value in _capitals(tree):
            if _is_named_after(name, *words) and _is_whole(value):
                listed = _listed(file, value, name, texts_in(value))
                yield from (replace(known, sure=False) for known in listed)


def compare(found: Iterable[tuple[Field, Known]]) -> Iterator[Finding]:
    """Yield a finding for each enum that lacks a value, once."""
    seen = set[tuple[str, int]]()
    for field, told in found:
        known = _as_kept(field, told)
        key = known.file.path, known.last.lineno
        names = lacking(field, known.values)
        if key in seen or not names:
            continue
        seen.add(key)
        edit = known.adding(names) if known is told else None
        place = known.file.at(known.line)
        breaks = unknown_values(place, field, told.values, names, known.holder, edit)
        doubt = f"it has no case for {names[0]}, if it is to have all"
        if known.made:
            doubt = (
                f"the call in {known.made} raises ValueError for {names[0]}, if it is of answers"
            )
        yield breaks if known.sure else breaks.in_doubt(doubt)


def missed(field: Field, found: Iterable[Known]) -> int:
    """Return how many values enums of a field lack."""
    return sum(len(lacking(field, _as_kept(field, each).values)) for each in found)


def knows(field: Field, known: Known) -> bool:
    """Return whether an enum has a value of the field's: else it may be of something else."""
    choice = choice_of(field.shape)
    return choice is not None and missed(field, [known]) < len(choice.choices)


def _as_kept(field: Field, known: Known) -> Known:
    """Return an enum by the names of its members, where none of its values is the task's.

    So SQLAlchemy keeps it, and `Mood[text]` finds it. One that has neither is in doubt, since
    something has to stand between it and the answer.
    """
    choice = choice_of(field.shape)
    wanted = [each.value for each in choice.choices] if choice else []
    if not {*wanted}.isdisjoint(known.values):
        return known
    taken = {name.casefold() for name in known.taken}
    values = tuple(each for each in wanted if each.casefold() in taken)
    return replace(known, values=values, sure=known.sure and bool(values))


def _listed(
    file: SourceFile, node: ast.expr, holder: str, texts: Sequence[ast.Constant]
) -> Iterator[Known]:
    values = tuple(each.value for each in texts if isinstance(each.value, str))
    if values:
        yield Known(file, node.lineno, holder, values, texts[-1])


def _capitals(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.isupper():
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                if name.isupper():
                    yield name, value


def _is_named_after(name: str, *words: str) -> bool:
    """Return whether a constant's name has a word of others', in the singular or plural."""
    parts = {_stem(part) for word in words for part in word.split("_") if len(part) >= 3}
    return not parts.isdisjoint(_stem(part) for part in name.split("_"))


def _stem(word: str) -> str:
    """Return a word without what its plural may change: `categor`, of category and categories."""
    return word.lower().rstrip("esiy")


def _is_whole(node: ast.expr) -> bool:
    """Return whether all entries of a collection are written out: none is a name or unpacked."""
    match node:
        case ast.Call(args=[inner]) | ast.Subscript(slice=inner):
            return _is_whole(inner)
        case ast.List(elts=each) | ast.Tuple(elts=each) | ast.Set(elts=each):
            return all(isinstance(entry, ast.Constant) for entry in each)
    return isinstance(node, ast.Constant)


def _quote(file: SourceFile, node: ast.AST | None) -> str:
    if not isinstance(node, ast.expr):
        return '"'
    start = file.offset(node.lineno, node.col_offset)
    return "'" if file.content[start : start + 1] == b"'" else '"'
