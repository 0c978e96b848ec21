"""`driver task check` on correct backends: what is not tied to the asking module breaks nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from driver.task.check import outside
from driver.task.check.finding import Severity
from driver.task.source import Source
from tests.unit.checkout import (
    ASKS,
    ENUMS,
    MODELS,
    PROCESSOR,
    SCHEMAS,
    SHORTER,
    SOURCE,
    change,
    findings,
    unclear,
)

_APP = "backend/app"
_ALL = "".join(f"    {field.name}: Any\n" for field in SOURCE.fields)
_FEWER = _ALL.replace("    tags: Any\n", "")
_ANY, _HIGH = "priority: Any", 'priority: Literal["high"]'
_ROW = "".join(f'    item.{name} = row["{name}"]\n' for name in SOURCE.storage.columns)
_CARD = (
    "class ItemListOut(BaseModel):\n    summary: str = Field(max_length=280)\n"
    '    priority: Literal["high", "medium"]\n    detailed_analysis: str\n    metadata: dict\n'
)
_ANSWER = f"class Answer(BaseModel):\n{_ALL}\n\nAnswer.model_validate_json(text)\n{ASKS}"

# By what it is: files that a backend has beside, and what is named as what may differ.
_BESIDE: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "a constant of what is pushed": (
        {"push.py": 'ALLOWED_PRIORITIES = ("high", "medium")\nitem.priority in ALLOWED_PRIORITIES'},
        ("ALLOWED_PRIORITIES does not know low",),
    ),
    "a first model that asks less": (
        {
            "processor.py": _ANSWER,
            "triage.py": f"{ASKS}class Triage(BaseModel):\n    relevant: bool\n    reasoning: str\n"
            "    relevance_score: float\nTriage.model_validate_json(text)\n",
        },
        ("Triage has no field tags",),
    ),
    "an event that is made of an answer": (
        {
            "processor.py": "class Event(BaseModel):\n    tags: list\n    relevant: bool\n"
            f"    reasoning: str\n\n\n{_ANSWER}Event(tags=answer.tags)\n"
        },
        ("Event has no field relevance_score",),
    ),
    "a model of what a cache holds": (
        {
            "processor.py": f"{ASKS}put(item, msgspec.json.decode(text, type=Answer))\n",
            "cache.py": f"class Cached(BaseModel):\n{_FEWER}".replace(_ANY, _HIGH)
            + "Cached(**json.loads(redis.get(key)))\n",
        },
        ("Literal does not know medium, low", "Cached has no field tags"),
    ),
    "a model of an evaluation beside": (
        {"evaluate.py": _ANSWER.replace(_ALL, _FEWER).replace(_ANY, _HIGH)},
        ("Literal does not know medium, low", "Answer has no field tags"),
    ),
    "bases of the model that is parsed": (
        {
            "processor.py": "class Judged(BaseModel):\n    relevant: bool\n    reasoning: str\n"
            "    relevance_score: float\n\n\n" + _ANSWER.replace("BaseModel", "Judged")
        },
        (),
    ),
    "a base of a package": (
        {
            "processor.py": "from shared import Tagged\n"
            + _ANSWER.replace("BaseModel", "Tagged, BaseModel").replace(_ALL, _FEWER)
        },
        ("Answer has no field tags",),
    ),
    "an older answer's model": (
        {"processor.py": f"{_ANSWER}class First(BaseModel):\n{_FEWER}First.parse_raw(text)\n"},
        ("First has no field tags",),
    ),
    "a model of some fields beside the whole answer": (
        {"processor.py": f"{_ANSWER.replace(_ALL, _FEWER)}row.raw = text\n"},
        ("Answer has no field tags",),
    ),
    "an import of old exports": (
        {
            "processor.py": f"{ASKS}put(item, msgspec.json.decode(text, type=Answer))\n",
            "restore.py": f"def restore(item, line):\n    row = json.loads(line)\n{_ROW}"
            '    item.hidden = not row["relevant"]\n',
        },
        ("tags of an answer is not read",),
    ),
    "cards of a list": (
        {"cards.py": _CARD},
        ("summary holds 280", "Literal does not know low"),
    ),
    "a partner's items": (
        {
            "schemas.py": _CARD.replace("ItemListOut", "ItemResponse")
            + "ItemResponse.model_validate(httpx.get(PARTNER).json())\n"
        },
        ("summary holds 280", "Literal does not know low", "ItemResponse has no field assigned"),
    ),
    "limits of what a route cuts": (
        {
            "schemas.py": _CARD.replace("ListOut", "Response").replace(
                'Literal["high", "medium"]', "str"
            )
        },
        ("summary holds 280",),
    ),
    "a program that reads some columns": (
        {
            "../../letter/models.py": 'class Item(Base):\n    __tablename__ = "items"\n'
            f"    summary = Column(String(9))\n{ASKS}"
        },
        ("summary holds 9",),
    ),
    "another service's table of the name": (
        {
            "../../stock/models.py": 'class Stock(Base):\n    __tablename__ = "items"\n'
            '    summary = Column(String(9))\n    priority = Column(Enum("A", "B"))\n'
        },
        (),
    ),
}


@pytest.mark.parametrize("name", _BESIDE)
def test_what_is_beside_the_way_of_an_answer_refuses_no_run(checkout: Path, name: str) -> None:
    files, named = _BESIDE[name]
    for path, text in files.items():
        file = checkout / _APP / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = findings(checkout)
    assert [each.line() for each in found if each.severity is Severity.BREAKS] == []
    assert [each.line() for each in found if "holds" in each.differs if each.edit] == []
    for text in named:
        assert any(text in each.differs for each in found), text
    assert named or not found


def test_a_model_that_answers_are_parsed_into_alone_drops_a_field(checkout: Path) -> None:
    (checkout / PROCESSOR).write_text(_ANSWER.replace(_ALL, _FEWER))
    [found] = findings(checkout)
    assert (found.severity, found.differs) == (Severity.BREAKS, "Answer has no field tags")


@pytest.mark.parametrize(
    ("name", "limited", "enough"),
    [
        ("reasoning", "str = Field(max_length=80)", "800"),
        ("tags", "list = Field(max_items=5)", "8"),
    ],
)
def test_a_limit_breaks_where_answers_are_parsed(
    checkout: Path, name: str, limited: str, enough: str
) -> None:
    (checkout / PROCESSOR).write_text(_ANSWER.replace(f"{name}: Any", f"{name}: {limited}"))
    [found] = findings(checkout)
    assert found.severity is Severity.BREAKS
    assert "refused when it is parsed" in found.leads_to
    assert found.edit is not None
    assert found.edit.text == enough


def test_a_limit_beside_a_wider_model_of_answers_is_in_doubt(checkout: Path) -> None:
    short = _ANSWER.replace("tags: Any", "tags: list[Annotated[str, Field(max_length=50)]] = Few")
    short = short.replace("= Few", "= Field(max_length=5)").replace("Answer", "Short")
    (checkout / PROCESSOR).write_text(_ANSWER + short)
    [found] = findings(checkout)
    assert found.severity is Severity.DIFFERS
    assert found.differs == "tags holds 5 entries, and an answer may have 8 entries"


_CUT = (PROCESSOR, 'data["summary"]\n', 'data["summary"][:900]\n')
_VARCHAR = (
    MODELS,
    "summary: Mapped[str | None] = mapped_column(Text)",
    "summary = Column(String(900))",
)
_GERMAN = [
    (ENUMS, f'{name} = "{name.lower()}"', f'{name.lower()} = "{word}"')
    for name, word in {"HIGH": "hoch", "MEDIUM": "mittel", "LOW": "klein", "NONE": "keine"}.items()
]
_IMPORT = "from .enums import Arbeitskreis, Priority"
_CHANGED = {
    "a text that is cut before it is stored": [_VARCHAR, _CUT],
    "a short word that stands for another": [
        (MODELS, "String(20)", "String(1)"),
        (PROCESSOR, 'data.get("priority") or "none"', "LETTERS[data.get('priority')]"),
        (PROCESSOR, "CONTENT_LIMIT =", "LETTERS = {'high': 'h', None: '-'}\nCONTENT_LIMIT ="),
    ],
    "an enum that is kept by its names": [
        *_GERMAN,
        (SCHEMAS, "Field(default=Priority.NONE)", "Priority.none"),
    ],
    "an enum of a package": [
        (SCHEMAS, _IMPORT, "from .enums import Arbeitskreis\nfrom shared import Priority"),
        (ENUMS, '    MEDIUM = "medium"\n', ""),
    ],
}


@pytest.mark.parametrize("name", _CHANGED)
def test_what_the_code_does_between_is_seen(checkout: Path, name: str) -> None:
    for edit in _CHANGED[name]:
        change(checkout, *edit)
    assert [e.line() for e in findings(checkout) if e.severity is Severity.BREAKS] == []


def test_a_text_that_is_not_cut_is_too_long(checkout: Path) -> None:
    change(checkout, *_VARCHAR)
    [found] = findings(checkout)
    assert found.severity is Severity.BREAKS
    change(checkout, *_CUT)
    [found] = findings(checkout)
    assert f"{PROCESSOR}:" in found.leads_to


def test_code_in_a_folder_named_as_what_is_made_is_read(checkout: Path) -> None:
    for folder in ("backend/app/out", "out"):
        (checkout / folder).mkdir(parents=True)
        (checkout / folder / "kinds.py").write_text((checkout / ENUMS).read_text())
    change(checkout, SCHEMAS, ".enums", ".out.kinds")
    change(checkout, "backend/app/out/kinds.py", '    MEDIUM = "medium"\n', "")
    found = [e.place for e in findings(checkout) if e.severity is Severity.BREAKS]
    assert found == ["backend/app/out/kinds.py:6"]


def test_of_two_enums_of_a_name_the_imported_one_counts(checkout: Path) -> None:
    (checkout / _APP / "kinds.py").write_text((checkout / ENUMS).read_text())
    change(checkout, ENUMS, '    MEDIUM = "medium"\n', "")
    assert [e.severity for e in findings(checkout)] == [Severity.BREAKS]
    change(checkout, SCHEMAS, ".enums", ".kinds")
    assert [e.severity for e in findings(checkout)] == [Severity.DIFFERS]


def test_in_a_checkout_that_asks_no_model_nothing_breaks(checkout: Path) -> None:
    change(checkout, *SHORTER)
    (checkout / PROCESSOR).unlink()
    [found] = findings(checkout)
    assert (found.severity, found.edit) == (Severity.DIFFERS, None)
    assert "no module asks the model" in "\n".join(unclear(checkout))


def test_a_task_without_storage_is_compared_but_for_its_table(tmp_path: Path) -> None:
    source = Source(replace(SOURCE.task, storage=None))
    model = _ANSWER.replace("priority: Any", 'priority: Literal["high", "low"]')
    (tmp_path / "llm.py").write_text(model.replace("    tags: Any\n", ""))
    held = {each.place: each for each in outside.in_checkout(source, tmp_path)}
    assert held["table"].unclear == ("the task has no storage: no backend keeps it",)
    assert {(e.severity.value, e.differs) for e in held["schemas"].findings} == {
        ("breaks", "Literal does not know medium, of priority"),
        ("breaks", "Answer has no field tags"),
    }


def test_a_limit_that_an_alias_of_a_type_has_is_read(checkout: Path) -> None:
    alias = "Teaser = Annotated[str, Field(max_length=280)]\n\n\nclass ItemFilter"
    change(checkout, SCHEMAS, "import Any", "import Annotated, Any")
    change(checkout, SCHEMAS, "class ItemFilter", alias)
    item = '    """An item."""\n\n    id: int\n    title: str\n    summary: '
    change(checkout, SCHEMAS, f"{item}str", f"{item}Teaser")
    [found] = findings(checkout)
    assert found.differs.startswith("summary holds 280 characters")
    assert found.edit is None  # others have the alias too
