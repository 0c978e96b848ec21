"""What of a checkout is tied to the model that is asked: only there a difference surely breaks.

A repository holds more than the way of an answer: tables of another service, models of a mail or a
cache, lists of what is pushed. What has the names of the answer's fields and is not tied to the
module that asks for it may well be one of these, and is told as what it may be.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from driver.task.check.answer_object import AnswerObject
from driver.task.check.asking import asks
from driver.task.check.checkout import SourceFile
from driver.task.check.imports import names_in
from driver.task.check.parsing import classes_made, parses
from driver.task.check.python_code import ROOTS, Class, Code, Function, given, last_name, parameters
from driver.task.check.walked import walked
from driver.task.source import Source


@dataclass(frozen=True)
class Tied:
    """The modules of a checkout, by path, that have to do with the model's answers."""

    asking: frozenset[str] = frozenset()
    """They post to its API, call a client of it, or put its messages together."""
    answers: frozenset[str] = frozenset()
    """These, what they import, and what imports them or the class of an answer."""
    program: frozenset[str] = frozenset()
    """All that the programs are made of which ask."""
    parsing: frozenset[str] = frozenset()
    """Where answers are parsed: in the modules that ask, or if none of them does, in `answers`."""
    keeps_json: bool = False
    """Whether one of `answers` keeps an answer as it came, or hands it on."""
    parsed: frozenset[Class] = frozenset()
    """The classes that parsed JSON is made into in `answers`."""
    parsed_otherwise: bool = False
    """Whether answers are parsed in another way as well, by their keys or by a class that is no
    model of pydantic's: which way they go is not said then."""
    reading: frozenset[str] = frozenset()
    """Those of `answers` that name half of an answer's fields, or its class."""

    @classmethod
    def of(cls, source: Source, code: Code) -> Tied:
        """Follow the imports from and to the modules that ask."""
        names = frozenset(field.name for field in source.fields)
        trees = {file.path: tree for file, tree in code.modules}
        asking = frozenset(path for path, tree in trees.items() if asks(tree))
        below = code.imports.reached(asking)
        held = [
            each
            for each in code.each_class()
            if each.file.path in below and _has_most(code, names, each)
        ]
        answers = below | code.imports.importers(asking | {each.file.path for each in held})
        parsing = asking if any(parses(trees[path]) for path in asking) else answers
        parsed = made(code, parsing)
        if not any(_has_most(code, names, each) for each in parsed):
            parsed = made(code, answers)
        objects = {path: AnswerObject(trees[path], names) for path in answers}
        half = {path for path in parsing if 2 * len(objects[path].read()) >= len(names)}
        fullest = [each for each in parsed if _has_most(code, names, each)]
        by_key = {path for path in half if parses(trees[path])}
        otherwise = any(not code.descends(each, *ROOTS) for each in fullest) or any(
            not made(code, {path}) & {*fullest} for path in by_key
        )
        return cls(
            asking,
            answers,
            code.imports.reached(code.imports.users(asking)) | answers,
            parsing,
            any(each.keeps_json() for each in objects.values()),
            parsed,
            otherwise,
            frozenset(half | {path for path in answers if _names(code, path, trees[path], held)}),
        )


def _has_most(code: Code, names: frozenset[str], each: Class) -> bool:
    return 2 * len(names & code.inherited(each).keys()) > len(names)


def made(code: Code, paths: Iterable[str]) -> frozenset[Class]:
    """Return the classes that modules make of parsed JSON, also those that a function of theirs is
    told: `ask(messages, Answer)`, where it makes one of its parameter."""
    found = set[Class | None]()
    for file, tree in code.modules:
        for node in classes_made(tree) if file.path in paths else ():
            found.add(code.only(node, file))
            if isinstance(node, ast.Name):
                found |= {code.only(each, by) for by, each in _told(code, tree, node)}
    return frozenset(each for each in found if each is not None)


def _told(code: Code, tree: ast.Module, node: ast.Name) -> Iterator[tuple[SourceFile, ast.expr]]:
    """Yield what calls give the parameter that a name is of in a function around it."""
    for function in walked(tree):
        if not isinstance(function, Function) or node.id not in parameters(function):
            continue
        if any(each is node for each in walked(function)):
            for file, other in code.modules:
                for call in walked(other):
                    if isinstance(call, ast.Call) and last_name(call) == function.name:
                        told = given(function, call)
                        yield from [(file, told[node.id])] if node.id in told else []


def _names(code: Code, path: str, tree: ast.Module, held: list[Class]) -> bool:
    """Return whether a module has one of these classes, or names it."""
    known = {(each.file.path, each.name) for each in held}
    return any(path == where for where, _ in known) or any(
        code.imports.origin(path, node) in known for node in names_in(tree)
    )
