"""From a pydantic model to the JSON schema that llama.cpp's grammar really enforces."""

import re

# Only CPython's own parser knows how wide a pattern is, and it has no public name since 3.11.
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from pydantic import BaseModel

# What the grammar reads. Number bounds are read and ignored for floats; `parse` checks them.
_KEYWORDS = frozenset(
    {"type", "enum", "const", "anyOf"}
    | {"properties", "required", "additionalProperties", "items", "minItems", "maxItems"}
    | {"pattern", "minLength", "maxLength", "minimum", "maximum"}
)
# A date of ISO 8601, as pydantic reads it in strict mode; the grammar knows no `format`.
DATE = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
# Words for people, which would only make the schema, and so its digest, larger.
_DROPPED = frozenset({"title", "description", "default", "examples"})

_KEPT = re.compile(
    r"""\^ (?:
        (?: [^"\\^$.\[\](){}|*+?\x00-\x1f\x7f-\U0010ffff]
          | \[ (?!\^) (?: [^"\\\[\]\x00-\x1f] | \\[][-] )+ \]
          | \)
        ) (?: [?*+] | \{ (?: [0-9]+,?[0-9]* | ,[0-9]+ ) \} )?
      | [\x7f-\U0010ffff] | \\[][^$.(){}|*+?-]  # behind these, ? and {2} mean another text
      | \( (?:\?:)? | \|
    )*+ (?: \$\Z )?""",
    re.VERBOSE,
)
"""As much of a pattern as Ollama keeps (tests/docker/test_ollama_contract.py), without what JSON
cannot hold as it is; so no dot and no [^…], which take in quotes."""
_CLASS = re.compile(r"\\.|(\[(?:\\.|[^]])+\])")
_UNWRITABLE = '"\\' + "".join(map(chr, range(32)))
_INSTEAD = {"exclusiveMinimum": "gt: write ge", "exclusiveMaximum": "lt: write le"}


class UnservableSchema(TypeError):
    """The output model says something that constrained decoding would silently ignore."""


def servable_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of `model` without references: every property required, no other allowed.

    Raises `UnservableSchema` for a keyword that the grammar does not know, and for a text or
    list without an upper bound, on which a weak model spends its whole answer.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    return _convert(schema, definitions, model.__name__)


def _convert(node: dict[str, Any], definitions: dict[str, Any], where: str) -> dict[str, Any]:
    if "$ref" in node:
        name = node["$ref"].removeprefix("#/$defs/")
        return _convert(definitions[name], definitions, where)
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    _require_one_type(result, where)
    if result.get("format") == "date":
        del result["format"]
        result |= {"pattern": DATE, "maxLength": 10}
    if unknown := sorted(result.keys() - _KEYWORDS):
        named = ", ".join(_INSTEAD.get(each, each) for each in unknown)
        raise UnservableSchema(f"{where}: the grammar ignores {named}")
    if "anyOf" in result:
        result["anyOf"] = [_convert(option, definitions, where) for option in result["anyOf"]]
    if "items" in result:
        result["items"] = _convert(result["items"], definitions, f"{where}[]")
    _require_bounds(result, where)
    if result.get("type") == "object":
        if "properties" not in result:
            raise UnservableSchema(f"{where}: a free mapping; name its keys as fields")
        result["properties"] = {
            name: _convert(child, definitions, f"{where}.{name}")
            for name, child in result["properties"].items()
        }
        result["required"] = list(result["properties"])
        result["additionalProperties"] = False
    return result


def _require_one_type(node: dict[str, Any], where: str) -> None:
    options = [option for option in node.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) > 1:
        types = ", ".join(str(option.get("type", "another")) for option in options)
        so_is = "; so is a Decimal: write float or int" if types == "number, string" else ""
        raise UnservableSchema(
            f"{where}: it may be of several types ({types}): write one of them{so_is}"
        )
    if not node.keys() & {"type", "anyOf", "enum", "const"}:
        raise UnservableSchema(f"{where}: it may be of any type: write one")
    values = node.get("enum", [node["const"]] if "const" in node else [])
    if not all(value is None or isinstance(value, str) for value in values):
        raise UnservableSchema(f"{where}: a value of an enum is no text")


def _require_bounds(node: dict[str, Any], where: str) -> None:
    kind = node.get("type")
    if kind == "string" and not node.keys() & {"maxLength", "enum", "const"}:
        raise UnservableSchema(f"{where}: a text needs a maximal length")
    if "pattern" in node and "maxLength" in node:
        _require_pattern(node["pattern"], node.get("minLength", 0), node["maxLength"], where)
    if kind == "array" and not {"items", "maxItems"} <= node.keys():
        raise UnservableSchema(f"{where}: a list needs an item type and a maximal length")


def _require_pattern(pattern: str, least: int, most: int, where: str) -> None:
    """Raise `UnservableSchema` for a pattern that the grammar does not keep, that lets an answer be
    no JSON, or that does not keep the limits, which the grammar ignores beside a pattern."""
    try:
        parts = parser.parse(pattern)
    except re.error as error:
        raise UnservableSchema(f"{where}: pattern={pattern!r} is none: {error}") from error
    anchors = [(constants.AT, constants.AT_BEGINNING), (constants.AT, constants.AT_END)]
    kept = _KEPT.match(pattern)
    rest = pattern[kept.end() :] if kept else pattern
    if rest or [*parts[:1], *parts[-1:]] != anchors:
        place = f", from {rest!r} on" if kept and rest else ""
        raise UnservableSchema(
            f"{where}: the grammar does not keep pattern={pattern!r}{place}: begin it with ^, end "
            r"it with $, write [0-9] for \d, / for \/, [.]? for \.?, [ä]? for ä?, a class of what "
            "may stand there for a dot or [^a], no quote, no backslash, and | only in a group"
        )
    for each in _CLASS.findall(pattern):
        if each and re.search(each, _UNWRITABLE):
            raise UnservableSchema(
                f"{where}: {each} in pattern={pattern!r} takes in a quote or a backslash, which "
                r"JSON cannot hold as they are: leave them out, as [ !#-\[\]-~] for [ -~]"
            )
    shortest, longest = parts.getwidth()
    if shortest > most or longest < least:
        raise UnservableSchema(
            f"{where}: no text of {least} to {most} characters matches pattern={pattern!r}"
        )
    if longest > most:
        raise UnservableSchema(
            f"{where}: the grammar follows pattern={pattern!r} alone, beyond max_length={most}: "
            f"write its end into it, as [a-z]{{0,{most}}} for [a-z]*"
        )
