"""YAML as people write it: what cannot be read, or says a thing twice, is refused by line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from contracts.errors import SettingsInvalid


def load(text: str, origin: str) -> Any:
    """Return the value of a YAML text, which `origin` names (a file, a variable).

    Raises `SettingsInvalid` for a text that is no YAML, and for one that gives a key twice in the
    same mapping: PyYAML would take the last one without a word.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            for mapping in _mappings(node, set()):
                _refuse_twice(mapping, origin)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        place = f"{origin}:{error.problem_mark.line + 1}" if error.problem_mark else origin
        why = ", ".join(part for part in (error.context, error.problem) if part)
        raise SettingsInvalid(f"{place} is not YAML", why=why) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # e.g. the 45th of a month
        raise SettingsInvalid(f"{origin} is not YAML", why=str(error)) from None


def _mappings(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.MappingNode]:
    """Yield every mapping at and below a node once; an alias is the node that it stands for."""
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            yield from _mappings(part, seen)


def _refuse_twice(mapping: yaml.MappingNode, origin: str) -> None:
    """Raise for a key that the mapping itself gives twice; what `<<` merges in may be overridden.

    Keys are compared as they are written, with their types: `1` and `"1"` are two.
    """
    lines: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            raise SettingsInvalid(
                f"{origin}:{line}: the key {key.value} comes twice",
                why=f"it stands in line {lines[name]} too, and only one of the two can count",
                todo="Remove one of them.",
            )
        lines[name] = line
