"""parser.py: the answer and how it is read, for a backend that has no access to this project.

Made of the sources themselves: of the module in which the task defines its answer, enums and
constraints between fields included, and of tasks/parsing.py. So there is nothing to drift apart.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from dataclasses import dataclass

from driver.task.render import python
from driver.task.shape import TaskUnrenderable
from driver.task.source import Source
from tasks import parsing

_DOCUMENTATION = '''"""Reads the answers of {task}: `parse(text)` gives {answer} or says why not.

Needs pydantic only.
"""'''

_PARSE = '''
def parse(text: str) -> {answer}:
    """Return the answer in `text`; `InvalidAnswer` says what it lacks."""
    return parse_answer({answer}, text)
'''


def render(source: Source) -> str:
    """Return one module of the two; raises `TaskUnrenderable` where they cannot be one."""
    model = source.task.output
    if "." in model.__qualname__:
        raise _apart(
            model.__module__,
            f"{model.__qualname__} is not at the top of its module",
            "Define it there, and nowhere inside of another class or function.",
        )
    answer = _Module.read(model.__module__)
    reading = _Module.read(parsing.__name__)
    if both := answer.names & reading.names | answer.names & {"parse"}:
        raise _apart(
            model.__module__, f"the parser has a {min(both)} of its own", "Give it another name."
        )
    wanted: dict[str, set[str]] = {}
    for module, name in sorted(answer.taken | reading.taken):
        wanted.setdefault(module, set()).add(name)
    return "\n".join(
        [
            f"# {source.mark}",
            _DOCUMENTATION.format(task=source.task.name, answer=source.answer),
            "",
            python.imports(wanted, sorted(answer.whole | reading.whole)),
            f"\n\n{answer.body}\n\n\n{reading.body}\n",
            _PARSE.format(answer=source.answer),
        ]
    )


@dataclass(frozen=True)
class _Module:
    """A source, taken apart."""

    whole: frozenset[str]
    """Modules that it imports as such, with an "as" where it has one."""
    taken: frozenset[tuple[str, str]]
    """Module and name of what it imports from one."""
    body: str
    """The rest, without the module's docstring."""
    names: frozenset[str]
    """What it defines at its top."""

    @classmethod
    def read(cls, name: str) -> _Module:
        text = inspect.getsource(importlib.import_module(name))
        tree = ast.parse(text)
        whole, taken = set[str](), set[tuple[str, str]]()
        dropped = list[ast.stmt]()
        if ast.get_docstring(tree) is not None:
            dropped.append(tree.body[0])
        for node in tree.body:
            if isinstance(node, ast.Import):
                whole |= {_as_named(alias) for alias in node.names}
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [("." * node.level) + (node.module or "")]
                taken |= {(modules[0], _as_named(alias)) for alias in node.names}
            else:
                continue
            dropped.append(node)
            for module in modules:
                _require_everywhere(name, module)
        return cls(frozenset(whole), frozenset(taken), _without(text, dropped), _defined(tree))


def _require_everywhere(importer: str, module: str) -> None:
    top = module.partition(".")[0]
    if top != "pydantic" and not python.is_standard(module):
        raise _apart(
            importer,
            f"it imports {module}; a backend has only pydantic",
            "Import the standard library and pydantic only, and define the rest in that file.",
        )


def _as_named(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _without(text: str, dropped: list[ast.stmt]) -> str:
    gone = {
        number
        for node in dropped
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = text.splitlines()
    kept = [line for number, line in enumerate(lines, 1) if number not in gone]
    return "\n".join(kept).strip("\n")


def _defined(tree: ast.Module) -> frozenset[str]:
    names = set[str]()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return frozenset(names)


def _apart(module: str, why: str, todo: str) -> TaskUnrenderable:
    where = f"{module.replace('.', '/')}.py"
    return TaskUnrenderable(f"{where} cannot stand alone as a parser", why=why, todo=todo)
