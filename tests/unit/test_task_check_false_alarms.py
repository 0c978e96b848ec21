"""What a checkout may well have that is no drift: `driver task check` refuses no run for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.task.check import openapi
from driver.task.check.finding import Severity
from driver.task.render import parser
from tests.unit.checkout import ASKS, ENUMS, MODELS, SOURCE, change, findings, unclear


def _refused(checkout: Path) -> list[str]:
    return [each.differs for each in findings(checkout) if each.severity is Severity.BREAKS]


def test_the_rendered_parser_is_no_processor(tmp_path: Path) -> None:
    (tmp_path / "parser.py").write_text(parser.render(SOURCE))
    assert _refused(tmp_path) == []


_COLUMNS_ONLY = "".join(
    f"    item.{name} = answer.get({name!r})\n" for name in SOURCE.storage.columns
)
_TAKES = (
    'def take(item, text, old):\n    answer = json.loads(text)\n    old = answer["relevant"]\n'
    + _COLUMNS_ONLY
)
_WHOLE = {
    "item": 'item.meta["llm"] = answer',
    "spread": 'item.meta = {**old, "llm": answer}',
    "row": "Row(**answer)",
    "dict": 'meta["llm_analysis"] = dict(answer)',
    "copy": 'meta["llm_analysis"] = answer.copy()',
    "update": 'meta.setdefault("llm_analysis", {}).update(answer)',
    "rest": 'meta["llm_analysis"] = {k: v for k, v in answer.items() if k not in COLUMNS}',
    "names of elsewhere": 'meta["llm_analysis"] = {key: answer.get(key) for key in FIELDS}',
    "helpers": 'meta["llm_analysis"] = {"tags": as_list(answer, "tags")}',
    "module": "store_analysis(item, answer)",
    "return": "return answer",
    "part": 'meta["llm_analysis"] = answer.analysis',
    "text": "store_analysis(item, text)",
    "dump": 'meta["llm_analysis"] = Answer(**answer).model_dump(exclude={"summary"})',
}


@pytest.mark.parametrize("stored", _WHOLE.values(), ids=_WHOLE)
def test_an_answer_that_goes_on_as_a_whole_is_not_compared(tmp_path: Path, stored: str) -> None:
    (tmp_path / "processor.py").write_text(f"{_TAKES}    {stored}\n{ASKS}")
    assert _refused(tmp_path) == []
    assert "processor.py:8: an answer goes on as a whole, maybe with" in "\n".join(
        unclear(tmp_path)
    )


@pytest.mark.parametrize(
    "told", ["assert isinstance(answer, dict)", "if not answer: log.info('%s', answer)"]
)
def test_an_answer_that_is_only_looked_at_loses_what_is_not_read(tmp_path: Path, told: str) -> None:
    (tmp_path / "processor.py").write_text(f"{_TAKES}    {told}\n{ASKS}")
    assert "reasoning of an answer is not read" in _refused(tmp_path)


def test_a_model_whose_attributes_are_read_loses_those_that_are_not(tmp_path: Path) -> None:
    dumped = [name for name in SOURCE.analysed if name != "tags"]
    lines = [f"    item.{name} = answer.{name} or ''" for name in SOURCE.storage.columns]
    lines += [f'    item.meta["llm_analysis"] = answer.model_dump(include={set(dumped)})']
    taken = "    answer = Answer.model_validate_json(text)\n    put(item, answer)\n"
    (tmp_path / "processor.py").write_text(
        "\n".join([f"{ASKS}def take(item, text):\n{taken}\ndef put(item, answer):", *lines])
    )
    assert _refused(tmp_path) == ["tags of an answer is not read"]


def test_an_export_of_rows_is_no_processor(tmp_path: Path) -> None:
    cells = ", ".join(f'row["{name}"]' for name in [*SOURCE.storage.columns, "relevant", "tags"])
    (tmp_path / "export.py").write_text(
        f"def cells(lines):\n    for row in map(json.loads, lines):\n        yield [{cells}]\n"
        "def again(line):\n    row = json.loads(line)\n"
    )
    assert _refused(tmp_path) == []


def test_a_second_model_of_the_table_may_have_less_of_it(checkout: Path) -> None:
    (checkout / "reindex.py").write_text(
        'class ItemRow(Base):\n    __tablename__ = "items"\n    content = Column(Text)\n'
    )
    assert _refused(checkout) == []
    column = "    assigned_aks: Mapped[list] = mapped_column(JSON, default=list)\n"
    change(checkout, MODELS, column, "")
    assert _refused(checkout) == ["Item has no column assigned_aks"]


def test_only_a_model_that_answers_are_read_with_drops_a_field(tmp_path: Path) -> None:
    (tmp_path / "schemas.py").write_text(
        "class ScoreCard(BaseModel):\n    relevance_score: float\n    tags: list[str]\n"
        "class Analysis(BaseModel):\n    relevant: bool\n    relevance_score: float\n"
        "    argumentationskette: list[str]\n    tags: list[str]\n    summary: str\n"
    )
    found = findings(tmp_path)
    assert _refused(tmp_path) == []
    assert [each.differs for each in found if not each.edit] == ["Analysis has no field reasoning"]
    parsed = "answer, card = Analysis.model_validate_json(text), ScoreCard()\n"
    (tmp_path / "processor.py").write_text(parsed)
    assert _refused(tmp_path) == []
    (tmp_path / "processor.py").write_text(ASKS + parsed)
    assert _refused(tmp_path) == ["Analysis has no field reasoning"]


@pytest.mark.parametrize("method", ["patch", "get"])
def test_a_limit_of_edits_refuses_no_run(method: str) -> None:
    priority = {"type": "string", "enum": ["high", "low", "none"]}
    summary = {"type": "string", "maxLength": 9, "enum": None}
    properties: dict[str, object] = {
        name: {} for name in [*SOURCE.storage.columns, SOURCE.storage.analysis[0]]
    }
    schema = {"properties": {**properties, "priority": priority, "summary": summary}}
    content = {"content": {"application/json": {"schema": schema}}}
    call = {"requestBody": content, "responses": {"200": content}}
    found = openapi.compare(SOURCE, {"paths": {"/api/items/{id}": {method: call}}}).findings
    assert len(found) == 2
    shown = method == "get"
    assert {each.severity for each in found} == {Severity.BREAKS if shown else Severity.DIFFERS}
    assert all(("a person's edit" in each.leads_to) != shown for each in found)


@pytest.mark.parametrize(
    "more",
    [
        "    model_config = ConfigDict(extra='allow')",
        "    why: str = Field(alias='reasoning')",
        "    @model_validator(mode='before')\n    def moved(cls, said): ...",
    ],
)
def test_a_model_that_keeps_a_field_otherwise_loses_none(tmp_path: Path, more: str) -> None:
    kept = "".join(f"    {name}: Any\n" for name in SOURCE.analysed if name != "reasoning")
    (tmp_path / "processor.py").write_text(
        f"class Analysis(BaseModel):\n    summary: str\n{kept}{more}\n"
        f"{ASKS}Analysis.model_validate_json(text)\n"
    )
    assert _refused(tmp_path) == []


_OTHERS = {
    "MailNotification": "summary tags priority:Literal['urgent','normal']",
    "Ticket": "summary priority:Literal['high','normal'] tags",
    "UrgentDigestEntry": "title summary priority:Literal['high']",
    "TagSuggestion": "tags reasoning",
}


@pytest.mark.parametrize("name", _OTHERS)
def test_a_model_with_half_of_the_fields_is_another_and_is_not_edited(
    tmp_path: Path, name: str
) -> None:
    fields = [f"    {each if ':' in each else f'{each}: str'}" for each in _OTHERS[name].split()]
    body = "\n".join([f"class {name}(BaseModel):", *fields])
    (tmp_path / "a.py").write_text(f"{body}\n{ASKS}{name}(**json.loads(text))\n")
    members = "; ".join(f"{each}: string" for each in ("summary", "tags"))
    (tmp_path / "a.ts").write_text(f"interface {name} {{ {members}; priority: 'urgent' }}\n")
    found = findings(tmp_path)
    assert {each.severity for each in found} == {Severity.DIFFERS}
    assert not [each.differs for each in found if each.edit or "no field" in each.differs]


def test_a_model_of_something_else_may_be_narrower(tmp_path: Path) -> None:
    fields = (
        '    summary: str = Field(max_length=80)\n    priority: Literal["high", "low"]\n'
        "    detailed_analysis: str\n    metadata: dict\n"
    )
    path = tmp_path / "schemas.py"
    path.write_text(f"class Ticket(BaseModel):\n{fields}")
    narrow = [each for each in findings(tmp_path) if "no field" not in each.differs]
    assert [(each.severity, each.edit) for each in narrow] == [(Severity.DIFFERS, None)] * 2
    path.write_text(f"class Base(BaseModel):\n{fields}class ItemResponse(Base):\n    id: int\n")
    assert _refused(tmp_path) == ["Literal does not know medium, of priority"]


def test_an_enum_that_the_api_gives_breaks_though_an_edit_has_it_too(tmp_path: Path) -> None:
    (tmp_path / "schemas.py").write_text(
        "class Urgency(Enum):\n    HIGH = 'high'\n    LOW = 'low'\n"
        + "".join(
            f"class {name}(BaseModel):\n    summary: str\n    priority: Urgency\n"
            "    detailed_analysis: str\n    assigned_aks: list[str]\n    metadata: dict\n"
            for name in ("ItemUpdate", "ItemResponse")
        )
    )
    assert _refused(tmp_path) == ["enum Urgency does not know medium, of priority"]
    [found] = findings(tmp_path)
    assert found.edit


_MODEL = "class Item({}):\n    __tablename__ = 'items'\n"
_MIXIN = "class Texts:\n    summary = Column(Text)\n"
_NOT_FOLLOWED = {
    "a package's": ("from shared import Texts\n", "Texts, Base", "Texts, a base of Item"),
    "computed": ("", "*MIXINS, Base", "*MIXINS, a base of Item"),
    "built on": ("Base = declarative_base(cls=Texts)\n", "Base", "Base, a base of Item"),
    "two": (_MIXIN, "Texts, Base", "2 classes are called Texts"),
    "declared": (
        "class Words:\n    @declared_attr\n    def summary(cls):\n        return text()\n",
        "Words, Base",
        "models.py:4 is not followed",
    ),
    "property": (
        "class Words:\n    @property\n    def summary(self):\n        return self.texts.summary\n",
        "Words, Base",
        "models.py:4 is not followed",
    ),
    "if": (
        "class Words:\n    if WIDE:\n        summary = Column(Text)\n",
        "Words, Base",
        "models.py:3 is not followed",
    ),
}


_BESIDE = {
    "Item.summary = Column(Text)": ("", "    meta = Column('metadata', JSON)\n", "models.py:6"),
    "": ("@with_texts\n", "    meta = Column('metadata', JSON)\n", "models.py:2"),
    "pass": ("", "    meta, summary = Column('metadata', JSON), Column(Text)\n", "models.py:4"),
    "...": ("", "    __table_args__ = {'autoload_with': engine}\n", "models.py:4"),
}


@pytest.mark.parametrize("after", _BESIDE)
def test_a_column_that_may_be_made_otherwise_is_not_compared(tmp_path: Path, after: str) -> None:
    head, body, where = _BESIDE[after]
    _model_of(tmp_path, head, "Base", f"{body}\n{after}\n")
    assert _refused(tmp_path) == []
    assert f"{where} is not followed" in "\n".join(unclear(tmp_path))


def _model_of(checkout: Path, head: str, bases: str, body: str) -> None:
    code = f"Base = declarative_base()\n{head}{_MODEL.format(bases)}{body}{ASKS}"
    (checkout / "models.py").write_text(code)


@pytest.mark.parametrize("name", _NOT_FOLLOWED)
def test_a_column_that_may_be_elsewhere_is_not_compared(tmp_path: Path, name: str) -> None:
    head, bases, why = _NOT_FOLLOWED[name]
    if name == "two":
        (tmp_path / "others.py").write_text("class Texts:\n    pass\n")
        (tmp_path / "more.py").write_text(head)
        head = "from .more import *\n"
    _model_of(tmp_path, head, bases, "    meta = Column('metadata', JSON)\n")
    assert _refused(tmp_path) == []
    assert f"detailed_analysis, priority, summary: {why}" in "\n".join(unclear(tmp_path))


def test_a_column_that_is_nowhere_is_lost(tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text("class Base:\n    pass\n")
    head = (
        "class Named(Base):\n    @declared_attr\n    def __tablename__(cls):\n        return 'a'\n"
    )
    _model_of(tmp_path, head, "Named, AsyncAttrs", "    meta = Column('metadata', JSON)\n")
    assert "Item has no column summary" in _refused(tmp_path)


@pytest.mark.parametrize(
    "column",
    [
        'Column(name="metadata", type_=JSON)',
        'mapped_column(JSON, name="metadata")',
        'deferred(Column("metadata", JSON))',
    ],
)
def test_a_column_is_named_in_each_way(checkout: Path, column: str) -> None:
    change(checkout, MODELS, 'mapped_column("metadata", JSON, default=dict)', column)
    assert findings(checkout) == []


def test_an_enum_that_takes_other_values_is_in_doubt(checkout: Path) -> None:
    taken = "\n\n    @classmethod\n    def _missing_(cls, value):\n        return cls.LOW"
    change(checkout, ENUMS, '    MEDIUM = "medium"\n', "")
    change(checkout, ENUMS, '    NONE = "none"', f'    NONE = "none"{taken}')
    assert [each.severity for each in findings(checkout)] == [Severity.DIFFERS]


def test_a_column_of_a_type_of_the_backends_own_is_not_compared(checkout: Path) -> None:
    change(checkout, MODELS, "String(20)", 'ChoiceEnum("urgency", Priority)')
    change(checkout, MODELS, "mapped_column(JSON, default=list)", "mapped_column(ARRAY(Integer))")
    assert _refused(checkout) == []
