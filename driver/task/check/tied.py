"""What of a checkout is tied to the model that is asked: only there a difference surely breaks.

A repository holds more than the way of an answer: tables of another service, models of a mail or a
cache, lists of what is pushed. What has the names of the answer's fields and is not tied to the
module that asks for it may well be one of these, and is told as what it may be.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from driver.task.check.answer_object import AnswerObject
from driver.task.check.checkout import SourceFile
from driver.task.check.imports import names_in
from driver.task.check.parsing import classes_made, parses
from driver.task.check.python_code import Class, Code, last_name
from driver.task.source import Source

_PATHS = ("/api/chat", "/api/generate", "/chat/completions")
_POSTS = frozenset({"post", "request", "stream", "send", "urlopen", "Request", "build_request"})
_ROLES = frozenset({"system", "user", "human"})
_CLIENT_ASKS = frozenset({"chat", "generate", "invoke", "ainvoke", "with_structured_output"})
_SAID = frozenset({"SystemMessage", "HumanMessage"})


@dataclass(frozen=True)
class Tied:
    """The modules of a checkout, by path, that have to do with the model's answers."""

    asking: frozenset[str] = frozenset()
    """They post to its API, call a client of it, or put its messages together."""
    answers: frozenset[str] = frozenset()
    """These, what they import, and what imports them or the class of an answer."""
    program: frozenset[str] = frozenset()
    """All that the programs are made of which ask."""
    asking_parses: bool = False
    """Whether a module that asks parses the answers itself."""
    keeps_json: bool = False
    """Whether one of `answers` keeps an answer as it came, or hands it on."""
    parsed: frozenset[Class] = frozenset()
    """The classes that parsed JSON is made into in `answers`."""
    reading: frozenset[str] = frozenset()
    """Those of `answers` that name half of an answer's fields, or its class."""

    @classmethod
    def of(cls, source: Source, code: Code) -> Tied:
        """Follow the imports from and to the modules that ask."""
        imports, trees = code.imports, {file.path: (file, tree) for file, tree in code.modules}
        asking = frozenset(path for path, (_, tree) in trees.items() if _asks(tree))
        below = imports.reached(asking)
        names = frozenset(field.name for field in source.fields)
        held = {
            each.file.path
            for each in code.each_class()
            if each.file.path in below and len(names & code.inherited(each).keys()) > len(names) / 2
        }
        answers = below | imports.importers(asking | held)
        users = asking
        while more := imports.importers(users):
            users |= more
        parsed = frozenset(
            made
            for path in answers
            for node in classes_made(trees[path][1])
            if (made := code.only(node, trees[path][0])) is not None
        )
        reading = held | {
            path
            for path in answers
            if 2 * len(AnswerObject(trees[path][1], names).read()) >= len(names)
            or held & imports.imported_by(path)
        }
        return cls(
            asking,
            answers,
            imports.reached(users) | answers,
            any(parses(trees[path][1]) for path in asking),
            any(AnswerObject(trees[path][1], names).keeps_json() for path in answers),
            parsed,
            frozenset(reading),
        )

    def uses(self, code: Code, file: SourceFile, name: str) -> bool:
        """Return whether a module that reads answers uses a constant of a module."""
        return any(
            last_name(node) == name
            and (code.imports.origin(each.path, node) or (each.path, name)) == (file.path, name)
            for each, tree in code.modules
            if each.path in self.reading
            for node in names_in(tree)
        )


def _asks(tree: ast.Module) -> bool:
    nodes = [*ast.walk(tree)]
    said = {id(each.value) for each in nodes if isinstance(each, ast.Expr)}  # docstrings
    called = {last_name(each) for each in nodes if isinstance(each, ast.Call)}
    if called & _SAID or (called & _CLIENT_ASKS and any("ollama" in n for n in _packages(nodes))):
        return True
    posts = bool(called & _POSTS)
    return any(
        _is_request(each) or (posts and id(each) not in said and _is_path(each)) for each in nodes
    )


def _packages(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module


def _is_path(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            return text.partition("?")[0].rstrip("/").endswith(_PATHS)
    return False


def _is_request(node: ast.AST) -> bool:
    """Return whether an expression is a message to a model, or what is asked of one."""
    match node:
        case ast.Dict(keys=keys, values=values):
            pairs = {
                key.value: value
                for key, value in zip(keys, values, strict=True)
                if isinstance(key, ast.Constant)
            }
            role = pairs.get("role")
            if isinstance(role, ast.Constant) and role.value in _ROLES and "content" in pairs:
                return True
            return "model" in pairs and not {"messages", "prompt"}.isdisjoint(pairs)
        case ast.Call(keywords=keywords):
            named = {each.arg for each in keywords}
            return "model" in named and not {"messages", "prompt"}.isdisjoint(named)
        case ast.Tuple(elts=[ast.Constant(value=role), _]):
            return role in ("system", "human")
    return False
