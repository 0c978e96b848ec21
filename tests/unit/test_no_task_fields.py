"""Nothing outside of tasks/ knows what a task answers: the code there names no field of any task.

A field is named by a string, as the key of an answer is, or by an attribute. Comments and
docstrings may give examples. Two things only look like it, and are let be: an attribute of a module
(`itertools.product`), and one that these rooms define themselves (`Metrics.summary`), which is then
no answer's; reaching into an answer under such a name takes a string or another name first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.files import ROOT
from tasks import load_task

ROOMS = ("benchmarks", "contracts", "driver", "images", "serving")
SHIPPED = ("liga_relevance", "support_messages")
"""Not whatever else stands in tasks/: a field of one's own may well be called `name`."""
FIELDS = frozenset(name for each in SHIPPED for name in load_task(each).output.model_fields)
OWN_KEYS = {
    # What a stage says of its result, as run.json keeps it.
    ("driver/session.py", "summary"),
    ("driver/report/display.py", "summary"),
}


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield what classes of a module call their own attributes and methods."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def _named(path: str, tree: ast.Module, own: frozenset[str]) -> Iterator[str]:
    """Yield where a module names a field."""
    modules = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in FIELDS:
            if (path, node.value) not in OWN_KEYS:
                yield f"{path}:{node.lineno} {node.value!r}"
        elif isinstance(node, ast.Attribute) and node.attr in FIELDS - own:
            if not (isinstance(node.value, ast.Name) and node.value.id in modules):
                yield f"{path}:{node.lineno} .{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg in FIELDS - own:
            yield f"{path}:{node.value.lineno} {node.arg}="


def _own() -> frozenset[str]:
    return frozenset(name for _, tree in _trees() for name in _defined(tree))


def test_no_code_outside_of_tasks_names_a_field() -> None:
    own = _own()
    assert [place for path, tree in _trees() for place in _named(path, tree, own)] == []


def test_every_exception_is_needed() -> None:
    used = {
        (path, node.value)
        for path, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert used >= OWN_KEYS


@pytest.mark.parametrize(
    "code",
    [
        'answer["priority"]',
        "answer.reply_needed",
        'item.get("assigned_aks")',
        "Answer(relevant=True)",
        'FIELDS = ("urgency", "product")',
    ],
)
def test_a_named_field_is_found(code: str) -> None:
    assert list(_named("driver/x.py", ast.parse(code), frozenset()))


@pytest.mark.parametrize(
    "code",
    [
        '"""Such as priority."""',
        "import itertools\nitertools.product([1], [2])",
        'say("it says nothing of its priority")',
    ],
)
def test_what_is_no_field_is_let_be(code: str) -> None:
    assert not list(_named("driver/x.py", ast.parse(code), frozenset()))


def test_the_rooms_are_those_of_the_house() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"tasks", "tests", "examples"} <= set(ROOMS)
    assert all(Path(ROOT / room).is_dir() for room in ROOMS)
