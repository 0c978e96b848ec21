"""Which modules of a checkout import which, and where a name that one imports is defined."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from driver.task.check.walked import walked

OUTSIDE = ""
"""The path of what is imported and is not in the checkout, such as a package's."""
_INIT = "__init__.py"
_IMPORT = re.compile(
    rb"^[ \t]*((?:from[ \t]+[\w.]+[ \t]+import|import)\b[^\n\r(#]*(?:\([^)]*\))?)", re.MULTILINE
)


@dataclass
class Imports:
    """The imports of all modules, also of those within functions; paths are the checkout's."""

    trees: dict[str, ast.Module]
    _ends: dict[str, list[str]] = field(default_factory=dict)
    """The paths that a dotted name may stand for, by each end of theirs, with slashes."""
    _bound: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    """By path and name: the module that it comes from, and its name there, "" for the module."""
    _stars: dict[str, list[str]] = field(default_factory=dict)
    """The modules that one imports all names of."""
    _edges: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read them."""
        for path in self.trees:
            parts = path.removesuffix(f"/{_INIT}").removesuffix(".py").split("/")
            for start in range(len(parts)):
                self._ends.setdefault("/".join(parts[start:]), []).append(path)
        for path, tree in self.trees.items():
            self._bound[path], self._stars[path] = {}, []
            for node in walked(tree):
                self._take(path, node)

    def origin(self, path: str, node: ast.expr) -> tuple[str, str] | None:
        """Return the module and name that a name, dotted or not, stands for in a module.

        The module is `OUTSIDE` where it is imported and not in the checkout. None: the module does
        not say where it has the name from, or has it itself.
        """
        dotted = _dotted(node)
        if dotted is None:
            return None
        holder, _, name = dotted.rpartition(".")
        if not holder:
            return self._defined(path, name)
        module = self._bound.get(path, {}).get(holder)
        if module is None:
            known = self._bound.get(path, {}).get(holder.partition(".")[0])
            return (OUTSIDE, name) if known and known[0] == OUTSIDE else None
        return None if module[1] else (self._defined(module[0], name) or (module[0], name))

    def reached(self, starts: Iterable[str]) -> frozenset[str]:
        """Return modules with all that they import, and what that does.

        Of a package's `__init__` only the names are followed that are imported from it: it may
        import all that there is.
        """
        found = list(dict.fromkeys(starts))
        known, first = {*found}, {*found}
        for path in found:  # which grows
            if path in first or not path.endswith(_INIT):
                more = self.imported_by(path) - known
                found += sorted(more)
                known |= more
        return frozenset(known)

    def concerned(self, by: Iterable[str]) -> frozenset[str]:
        """Return modules with all that they import, also by packages, and what imports them."""
        starts = [*by]
        found = list(starts)
        known = {*found}
        for path in found:  # which grows
            more = {*self.imported_by(path), *(where for where, _ in self._bound[path].values())}
            more -= known | {OUTSIDE}
            found += sorted(more)
            known |= more
        return frozenset(known | self.importers(starts))

    def importers(self, of: Iterable[str]) -> frozenset[str]:
        """Return the modules that import one of these, without these."""
        wanted = {*of}
        return frozenset(p for p in self.trees if p not in wanted and self.imported_by(p) & wanted)

    def users(self, of: Iterable[str]) -> frozenset[str]:
        """Return modules with what imports them, and what imports that."""
        found = frozenset(of)
        while more := self.importers(found):
            found |= more
        return found

    def imported_by(self, path: str) -> frozenset[str]:
        """Return the modules that one imports, or a name of."""
        if path not in self._edges:
            self._edges[path] = frozenset(self._imported_by(path) - {OUTSIDE, path})
        return self._edges[path]

    def _imported_by(self, path: str) -> set[str]:
        found = {where for where, _ in map(self._final, self._bound[path].values())}
        for star in self._stars[path]:
            found |= {star, *(where for where, _ in map(self._final, self._bound[star].values()))}
        return found

    def _defined(self, path: str, name: str) -> tuple[str, str] | None:
        bound = self._bound.get(path, {}).get(name)
        return self._final(bound) if bound else None

    def _final(self, bound: tuple[str, str]) -> tuple[str, str]:
        """Follow a name through the modules that only hand it on."""
        for _ in range(10):
            following = self._bound.get(bound[0], {}).get(bound[1])
            if following is None or following == bound:
                break
            bound = following
        return bound

    def _take(self, path: str, node: ast.AST) -> None:
        bound = self._bound[path]
        match node:
            case ast.Import(names=names):
                for each in names:
                    bound[each.asname or each.name] = (self._found(path, each.name), "")
            case ast.ImportFrom(module=module, names=names, level=level):
                for each in names:
                    where = self._of(path, module or "", level)
                    inner = self._of(path, f"{module}.{each.name}" if module else each.name, level)
                    if each.name == "*":
                        self._stars[path] += [where] if where else []
                    elif inner != OUTSIDE:
                        bound[each.asname or each.name] = (inner, "")
                    else:
                        bound[each.asname or each.name] = (where, each.name)

    def _of(self, path: str, module: str, level: int) -> str:
        """Return the module that an import names; `level`: of so many folders above, 0 for none."""
        if not level:
            return self._found(path, module) if module else OUTSIDE
        above = [*PurePosixPath(path).parents]
        folder = above[min(level, len(above)) - 1]
        base = str(folder / module.replace(".", "/") if module else folder)
        ends = (f"{base}.py", f"{base}/{_INIT}" if base != "." else _INIT)
        return next((each for each in ends if each in self.trees), OUTSIDE)

    def _found(self, path: str, module: str) -> str:
        """Return the module of an absolute name: of several the one that lies nearest.

        A folder that is a package itself is no place that Python imports from.
        """
        if module.partition(".")[0] in sys.stdlib_module_names:
            return OUTSIDE
        end = module.replace(".", "/")
        there = [each for each in self._ends.get(end, []) if self._is_importable(path, each, end)]
        return max(there, key=lambda each: (_shared(path, each), -len(each)), default=OUTSIDE)

    def _is_importable(self, by: str, path: str, end: str) -> bool:
        stem = path.removesuffix(f"/{_INIT}").removesuffix(".py")
        root = stem.removesuffix(end).rstrip("/")
        own = str(PurePosixPath(by).parent)
        return f"{root}/{_INIT}" not in self.trees or (root == own and path != by)


def only_imports(content: bytes) -> ast.Module | None:
    """Return a module's imports, without the rest of it; None where its text alone does not say."""
    found = [each[1] for each in _IMPORT.finditer(content)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(b"\n".join(found)) if b"\\" not in b"".join(found) else None
        except (SyntaxError, ValueError):  # words of a text, or another form of import
            return None


def _dotted(node: ast.expr) -> str | None:
    """Return a dotted name, also of one that is called or subscripted; None for anything else."""
    parts = list[str]()
    while True:
        match node:
            case ast.Name(id=name):
                return ".".join([name, *reversed(parts)])
            case ast.Attribute(value=inner, attr=name):
                parts.append(name)
                node = inner
            case ast.Call(func=inner) | ast.Subscript(value=inner) if not parts:
                node = inner
            case _:
                return None


def _shared(one: str, other: str) -> int:
    """Return how many folders two paths begin with together."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), 0)


def names_in(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield every name and attribute that is read."""
    for node in walked(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node
