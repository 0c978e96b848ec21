"""Python source: literals, imports, comments; what the rendered modules have in common."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

WIDTH = 100


def literal(text: str) -> str:
    """Return a text as a literal in double quotes: what JSON writes, Python and TypeScript read."""
    return json.dumps(text, ensure_ascii=False)


def tuple_of(texts: Iterable[str], indent: str = "") -> str:
    """Return a tuple of texts, over several lines where one is too short."""
    literals = [literal(each) for each in texts]
    if not literals:
        return "()"
    line = f"({', '.join(literals)}{',' if len(literals) == 1 else ''})"
    if len(line) + len(indent) < WIDTH - 20:
        return line
    return "(\n" + "".join(f"{indent}    {each},\n" for each in literals) + f"{indent})"


def imports(wanted: Mapping[str, Iterable[str]], whole: Sequence[str] = ()) -> str:
    """Return import statements: the standard library's first, then the others.

    `wanted` has the names to take from each module, `whole` the modules to import as such.
    """
    lines = [(name, f"import {name}") for name in sorted(set(whole))]
    lines += [(module, _from(module, sorted(set(names)))) for module, names in wanted.items()]
    future = [line for module, line in lines if module == "__future__"]
    own = [line for module, line in lines if is_standard(module) and module != "__future__"]
    others = [line for module, line in lines if not is_standard(module)]
    # `import x` before `from x import y`, each by name, as sorters of imports have it.
    groups = [sorted(each, key=lambda line: (line[0] == "f", line)) for each in (own, others)]
    return "\n\n".join("\n".join(group) for group in (future, *groups) if group)


def is_standard(module: str) -> bool:
    """Return whether a module, or the package it is in, comes with Python."""
    return module.partition(".")[0] in sys.stdlib_module_names


def _from(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def uses(source: str, name: str) -> bool:
    """Return whether a source mentions a name as a word."""
    return re.search(rf"\b{re.escape(name)}\b", source) is not None
