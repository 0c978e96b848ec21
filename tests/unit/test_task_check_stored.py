"""`driver task check` on what is stored: only the answer's own text, unchanged, breaks for sure."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.task.check.finding import Severity
from tests.unit.checkout import ASKS, MODELS, PROCESSOR, SOURCE, change, findings, unclear

_STORED = '        item.priority = data.get("priority") or "none"\n'
_COLUMN = '    priority: Mapped[str] = mapped_column(String(20), default="none")\n'
_SETTER = (
    '    _priority: Mapped[str] = mapped_column("priority", String(1))\n\n'
    "    @hybrid_property\n    def priority(self):\n        return NAMES[self._priority]\n\n"
    "    @priority.setter\n    def priority(self, value):\n        self._priority = CODES[value]\n"
)
_CODED = {
    "literals": (
        '        if data["priority"] == "high":\n            item.priority = "h"\n'
        '        else:\n            item.priority = "n"\n'
    ),
    "property": '        item.priority = Priority(data["priority"] or "none").code\n',
    "match": (
        '        item.priority = code_of(data["priority"])\n\n'
        "def code_of(priority):\n    match priority:\n"
        '        case "high":\n            return "h"\n    return "n"\n'
    ),
    "parameter": (
        '        keep(item, CODES[data["priority"]])\n\n'
        "def keep(item, code):\n    item.priority = code\n"
    ),
    "first letter": '        item.priority = data["priority"][0]\n',
    "object": (
        '        parsed = Parsed(summary="", detailed_analysis="", assigned_aks=[], '
        'priority=CODES[data["priority"]])\n        item.priority = parsed.priority\n'
    ),
    "statement": (
        '        parsed = Parsed(summary="", detailed_analysis="", assigned_aks=[], '
        'priority=data["priority"])\n'
        "        session.execute(SQL, [item.id, CODES[parsed.priority]])\n"
    ),
    "one of them": (
        '        said = data["priority"]\n'
        '        item.priority = "low" if said == "high" else "x" if said == "low" else said\n'
    ),
    "member": (
        '        item.priority = Code.X if data["priority"] == "low" else data["priority"]\n\n'
        'class Code(StrEnum):\n    X = "x"\n'
    ),
    "entry": (
        '        data["priority"] = CODES[data["priority"]]\n'
        '        item.priority = data["priority"]\n'
    ),
    "copy": (
        "        answer = answer.model_copy(update={'priority': CODES[data['priority']]})\n"
        "        item.priority = answer.priority\n"
    ),
    "validator": (
        "        item.priority = Answer(**data).priority\n\nclass Answer(BaseModel):\n"
        "    priority: Annotated[str, AfterValidator(code_of)]\n"
    ),
    "validator made": (
        "        item.priority = Answer(**data).priority\n\nclass Answer(BaseModel):\n"
        "    priority: Annotated[str, cut(1)]\n\n"
        "def cut(n):\n    return BeforeValidator(lambda text: text[:n])\n"
    ),
}  # fmt: skip


def _severities(checkout: Path) -> list[Severity]:
    """Return what it means that the column is too short; other differences are not looked at."""
    return [each.severity for each in findings(checkout) if "priority holds" in each.differs]


def _store(checkout: Path, stored: str, length: int) -> None:
    """Have a text stored in another way, into a column of a length: what a blank line parts from
    the statements stands at the module's end."""
    change(checkout, MODELS, "String(20)", f"String({length})")
    head, _, rest = stored.partition("\n\n")
    change(checkout, PROCESSOR, _STORED, head.rstrip("\n") + "\n")
    path = checkout / PROCESSOR
    path.write_text(f"{path.read_text()}\n\n{rest}")


@pytest.mark.parametrize("stored", _CODED.values(), ids=_CODED)
def test_a_column_of_codes_refuses_no_run(checkout: Path, stored: str) -> None:
    _store(checkout, stored, 1)
    assert _severities(checkout) == [Severity.DIFFERS]


def test_a_column_that_a_setter_fills_with_codes_refuses_no_run(checkout: Path) -> None:
    change(checkout, MODELS, _COLUMN, _SETTER)
    assert _severities(checkout) == [Severity.DIFFERS]


