"""A task is one definition: what it asks, what it accepts, and when it counts as changed."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

import tasks
from tasks import InvalidAnswer, Task, UnknownTask, UnservableSchema, load_task
from tasks.schema import servable_schema

GOLDEN = Path(__file__).parents[1] / "golden"
TASK = load_task("liga_relevance")
IRRELEVANT: dict[str, Any] = {
    "summary": None,
    "detailed_analysis": None,
    "argumentationskette": [],
    "relevant": False,
    "relevance_score": 0.0,
    "priority": None,
    "assigned_aks": [],
    "tags": ["Sport"],
    "reasoning": "Es geht um ein Fußballspiel ohne soziale Seite.",
}


def text(**changes: Any) -> str:
    return json.dumps({**IRRELEVANT, **changes}, ensure_ascii=False)


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema inside a schema, properties' names left out."""
    yield schema
    for child in schema.get("properties", {}).values():
        yield from nodes(child)
    for child in schema.get("anyOf", []):
        yield from nodes(child)
    if "items" in schema:
        yield from nodes(schema["items"])


def test_load_task() -> None:
    assert TASK.name == "liga_relevance"
    assert load_task("liga_relevance") is TASK


@pytest.mark.parametrize("name", ["", "nope", "chat", "definition", "liga_relevance.rules", "../x"])
def test_unknown_task_lists_the_known(name: str) -> None:
    with pytest.raises(UnknownTask, match="liga_relevance") as caught:
        load_task(name)
    assert isinstance(caught.value, ValueError)


def test_known_tasks_are_packages_only() -> None:
    assert {"liga_relevance", "support_messages"} <= set(tasks.known_tasks())
    assert not {"chat", "definition", "schema"} & set(tasks.known_tasks())


def test_schema_uses_honoured_keywords_only() -> None:
    honoured = {"type", "properties", "required", "additionalProperties", "items", "anyOf"}
    honoured |= {"enum", "minLength", "maxLength", "maxItems", "minimum", "maximum"}
    for node in nodes(TASK.schema()):
        assert set(node) <= honoured


def test_schema_says_null_in_a_way_that_is_honoured() -> None:
    for name in ("summary", "detailed_analysis", "priority"):
        assert {"type": "null"} in TASK.schema()["properties"][name]["anyOf"]
    assert TASK.schema()["properties"]["priority"]["anyOf"][0]["enum"] == ["high", "medium", "low"]


class Nested(BaseModel):
    colour: Literal["red"]


class Level(StrEnum):
    A = "a"
    B = "b"


class Servable(BaseModel):
    """A description that must not reach the schema."""

    model_config = ConfigDict(extra="forbid")
    one: Nested
    many: list[Nested] = Field(max_length=2, description="not for the grammar")
    level: Level = Level.A
    short: Annotated[str, StringConstraints(max_length=3, pattern="^[a-c]{1,3}$")] | None = None
    count: int = Field(ge=1, le=9)


