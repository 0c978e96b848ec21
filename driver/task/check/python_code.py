"""The Python of a checkout, by `ast`: its enums, its classes with their fields, its constants."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from driver.task.check.checkout import Checkout, SourceFile
from driver.task.check.finding import Edit
from driver.task.check.imports import Imports, only_imports

Function = ast.FunctionDef | ast.AsyncFunctionDef
CHANGING = frozenset({"BeforeValidator", "WrapValidator", "PlainValidator"})
"""pydantic's validators that may give a field another value than one of its type."""
ROOTS = ("BaseModel", "SQLModel")
"""The classes that every model of pydantic's has among its bases."""
_DEFINED = re.compile(rb"^(?:class[ \t]+(\w+)|(?!__)(\w+)[ \t]*(?:=|:[ \t]*\w))", re.MULTILINE)
"""What a module gives a name to at its top."""
_ENUMS = frozenset({"Enum", "StrEnum", "TextChoices"})


@dataclass(frozen=True)
class Attribute:
    """A field of a class."""

    file: SourceFile
    name: str
    line: int
    annotation: ast.expr | None
    value: ast.expr | None


@dataclass(frozen=True, eq=False)
class Class:
    """A class at the top of a module."""

    file: SourceFile
    node: ast.ClassDef
    attributes: tuple[Attribute, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return self.node.name

    @property
    def bases(self) -> tuple[str, ...]:
        """The last parts of its bases' names."""
        return tuple(name for base in self.node.bases if (name := last_name(base)))

    @property
    def is_enum(self) -> bool:
        """Whether it is an enum."""
        return bool(_ENUMS & {*self.bases})

    @property
    def values(self) -> tuple[str, ...]:
        """The texts that an enum's members stand for."""
        found = (each.value for each in self.attributes)
        return tuple(
            each.value
            for each in found
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        )


@dataclass
class Code:
    """All Python of a checkout that could be parsed."""

    checkout: Checkout
    modules: list[tuple[SourceFile, ast.Module]] = field(default_factory=list)
    classes: dict[str, list[Class]] = field(default_factory=dict)
    """By name: a checkout may have two of one."""
    constants: dict[tuple[str, str], ast.expr] = field(default_factory=dict)
    """What is assigned at the top of a module, by its path and name."""
    unclear: list[str] = field(default_factory=list)
    imports: Imports = field(default_factory=lambda: Imports({}))

    @classmethod
    def read(cls, checkout: Checkout, mention: Callable[[bytes], bool] | None = None) -> Code:
        """Parse every module; one that cannot be is named in `unclear`.

        `mention`: only those whose text has to do with the task, what imports them, and all that
        they import, and what defines a class or constant of the same name. Of the others only the
        imports are known.
        """
        code, files = cls(checkout), [*checkout.of(".py")]
        by_path = {each.path: each for each in files}
        is_named = {each.path: not mention or mention(each.content) for each in files}
        trees = {
            each.path: tree
            for each in files
            if (tree := None if is_named[each.path] else only_imports(each.content))
        }
        whole = {each.path: code._parsed(each) for each in files if each.path not in trees}
        trees |= {path: tree for path, tree in whole.items() if tree is not None}
        code.imports = Imports(trees)
        concerned = code.imports.concerned(path for path in trees if is_named[path])
        known = {name for path in concerned for name in _defined(by_path[path])}
        for file in files:
            if file.path not in concerned and known.isdisjoint(_defined(file)):
                continue
            tree = whole[file.path] if file.path in whole else code._parsed(file)
            if tree is not None:
                code.modules.append((file, tree))
                for node in tree.body:
                    code._take(file, node)
        return code

    def _parsed(self, file: SourceFile) -> ast.Module | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes in others' texts
                return ast.parse(file.content)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.unclear.append(f"{file.path}: not Python that this Python reads ({error})")
        return None

    def _take(self, file: SourceFile, node: ast.stmt) -> None:
        if isinstance(node, ast.ClassDef):
            found = Class(file, node, tuple(_attributes(file, node)))
            self.classes.setdefault(node.name, []).append(found)
        for name, _, value in _assigned(node):
            if value is not None:
                self.constants[file.path, name] = value

    def each_class(self) -> Iterator[Class]:
        """Yield every class."""
        return (each for same in self.classes.values() for each in same)

    def only(self, name: ast.expr, file: SourceFile) -> Class | None:
        """Return the class that a name stands for in a module."""
        same = self.named(name, file)
        return same[0] if len(same) == 1 else None

    def named(self, name: ast.expr, file: SourceFile) -> list[Class]:
        """Return the classes that a name may stand for in a module: its own, or an imported one.

        All of that name where the module does not say where it has it from.
        """
        same, origin = self.classes.get(last_name(name), []), self.imports.origin(file.path, name)
        own = [each for each in same if each.file is file]
        if own and not isinstance(name, ast.Attribute):
            return own
        if origin is None:
            return same
        return [each for each in self.classes.get(origin[1], []) if each.file.path == origin[0]]

    def constant(self, file: SourceFile, name: ast.Name | ast.Attribute) -> ast.expr | None:
        """Return what a name stands for in a module, or in the only one that assigns it."""
        last, origin = last_name(name), self.imports.origin(file.path, name)
        if origin is not None:
            return self.constants.get(origin)
        if (own := self.constants.get((file.path, last))) is not None:
            return own
        found = [value for (_, other), value in self.constants.items() if other == last]
        return found[0] if len(found) == 1 else None

    def descends(self, each: Class, *roots: str) -> bool:
        """Return whether a class has one of these names among its bases, or theirs."""
        return any(base in roots for one in self.lineage(each) for base in one.bases)

    def inherited(self, each: Class) -> dict[str, Attribute]:
        """Return the attributes of a class and its bases by name, its own before theirs."""
        found: dict[str, Attribute] = {}
        for one in reversed(self.lineage(each)):
            found |= {attribute.name: attribute for attribute in one.attributes}
        return found

    def lineage(self, each: Class) -> list[Class]:
        """Return a class and all its bases that are known, each once, the nearest first."""
        found, at = [each], 0
        while at < len(found):
            for base in found[at].node.bases:
                inner = self.only(base, found[at].file)
                if inner is not None and inner not in found:
                    found.append(inner)
            at += 1
        return found


def is_table(each: Class) -> bool:
    """Return whether a class of SQLModel's is a table, which holds rows as they are."""
    return any(ast.unparse(told) == "table=True" for told in each.node.keywords)


def last_name(node: ast.expr | None) -> str:
    """Return the last part of a dotted name, also of one that is called or subscripted."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(attr=name):
            return name
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return last_name(inner)
    return ""


def parameters(function: Function) -> list[str]:
    """Return the names of what a function takes, but for an object's own."""
    known = function.args
    names = [each.arg for each in (*known.posonlyargs, *known.args, *known.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def given(function: Function, call: ast.Call) -> dict[str, ast.expr]:
    """Return what a call gives a function's parameters, as far as their places are sure."""
    taken = parameters(function)
    named = {each.arg: each.value for each in call.keywords if each.arg in taken}
    placed = takewhile(lambda each: not isinstance(each, ast.Starred), call.args)
    return dict(zip(taken, placed, strict=False)) | named


def texts_in(node: ast.expr | None) -> list[ast.Constant]:
    """Return the texts of a literal list, tuple, set, `frozenset(…)` or `Literal[…]`."""
    match node:
        case ast.Call(args=[inner]) if last_name(node) in {"frozenset", "set", "tuple", "list"}:
            return texts_in(inner)
        case ast.Subscript(slice=inner) if last_name(node) == "Literal":
            return texts_in(inner) if isinstance(inner, ast.Tuple) else _texts([inner])
        case ast.List(elts=each) | ast.Tuple(elts=each) | ast.Set(elts=each):
            return _texts(each)
    return []


def after(file: SourceFile, node: ast.expr | ast.stmt, text: str) -> Edit:
    """Return the insertion of a text right behind a node."""
    end = file.offset(node.end_lineno or node.lineno, node.end_col_offset or 0)
    return Edit(file.path, end, end, text)


def below(file: SourceFile, node: ast.stmt, line: str) -> Edit:
    """Return the insertion of a line below a statement, indented as it is."""
    end = after(file, node, "").end
    place, indent = file.line_end(end), file.indent(file.offset(node.lineno, 0))
    return Edit(file.path, place, place, f"{file.newline}{indent}{line}")


def instead(file: SourceFile, node: ast.expr, text: str) -> Edit:
    """Return the replacement of a node."""
    start = file.offset(node.lineno, node.col_offset)
    return Edit(file.path, start, after(file, node, "").end, text)


def _defined(file: SourceFile) -> set[bytes]:
    return {each[1] or each[2] for each in _DEFINED.finditer(file.content)}


def _texts(nodes: list[ast.expr]) -> list[ast.Constant]:
    return [n for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def _attributes(file: SourceFile, node: ast.ClassDef) -> Iterator[Attribute]:
    for statement in node.body:
        for name, annotation, value in _assigned(statement):
            yield Attribute(file, name, statement.lineno, annotation, value)


def _assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    match node:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            yield name, annotation, value
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, None, value