_REWRITTEN = [
    'data = {**data, "priority": data["priority"][0]}',
    'data |= {"priority": {"low": "l"}.get(data["priority"])}',
    'for key in ("priority",): data[key] = data[key][:1]',
    "for key, value in list(data.items()): data[key] = value[:1]",
    "for key, limit in LIMITS.items(): data[key] = data[key][:limit]",
    "for each in Item.__table__.columns: data[each.name] = data[each.name][:1]",
    "data = dict((key, value[:1]) for key, value in data.items())",
    "data = clip(data, 1)",
    "data = dict(outer(clip(data)))",
    "data = Clipped(data)",
    "clip(data, 1)",
    "data.update(clip(data))",
    'if len(data["priority"]) > 1: data = {}',
    'if is_long(data): del data["priority"]',
]


@pytest.mark.parametrize("rewritten", _REWRITTEN)
def test_a_text_of_an_answer_that_was_rewritten_refuses_no_run(
    checkout: Path, rewritten: str
) -> None:
    change(checkout, MODELS, "String(20)", "String(1)")
    change(checkout, PROCESSOR, _STORED, f"        {rewritten}\n{_STORED}")
    assert _severities(checkout) == [Severity.DIFFERS]


@pytest.mark.parametrize(
    "hook",
    [
        "    @validates(*TEXTS)\n    def cut(self, key, value):\n        return value[:1]\n",
        "    @field_validator('*')\n    def cut(cls, value):\n        return value[:1]\n",
        "    @model_validator(mode='before')\n    def cut(cls, data):\n        return clip(data)\n",
        "    def __setattr__(self, key, value): ...\n",
        "@event.listens_for(Session, 'before_flush')\ndef fit(session, *_): ...\n",
        "@event.listens_for(Base, 'attribute_instrument')\ndef fit(cls, key, to): ...\n",
    ],
)
def test_what_may_change_any_text_refuses_no_run(checkout: Path, hook: str) -> None:
    change(checkout, MODELS, "String(20)", "String(1)")
    path = checkout / MODELS
    path.write_text(f"{path.read_text()}\n\n{'' if hook[0] == '@' else 'class A:'}\n{hook}")
    assert _severities(checkout) == [Severity.DIFFERS]


_OWN = {
    "function": (
        '        item.priority = text_of(data, "priority")\n\n'
        "def text_of(data, key):\n    found = data.get(key)\n    return (found or '').strip()\n"
    ),
    "parameter": (
        '        keep(item, data["priority"])\n\ndef keep(item, said):\n    item.priority = said\n'
    ),
    "enum": '        item.priority = Priority(data.get("priority") or "none").value\n',
    "loop": (
        '        for name in ("priority", "summary"):\n'
        "            setattr(item, name, data[name])\n"
    ),
    "items": "        for name, value in data.items():\n            setattr(item, name, value)\n",
    "row": "        session.add(Item(**data))\n",
    "update": '        update(Item).values(priority=data["priority"])\n',
    "whole": "        update(Item).values({name: data[name] for name in COLUMNS})\n",
    "pattern": (
        "        match data:\n            case {'priority': str(said)}:\n"
        "                item.priority = said\n"
    ),
}


@pytest.mark.parametrize("stored", _OWN.values(), ids=_OWN)
def test_an_answers_own_text_is_too_long_for_a_short_column(checkout: Path, stored: str) -> None:
    _store(checkout, stored, 4)
    assert _severities(checkout) == [Severity.BREAKS]


@pytest.mark.parametrize("length", [2, 3])
def test_the_texts_of_an_array_have_a_length_too(checkout: Path, length: int) -> None:
    array = f"mapped_column(ARRAY(String({length})), default=list)"
    change(checkout, MODELS, "mapped_column(JSON, default=list)", array)
    found = [(each.differs.split(",")[0], each.severity) for each in findings(checkout)]
    short = ("an entry of assigned_aks holds 2 characters", Severity.BREAKS)
    assert found == ([short] if length == 2 else [])


