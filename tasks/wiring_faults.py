"""What does not fit together in a task's settings, prompts, and names of fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import Enum
from string import Template
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from tasks.answer_faults import Fault
from tasks.definition import OnlyFor, Task
from tasks.part_faults import PROMPTS
from tasks.schema import DATE
from tasks.storage import Column
from tasks.values import few_values

CHARACTERS = 8
"""That a token of prose or JSON has at most, on average, by any tokenizer."""
_OF_A_FLAG = ("", ".precision", ".recall", ".f1")
_OF_A_LIST = ("", ".macro_f1", ".exact")


def of_wiring(task: Task) -> Iterator[Fault]:
    """Yield what does not fit together, of a task whose parts are of the right kinds."""
    yield from _of_serving(task)
    yield from _of_prompts(task)
    yield from _of_item(task)
    yield from _of_only_for(task)
    yield from _of_ordinal(task)
    yield from _of_calibrated(task)
    yield from _of_matters(task)
    yield from _of_storage(task)


def _of_serving(task: Task) -> Iterator[Fault]:
    serving = task.serving
    if serving.num_predict >= serving.num_ctx:
        yield Fault(
            f"tasks/{task.name}/__init__.py: serving, num_predict is {serving.num_predict} and "
            f"num_ctx is {serving.num_ctx}: an answer would leave no room for its prompt",
            "Let num_ctx hold the longest prompt and num_predict together.",
        )
    elif len(task.system_prompt) // CHARACTERS + serving.num_predict > serving.num_ctx:
        yield Fault(
            f"tasks/{task.name}/{PROMPTS['system_prompt']}: the system prompt has "
            f"{len(task.system_prompt)} characters: with num_predict={serving.num_predict} that is "
            f"more than num_ctx={serving.num_ctx} tokens by any tokenizer",
            "Shorten it, or raise num_ctx (serving, in __init__.py).",
        )


def _of_prompts(task: Task) -> Iterator[Fault]:
    for name, file in PROMPTS.items():
        if not getattr(task, name).strip():
            yield Fault(f"the {name} is empty (tasks/{task.name}/{file})", "Write that prompt.")
        for sign in (each for each in _unreadable(task, name) if each in getattr(task, name)):
            yield Fault(
                f"the {name} holds {sign!r} (tasks/{task.name}/{file})",
                "Take it out: a model would read its own markup there, or no server take the text.",
            )
    for name, slot in (("correction_prompt", "reasons"), ("backfill_prompt", "fields")):
        template = Template(getattr(task, name))
        try:
            template.substitute({slot: ""})
        except (KeyError, ValueError) as error:
            yield Fault(
                f"the {name} of tasks/{task.name}/ cannot be filled in: "
                f"{type(error).__name__}: {error}",
                f"Write $$ for a dollar sign; the one slot there is ${slot}.",
            )
            continue
        if template.template.strip() and slot not in template.get_identifiers():
            yield Fault(
                f"the {name} has no ${slot} (tasks/{task.name}/{PROMPTS[name]})",
                f"Write ${slot} where the teacher is to read them.",
            )


def _unreadable(task: Task, name: str) -> tuple[str, ...]:
    """Return what no prompt of that name can hold; a Modelfile quotes the served one."""
    return (*task.chat.control_tokens, "\0", *(['"""'] if name == "system_prompt" else []))


def _of_item(task: Task) -> Iterator[Fault]:
    where, fields = f"tasks/{task.name}/__init__.py", task.item.model_fields
    for name in (each for each in task.text_fields if each not in fields):
        yield Fault(f"{where}: text_fields names {name}: the item has no such field", _of(fields))
    if not isinstance(task.canary, task.item):
        yield Fault(
            f"{where}: canary is a {type(task.canary).__name__}",
            f"Let canary be one {task.item.__name__}, as all items of the task are.",
        )


def _of_only_for(task: Task) -> Iterator[Fault]:
    where, fields = f"tasks/{task.name}/__init__.py: only_for", task.output.model_fields
    for name, only in task.only_for.items():
        if not isinstance(only, OnlyFor):
            yield Fault(f"{where} has {only!r} for {name}", "Give it OnlyFor(where={…}).")
            continue
        for key in [each for each in (name, *only.where) if each not in fields]:
            yield Fault(f"{where} names {key}, which is no field", _of(fields))
        for key, value in [*only.where.items(), (name, only.otherwise)]:
            if key in fields and not _can_be(task.output, key, value):
                yield Fault(
                    f"{where}[{name!r}]: the field {key} cannot be {json.dumps(value)}",
                    "Give a value, as JSON, that the field can have; `otherwise` is null if not "
                    "given.",
                )


def _can_be(model: type[BaseModel], name: str, value: Any) -> bool:
    field = model.model_fields[name]
    fields: dict[str, Any] = {name: (field.annotation, field)}
    alone: type[BaseModel] = create_model("Alone", **fields)
    try:
        alone.model_validate_json(json.dumps({name: value}), strict=True)
    except (ValidationError, TypeError):
        return False
    return True


