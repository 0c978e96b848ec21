"""The backend as it describes itself: the item that its API shows, and what can be edited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from driver.task.check.finding import Compared, Finding, Severity
from driver.task.check.values import lacking, longest
from driver.task.shape import Field, Kind, figure
from driver.task.source import Source

PLACE = "OpenAPI"
PATH = "/openapi.json"
_ITEM = re.compile(r"/api/items/\{[^}/]+\}/?")
_TYPES = {
    Kind.TEXT: "string",
    Kind.CHOICE: "string",
    Kind.DATE: "string",
    Kind.FLAG: "boolean",
    Kind.LIST: "array",
    Kind.OBJECT: "object",
}
_Schema = dict[str, Any]


def compare(source: Source, described: _Schema) -> Compared:
    """Hold the schemas of one item, shown and edited, against the columns of the task.

    What a description leaves open (no schema, no properties, any type) is not held against it.
    """
    findings, unclear, checked = list[Finding](), list[str](), 0
    for method, schema, shown in _schemas(described):
        place = f"{method} /api/items/{{id}}"
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            unclear.append(f"{place}: the description does not say which fields an item has")
            continue
        checked += len(properties)
        if shown:
            findings += _absent(source, place, properties)
        for field, _ in source.columns:
            if isinstance(told := properties.get(field.name), dict):
                found = _of_field(source, place, field, _Told(described, told))
                findings += found if shown else map(_of_an_edit, found)
    if not checked and not unclear:
        unclear.append("it describes no call that shows one item")
    return Compared(PLACE, tuple(findings), tuple(unclear), checked)


class _Told:
    """What is said of one property, its references and alternatives followed."""

    def __init__(self, described: _Schema, schema: _Schema) -> None:
        options = list(_options(described, schema, 0))
        self.types = {str(each["type"]) for each in options if isinstance(each.get("type"), str)}
        self.nullable = "null" in self.types
        self.open = any(not each.keys() & {"type", "enum", "const"} for each in options)
        entries = [
            entry
            for each in options
            if isinstance(each.get("items"), dict)
            for entry in _options(described, each["items"], 0)
        ]
        self.lists_anything = bool(self.types & {"array"}) and not any(
            "enum" in entry or "const" in entry for entry in entries
        )
        self.enum = {
            value
            for each in [*options, *entries]
            for value in [*_listed(each.get("enum")), *([each["const"]] if "const" in each else [])]
            if isinstance(value, str)
        }
        lengths = [each["maxLength"] for each in options if isinstance(each.get("maxLength"), int)]
        self.length: int | None = min(lengths, default=None)
        self.free_text = any(
            each.get("type") == "string" and "enum" not in each and "const" not in each
            for each in options
        )


def _listed(value: object) -> list[Any]:
    """Return a list as it is; [] for what a description should not have there."""
    return value if isinstance(value, list) else []


def _of_an_edit(finding: Finding) -> Finding:
    """Return what differs in the body of an edit: no answer goes through it."""
    refused = "a person's edit with such a value is refused; what a model answers is stored"
    return replace(finding, leads_to=refused, severity=Severity.DIFFERS)


def _of_field(source: Source, place: str, field: Field, told: _Told) -> Iterator[Finding]:
    where = f"{place}: {field.name}"
    if told.enum and not told.free_text:
        column = source.storage.columns[field.name]
        names = lacking(field, told.enum)
        if column.null and column.null not in told.enum and not told.nullable:
            names.append(column.null)
        if names:
            yield Finding(
                where,
                f"it knows {', '.join(sorted(told.enum))}, and not {', '.join(names)}",
                f"an item with {names[0]} is answered with 500, and so is every page it is on",
                f"Add {', '.join(names)} to the backend's enum (`--repository` shows where).",
                Severity.BREAKS,
            )
    needed = longest(source, field)
    is_text = field.shape.kind in {Kind.TEXT, Kind.CHOICE}
    if is_text and told.length is not None and (needed is None or told.length < needed):
        wanted = "any length" if needed is None else f"{figure(needed)} characters"
        yield Finding(
            where,
            f"it has {told.length} characters at most, and an answer may have {wanted}",
            "an item with a longer text is answered with 500 or cannot be saved",
            "Widen it in the backend (`--repository` shows where).",
            Severity.BREAKS,
        )
    wanted_type = _TYPES.get(field.shape.kind, "number")
    numeric = {"number", "integer"}
    fits = wanted_type in told.types or (wanted_type == "number" and bool(numeric & told.types))
    if told.types - {"null"} and not told.open and not fits:
        yield Finding(
            where,
            f"it is of the type {', '.join(sorted(told.types))}, and an answer's is {wanted_type}",
            "an item with an answer in it is answered with 500, and so is every page it is on",
            f"Let it be {wanted_type} in the backend's schema.",
            Severity.BREAKS,
        )


def _absent(source: Source, place: str, properties: _Schema) -> Iterator[Finding]:
    for name in [
        *source.storage.columns,
        *([source.storage.analysis[0]] if source.analysed else ()),
    ]:
        if name not in properties:
            yield Finding(
                place,
                f"the item that it shows has no {name}",
                f"what is stored in {name} cannot be read back: verify takes the new model for "
                "one without valid answers, and takes it back",
                f"Show {name} in the backend's schema of an item (api_schemas.py of `driver task "
                "render`), and store it (columns.py).",
                Severity.BREAKS,
            )


def _schemas(described: _Schema) -> Iterator[tuple[str, _Schema, bool]]:
    """Yield the schemas of an item: as it is shown (True), and as it is edited (False)."""
    paths = described.get("paths")
    for path, calls in paths.items() if isinstance(paths, dict) else ():
        if not _ITEM.fullmatch(path) or not isinstance(calls, dict):
            continue
        for method, keys in (
            ("get", ("responses", "200", "content", "application/json", "schema")),
            ("patch", ("requestBody", "content", "application/json", "schema")),
            ("put", ("requestBody", "content", "application/json", "schema")),
        ):
            node: Any = calls.get(method)
            if node is None:
                continue
            for key in keys:
                node = node.get(key) if isinstance(node, dict) else None
            merged: _Schema = {"properties": {}}
            for each in _options(described, node, 0) if isinstance(node, dict) else ():
                merged["properties"] |= each.get("properties") or {}
            yield method.upper(), merged, method == "get"


def _options(described: _Schema, schema: _Schema, depth: int) -> Iterator[_Schema]:
    """Yield the alternatives of a schema, with references followed."""
    if depth > 10:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        node: Any = described
        for key in reference.removeprefix("#/").split("/"):
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict):
            yield from _options(described, node, depth + 1)
        return
    inner = [each for word in ("anyOf", "oneOf", "allOf") for each in schema.get(word) or ()]
    if not inner:
        yield schema
    for each in inner:
        if isinstance(each, dict):
            yield from _options(described, each, depth + 1)
