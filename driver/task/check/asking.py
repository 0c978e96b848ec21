"""Which module of a checkout asks a model: by its API, by a client, by the messages it makes."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from driver.task.check.python_code import last_name
from driver.task.check.walked import walked

_PATHS = ("/api/chat", "/api/generate", "/chat/completions")
_POSTS = frozenset({"post", "request", "stream", "send", "urlopen", "Request", "build_request"})
_ROLES = frozenset({"system", "user", "human"})
_CLIENT_ASKS = frozenset({"chat", "generate", "invoke", "ainvoke", "with_structured_output"})
_SAID = frozenset({"SystemMessage", "HumanMessage"})


def asks(tree: ast.Module) -> bool:
    """Return whether a module posts to a model's API, calls a client, or makes its messages.

    The path alone is not enough: a module of settings has it, too.
    """
    nodes = walked(tree)
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