def _of_ordinal(task: Task) -> Iterator[Fault]:
    """Yield the scales that the evaluation could not place every answer on."""
    where, fields = f"tasks/{task.name}/__init__.py: ordinal", task.schema()["properties"]
    for name, order in task.ordinal.items():
        if name not in fields:
            yield Fault(f"{where} names {name}, which is no field", _of(fields))
        elif (values := few_values(task.output, name, fields[name])) is None:
            yield Fault(
                f"{where} names {name}, which is no field of few values",
                "Take it out: a scale has the values of an enum, or whole numbers between two "
                "limits.",
            )
        elif len(order) != len(values) or any(each not in order for each in values):
            yield Fault(
                f"{where}[{name!r}] has {_listed(order)}, and the field has {_listed(values)}",
                "Name each value of the field once, in the order of the scale, and None if it may "
                "be null.",
            )


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(str(each.value if isinstance(each, Enum) else each) for each in values)


def _of_calibrated(task: Task) -> Iterator[Fault]:
    where, fields = f"tasks/{task.name}/__init__.py: calibrated", task.schema()["properties"]
    for stated, flag in task.calibrated.items():
        for name in [each for each in (stated, flag) if each not in fields]:
            yield Fault(f"{where} names {name}, which is no field", _of(fields))
        number = fields.get(stated, {"minimum": 0, "maximum": 1})
        if not 0 <= number.get("minimum", -1) <= number.get("maximum", 2) <= 1:
            yield Fault(
                f"{where} names {stated}, which is no probability",
                f"Give {stated} the type float with ge=0 and le=1, without null; or take it out.",
            )
        if fields.get(flag, {"type": "boolean"}).get("type") != "boolean":
            yield Fault(
                f"{where}[{stated!r}] names {flag}, which is no flag",
                "Name a field of true or false, without null, whose probability that is.",
            )


def _of(names: Any) -> str:
    return f"Name one of: {', '.join(names)}."


def _of_matters(task: Task) -> Iterator[Fault]:
    known = measure_names(task)
    for name in (each for each in task.matters if each not in known):
        yield Fault(
            f"tasks/{task.name}/__init__.py: matters names {name}, which is no measure", _of(known)
        )


def measure_names(task: Task) -> list[str]:
    """Return the names that images/labeler/measures.py gives its measures for a task."""
    found = ["valid", "rules", "rules.positive"]
    for name, schema in task.schema()["properties"].items():
        found += [f"{name}{suffix}" for suffix in _suffixes(schema)]
        found += [f"{name}.kappa"] if task.ordinal.get(name) else []
    return [*found, *(f"{name}{each}" for name in task.calibrated for each in (".brier", ".ece"))]


def _suffixes(schema: dict[str, Any]) -> tuple[str, ...]:
    options = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    only = options[0] if len(options) == 1 else {}
    if "enum" in only or "const" in only:
        return ("", ".macro_f1")
    if only.get("type") == "array" and only["items"].keys() & {"enum", "const"}:
        return _OF_A_LIST
    return _OF_A_FLAG if only.get("type") == "boolean" else ("",)


def _of_storage(task: Task) -> Iterator[Fault]:
    if task.storage is None:
        return
    where, schemas = f"tasks/{task.name}/__init__.py: storage", task.schema()["properties"]
    kept = task.storage
    for name in dict.fromkeys([*kept.columns, *kept.answered, *kept.textless]):
        if name not in schemas:
            yield Fault(f"{where} names {name}: the answer has no such field", _of(schemas))
    for name, value in kept.textless.items():
        if name in schemas and not _can_be(task.output, name, value):
            yield Fault(
                f"{where}, textless: the field {name} cannot be {value!r}",
                "Give a value, as JSON, that the field can have.",
            )
    for name, column in kept.columns.items():
        yield from _of_column(f"{where}, column {name}:", column, schemas.get(name, {}))


def _of_column(where: str, column: Column, schema: dict[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with a column; of a field that is not there the schema is empty."""
    if column.null is not None and column.null in _words(schema):
        yield Fault(
            f"{where} null={column.null!r} is a value that the field can have",
            "Let null be a word that is none of the field's values.",
        )
    if column.null is not None and schema and not _is_text(schema):
        yield Fault(
            f"{where} null={column.null!r}, and the field is no text",
            "Take null out: such a column keeps NULL.",
        )
    if schema and (why := _lacks_room(column, schema)):
        yield Fault(f"{where} {why}", "Give the column more length, or the field less.")


def _is_text(schema: dict[str, Any]) -> bool:
    return all(
        option.get("type") in {"string", "null"} and option.get("pattern") != DATE
        for option in schema.get("anyOf", [schema])
        if not option.keys() & {"enum", "const"}
    )


def _words(schema: dict[str, Any]) -> list[Any]:
    """Return the values of an enum, null left out."""
    found = list(schema.get("enum", [schema.get("const")]))
    found += [word for option in schema.get("anyOf", ()) for word in _words(option)]
    return [each for each in found if each is not None]


def _lacks_room(column: Column, schema: dict[str, Any]) -> str:
    """Return why a column cannot hold every value of its field, "" if it can."""
    if (length := column.length) is None:
        return ""
    most = [len(column.null or "")]
    for option in schema.get("anyOf", [schema]):
        texts = _words(option)
        if texts:
            most += [len(str(each)) for each in texts]
        elif option.get("type") == "string" and option.get("pattern") != DATE:
            most.append(option["maxLength"])
        elif option.get("type") != "null":
            return "a length is for texts, and the field is none"
    return (
        ""
        if max(most) <= length
        else (f"it holds {length} characters, and the field may have {max(most)} characters")
    )
