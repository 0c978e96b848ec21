"""All nodes of a module's tree, listed once: many comparisons look through the same trees."""

from __future__ import annotations

import ast


def walked(tree: ast.AST) -> list[ast.AST]:
    """Return a tree and all nodes in it, as `ast.walk` yields them.

    The list is kept on the tree, and goes with it.
    """
    kept = vars(tree)
    if "_walked" not in kept:
        kept["_walked"] = [*ast.walk(tree)]
    found: list[ast.AST] = kept["_walked"]
    return found
