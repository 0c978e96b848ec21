"""Whether the backend lets items be written, and writing them: found out from its own OpenAPI.

The API as it is known has no such call; another version may have one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from driver.adapters.backend import Backend

_ITEM = re.compile(r"/api/items/\{[^}/]+\}/?")


@dataclass(frozen=True)
class ItemEdits:
    """The call that writes an item."""

    method: str
    """`PATCH` writes what is sent; `PUT` the whole, so that all must be sent."""
    fields: frozenset[str]
    """What can be written."""

    def write(self, backend: Backend, item: dict[str, Any], changed: dict[str, Any]) -> str:
        """Write fields of an item as the backend shows it now; return what it objects, "" if
        nothing. Raises `BackendUnavailable` where it does not answer."""
        kept = item if self.method == "PUT" else {}
        body = {name: kept[name] for name in self.fields if name in kept} | changed
        path = f"/api/items/{quote(str(item['id']), safe='')}"
        status, answer = backend.call(self.method, path, body=body)
        return "" if 200 <= status < 300 else f"status {status}: {str(answer)[:200]}"


def find(backend: Backend) -> ItemEdits | None:
    """Return how items can be written; None where the backend's description names no way."""
    status, described = backend.call("GET", "/openapi.json")
    if status != 200 or not isinstance(described, dict):
        return None
    for path, calls in (described.get("paths") or {}).items():
        if not _ITEM.fullmatch(path):
            continue
        for method in ("patch", "put"):
            if fields := _fields((calls or {}).get(method), described):
                return ItemEdits(method.upper(), frozenset(fields))
    return None


def _fields(call: Any, described: dict[str, Any]) -> list[str]:
    """Return the properties of a call's JSON body."""
    try:
        schema = call["requestBody"]["content"]["application/json"]["schema"]
        for _ in range(3):  # a reference may lead to another one
            if "$ref" not in schema:
                break
            schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return list(schema["properties"])
    except (KeyError, TypeError, AttributeError):
        return []