@pytest.mark.parametrize(
    "tags",
    [
        "list[Annotated[str, StringConstraints(max_length=10)]]",
        "Annotated[list[constr(max_length=10)], Field(max_length=8)]",
        "list[Tag]",
    ],
)
def test_the_texts_of_a_list_have_a_limit_too(tmp_path: Path, tags: str) -> None:
    names = [field.name for field in SOURCE.fields if field.name != "tags"]
    (tmp_path / "processor.py").write_text(
        "Tag = Annotated[str, Field(max_length=10)]\nclass Answer(BaseModel):\n"
        + "".join(f"    {name}: Any\n" for name in names)
        + f"    tags: {tags}\n{ASKS}Answer.model_validate_json(text)\n"
    )
    found = [(each.differs, each.severity) for each in findings(tmp_path)]
    short = "an entry of tags holds 10 characters, and an answer may have 40 characters"
    assert found == [(short, Severity.BREAKS)]


_LEFT_OUT = '            "tags": data.get("tags", []),\n'


_BESIDE = [
    'item.metadata_["tags"] = data["tags"]',
    'item.metadata_["llm_analysis"].update(tags=data["tags"])',
    'item.metadata_["llm_analysis"].setdefault("tags", data["tags"])',
    'item.tags = [Tag(name) for name in data["tags"]]',
]


@pytest.mark.parametrize("beside", ["", *_BESIDE])
def test_a_field_that_is_read_and_not_stored_is_lost(checkout: Path, beside: str) -> None:
    change(checkout, PROCESSOR, _LEFT_OUT, "")
    path = checkout / PROCESSOR
    log = '        log.info("tags: %s", data["tags"])\n'
    path.write_text(f"{path.read_text()}{log}        {beside}\n")
    found = [(each.differs, each.severity) for each in findings(checkout)]
    severity = Severity.DIFFERS if beside else Severity.BREAKS
    assert found == [("tags of an answer is not stored", severity)]


@pytest.mark.parametrize(
    "whole", ["item.metadata_ = meta(llm_analysis=rest)", 'meta["llm_analysis"].update(rest)']
)
def test_a_json_value_that_is_not_written_out_may_have_all(checkout: Path, whole: str) -> None:
    change(checkout, PROCESSOR, _LEFT_OUT, "")
    path = checkout / PROCESSOR
    log = '        log.info("tags: %s", data["tags"])\n        rest = {**data}\n'
    path.write_text(f"{path.read_text()}{log}        {whole}\n")
    assert findings(checkout) == []


_GENERIC = """
class Client:
    def ask(self, messages: list, into: type[T]) -> T:
        reply = httpx.post(URL + "/api/chat", json={"model": "m", "messages": messages})
        return into.model_validate_json(reply.text)
"""


@pytest.mark.parametrize("field", ["", "    reasoning: str\n"])
def test_a_model_that_a_function_is_told_to_parse_into_is_known(tmp_path: Path, field: str) -> None:
    names = [each.name for each in SOURCE.fields if each.name != "reasoning"]
    (tmp_path / "client.py").write_text(_GENERIC)
    (tmp_path / "answers.py").write_text(
        f"class Part(BaseModel):\n    tags: list[str]\n{field}class Answer(Part):\n"
        + "".join(f"    {name}: Any\n" for name in names if name != "tags")
        + '    @field_validator("priority", mode="before")\n    def none(cls, said): ...\n\n'
        + "def take(item, client):\n    return client.ask([message(item)], Answer)\n"
    )
    lacks = [("Answer has no field reasoning", Severity.BREAKS)]
    found = [(each.differs, each.severity) for each in findings(tmp_path)]
    assert found == ([] if field else lacks)


def test_attributes_beside_a_dump_of_named_fields_are_read(tmp_path: Path) -> None:
    lines = [f"    item.{name} = answer.{name}\n" for name in SOURCE.storage.columns]
    dumped = f"answer.model_dump(include={set(SOURCE.analysed)})"
    (tmp_path / "processor.py").write_text(
        f"{ASKS}def take(item, answer):\n{''.join(lines)}    item.meta['llm'] = {dumped}\n"
    )
    assert [each.differs for each in findings(tmp_path)] == []
    assert "not read" not in "".join(unclear(tmp_path))


def test_an_enum_of_another_feature_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "mail.py").write_text(
        "class Mail(BaseModel):\n    summary: str\n    tags: list[str]\n"
        '    priority: Literal["urgent", "normal"]\n'
    )
    assert findings(tmp_path) == []
