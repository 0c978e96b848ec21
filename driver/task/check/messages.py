"""The messages that code puts together for a model: each with its role and what it says."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from driver.task.check.checkout import SourceFile
from driver.task.check.python_code import Code, Function, last_name
from driver.task.check.walked import walked

_SAID = {"SystemMessage": "system", "HumanMessage": "user"}
"""Calls that make a message of LangChain's, with its role."""
_MESSAGES = frozenset({"Message", "dict"})
"""Calls that make a message of a request: Ollama's own client has the first."""


def messages(code: Code) -> Iterator[tuple[str, SourceFile, ast.expr, Function | None]]:
    """Yield each `{"role": …, "content": …}`, with the function that it stands in.

    Also one that a call makes: `Message(role=…, content=…)`.
    """
    for file, tree in code.modules:
        inside: dict[ast.AST, Function] = {}
        if found := [*_messages_in(tree)]:
            for function in walked(tree):
                if isinstance(function, Function):
                    inside |= dict.fromkeys(ast.walk(function), function)
        yield from ((role, file, content, inside.get(node)) for role, content, node in found)


def _messages_in(tree: ast.Module) -> Iterator[tuple[str, ast.expr, ast.AST]]:
    """Yield role and content of each message in a module, and the node that makes it."""
    for node in walked(tree):
        pairs: dict[object, ast.expr | None] = {}
        if isinstance(node, ast.Dict):
            pairs = {
                key.value: value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
        elif isinstance(node, ast.Call) and last_name(node) in _MESSAGES | _SAID.keys():
            pairs = {each.arg: each.value for each in node.keywords}
            if (said := _SAID.get(last_name(node))) is not None:
                pairs = {"role": ast.Constant(said), "content": _content(node)}
        role, content = pairs.get("role"), pairs.get("content")
        if isinstance(role, ast.Constant) and role.value in ("system", "user") and content:
            yield str(role.value), content, node


def _content(call: ast.Call) -> ast.expr | None:
    named = [each.value for each in call.keywords if each.arg == "content"]
    return next(iter([*named, *call.args]), None)