def test_schema_of_nested_models_has_no_references() -> None:
    schema = servable_schema(Servable)
    assert "$" not in json.dumps(schema).replace("}$", "")
    nested = {
        "type": "object",
        "properties": {"colour": {"const": "red", "type": "string"}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    assert schema["properties"]["one"] == nested
    assert schema["properties"]["many"] == {"type": "array", "items": nested, "maxItems": 2}
    assert schema["properties"]["level"] == {"enum": ["a", "b"], "type": "string"}
    assert schema["properties"]["count"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert schema["required"] == ["one", "many", "level", "short", "count"]


class Dated(BaseModel):
    due: date | None


@pytest.mark.parametrize(
    ("text", "fits"),
    [("2026-12-31", True), ("2026-13-01", False), ("2026-00-01", False), ("2026-1-1", False)],
)
def test_a_date_is_a_pattern_since_the_grammar_knows_no_format(text: str, fits: bool) -> None:
    option, null = servable_schema(Dated)["properties"]["due"]["anyOf"]
    assert null == {"type": "null"}
    assert option.keys() == {"type", "pattern", "maxLength"}
    assert bool(re.fullmatch(option["pattern"], text)) == fits
    answer = json.dumps({"due": text})
    try:
        Dated.model_validate_json(answer, strict=True)
    except ValueError:
        assert not fits
    else:
        assert fits


class FreeText(BaseModel):
    text: str


class FreeList(BaseModel):
    many: list[bool]


class Unique(BaseModel):
    many: set[bool] = Field(max_length=2)


class OpenBound(BaseModel):
    number: float = Field(gt=0)


class AnyValue(BaseModel):
    mapping: dict[str, bool]


@pytest.mark.parametrize("model", [FreeText, FreeList, Unique, OpenBound])
def test_schema_refuses_what_would_be_ignored(model: type[BaseModel]) -> None:
    with pytest.raises(UnservableSchema, match=model.__name__):
        servable_schema(model)


def test_schema_refuses_an_open_object() -> None:
    with pytest.raises(UnservableSchema, match="mapping"):
        servable_schema(AnyValue)


def test_parse_accepts_any_white_space_around_and_between() -> None:
    plain = TASK.parse(text())
    assert TASK.parse(f"\n  {json.dumps(IRRELEVANT, indent=3)}\n\n") == plain
    assert plain.model_dump(mode="json") == IRRELEVANT


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("", "not JSON"),
        ("   ", "not JSON"),
        ("null", "NoneType"),
        (f"[{text()}]", "list"),
        (f"```json\n{text()}\n```", "not JSON"),
        (f"Antwort: {text()}", "not JSON"),
        (f"{text()} Ende", "Extra data"),
        (f"{text()}{text()}", "Extra data"),
        (text()[:-1], "not JSON"),
        (text()[:-1] + ",}", "not JSON"),
        (text().replace('"', "'"), "not JSON"),
        (text()[:-1] + ', "tags": ["b"]}', "twice"),
        (text(reasoning="a\0b"), "NUL"),
        (text(tags=["\\\0"]), "NUL"),
        (text(relevance_score=float("nan")), "NaN"),
        (text(relevance_score=float("inf")), "Infinity"),
        (text(assigned_ak="AK1"), "assigned_ak"),
        (text(relevant="false"), "relevant"),
        (text(relevant=0), "relevant"),
        (text(relevance_score="0.5"), "relevance_score"),
        (text(relevance_score=1.01), "relevance_score"),
        (text(priority="null"), "priority"),
        (text(priority="critical"), "priority"),
        (text(assigned_aks="AK1"), "assigned_aks"),
        (text(assigned_aks=["AK9"]), "assigned_aks"),
        (text(tags=None), "tags"),
        (text(tags=["x" * 41]), "tags"),
        (text(tags=list("abcdefghi")), "tags"),
        (text(reasoning=""), "reasoning"),
        ("[" * 100_000, "not JSON"),
        (text(tags=[]).replace("[]", "1" * 5000), "not JSON"),
    ],
)
def test_parse_refuses_and_says_why(broken: str, reason: str) -> None:
    with pytest.raises(InvalidAnswer, match=reason):
        TASK.parse(broken)


def test_parse_takes_what_only_looks_like_a_nul_character() -> None:
    assert TASK.parse(text(reasoning="\\u0000")).model_dump()["reasoning"] == "\\u0000"


@pytest.mark.parametrize("name", list(IRRELEVANT))
def test_parse_never_fills_in_a_missing_field(name: str) -> None:
    rest = {key: value for key, value in IRRELEVANT.items() if key != name}
    with pytest.raises(InvalidAnswer, match=name):
        TASK.parse(json.dumps(rest))


def test_answer_text_is_canonical() -> None:
    shuffled = json.dumps(dict(reversed(IRRELEVANT.items())), indent=2)
    answer = TASK.answer_text(TASK.parse(shuffled))
    assert answer == text()
    assert "ß" in answer
    assert "\n" not in answer
    assert list(json.loads(answer)) == list(TASK.schema()["properties"])
    assert TASK.answer_text(TASK.parse(answer)) == answer


def test_answer_text_writes_a_whole_score_as_a_float() -> None:
    assert '"relevance_score": 0.0' in TASK.answer_text(TASK.parse(text(relevance_score=0)))


def test_messages() -> None:
    user = {"role": "user", "content": TASK.user_message(TASK.canary)}
    assert TASK.messages(TASK.canary) == [{"role": "system", "content": TASK.system_prompt}, user]
    assert TASK.label_messages(TASK.canary)[0]["content"] == TASK.label_prompt
    assert TASK.label_messages(TASK.canary)[1] == user
    answer = TASK.parse(text())
    assert TASK.training_messages(TASK.canary, answer)[:2] == TASK.messages(TASK.canary)
    assert TASK.training_messages(TASK.canary, answer)[2] == {
        "role": "assistant",
        "content": TASK.answer_text(answer),
    }


def test_a_correction_shows_the_answer_and_names_what_is_wrong() -> None:
    reasons = ["zahlen: 5 Mio. $ stehen nicht im Artikel", "placeholder: summary"]
    asked = TASK.correction_messages(TASK.canary, "{}", reasons)
    assert asked[:2] == TASK.label_messages(TASK.canary)
    assert asked[2] == {"role": "assistant", "content": "{}"}
    assert asked[3]["role"] == "user"
    assert (
        "- zahlen: 5 Mio. $ stehen nicht im Artikel\n- placeholder: summary\n"
        in (asked[3]["content"])
    )


def test_training_continues_the_served_prompt() -> None:
    answer = TASK.parse(text())
    prompt, completion = TASK.render_training(TASK.canary, answer)
    assert prompt == TASK.render_prompt(TASK.messages(TASK.canary))
    assert completion == f"{TASK.answer_text(answer)}<|im_end|>"


def test_rendered_prompt_is_the_golden_one() -> None:
    golden = (GOLDEN / "liga_relevance_prompt.txt").read_text(encoding="utf-8")
    assert TASK.render_prompt(TASK.messages(TASK.canary)) == golden


def test_modelfile() -> None:
    modelfile = TASK.modelfile()
    assert set(modelfile.model_dump()) == {"template", "system", "parser", "parameters"}
    assert modelfile.parser == "passthrough"
    assert modelfile.parameters["stop"] == ["<|im_end|>"]
    assert modelfile.parameters["num_ctx"] == TASK.serving.num_ctx
    shown = modelfile.text("./model.gguf")
    assert shown.startswith('FROM ./model.gguf\nTEMPLATE """{{- range')
    assert '</think>\n\n"""\nSYSTEM """Du prüfst' in shown
    assert "\nPARSER passthrough\n" in shown
    assert '\nPARAMETER stop "<|im_end|>"\n' in shown
    assert "\nPARAMETER num_ctx 8192\n" in shown


def test_modelfile_refuses_a_prompt_that_would_end_its_quotes() -> None:
    task = replace(TASK, system_prompt='Sag """ nicht.')
    with pytest.raises(ValueError, match='"""'):
        task.modelfile().text("m")


def test_longest_answer_fits_into_the_context() -> None:
    # A German token is seldom shorter than two and a half characters.
    longest_prompt = (len(TASK.system_prompt) + 6000 + 400) / 2.5
    assert longest_prompt + TASK.serving.num_predict < TASK.serving.num_ctx


def test_digest_is_stable_and_hexadecimal() -> None:
    assert TASK.digest() == TASK.digest()
    assert int(TASK.digest(), 16) >= 0
    assert len(TASK.digest()) == len(TASK.label_digest()) == 64


@pytest.mark.parametrize(
    ("changes", "labels_too"),
    [
        ({"version": "2"}, False),
        ({"system_prompt": "Anders."}, False),
        ({"label_prompt": "Anders."}, True),
        ({"correction_prompt": "Anders: $reasons"}, True),
        ({"output": Servable}, True),
        ({"serving": replace(TASK.serving, temperature=0.5)}, False),
        ({"chat": replace(TASK.chat, answer_prefix="")}, False),
        ({"canary": TASK.canary.model_copy(update={"title": "Anders"})}, False),
    ],
)
def test_digests_follow_the_definition(changes: dict[str, Any], labels_too: bool) -> None:
    changed: Task = replace(TASK, **changes)
    assert changed.digest() != TASK.digest()
    assert (changed.label_digest() != TASK.label_digest()) is labels_too


@pytest.mark.parametrize(
    ("path", "labels_too"),
    [
        ("definition.py", False),
        ("item.py", False),
        ("texts.py", False),
        ("liga_relevance/__init__.py", False),
        ("liga_relevance/prompts/system.md", False),
        ("liga_relevance/rules/__init__.py", True),
        ("liga_relevance/rules/grounding.py", True),
        ("liga_relevance/sentences.py", True),
    ],
)
def test_digests_follow_the_sources(
    path: str, labels_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, labels_before = TASK.digest(), TASK.label_digest()
    sources = TASK._sources()
    assert path in sources
    monkeypatch.setattr(Task, "_sources", lambda _: {**sources, path: "edited"})
    assert TASK.digest() != before
    assert (TASK.label_digest() != labels_before) is labels_too


def test_every_module_of_the_rules_is_among_the_sources() -> None:
    folder = Path(__file__).parents[2] / "tasks" / "liga_relevance"
    modules = {
        f"liga_relevance/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")
    }
    assert len([module for module in modules if "/rules/" in module]) > 5
    assert modules <= set(TASK._sources())


def test_item_digest_is_of_what_a_model_is_shown() -> None:
    before = TASK.item_digest(TASK.canary)
    renamed = TASK.canary.model_copy(update={"id": "other", "url": "elsewhere"})
    edited = TASK.canary.model_copy(update={"title": "Anders"})
    assert TASK.item_digest(renamed) == before
    assert TASK.item_digest(edited) != before
