"""`driver task check` on columns whose length or values are said elsewhere than in their type."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.task.check.finding import Severity
from tests.unit.checkout import ASKS, MODELS, PROCESSOR, change, findings, unclear

_PRIORITY = '    priority: Mapped[str] = mapped_column(String(20), default="none")\n'
_SUMMARY = "    summary: Mapped[str | None] = mapped_column(Text)\n"
_AKS = "    assigned_aks: Mapped[list] = mapped_column(JSON, default=list)\n"
_BASE = '    """What all tables share."""\n'
_TABLE = '    __tablename__ = "items"\n'
_SQLMODEL = "class Item(SQLModel, table=True):"
_CLASS = "class Item(Base):"
_WHERE = "class Channel(Base):"


def _aliased(alias: str, base: str = "") -> tuple[tuple[str, str], ...]:
    return (
        (_WHERE, f"Short = {alias}\n\n\n{_WHERE}"),
        (_PRIORITY, '    priority: Mapped[Short] = mapped_column(default="none")\n'),
        (_BASE, f"{_BASE}{base}"),
    )


def _of_field(field: str) -> tuple[tuple[str, str], ...]:
    return ((_CLASS, _SQLMODEL), (_PRIORITY, f"    priority: str = {field}\n"))


def _table_args(check: str) -> tuple[tuple[str, str], ...]:
    return ((_TABLE, f"{_TABLE}    __table_args__ = (CheckConstraint({check}),)\n"),)


def _on_column(check: str) -> tuple[tuple[str, str], ...]:
    column = _PRIORITY.replace("String(20)", f"String(20), CheckConstraint({check})")
    return ((_PRIORITY, column),)


_MAP = "    type_annotation_map = {Short: String(%s)}\n"
_REGISTRY = "    registry = registry(type_annotation_map={str: String(%s)})\n"
# What is written, and what of it is filled in: of a drift, and where it agrees.
_LENGTHS = {
    "alias with a column": _aliased("Annotated[str, mapped_column(String(%s))]"),
    "alias in the base's map": _aliased("Annotated[str, 50]", _MAP),
    "type in the registry's map": (
        (_BASE, f"{_BASE}{_REGISTRY}"),
        (_PRIORITY, '    priority: Mapped[str] = mapped_column(default="none")\n'),
    ),
    "named type": (
        (_WHERE, f"SHORT = String(%s)\n\n\n{_WHERE}"),
        (_PRIORITY, _PRIORITY.replace("String(20)", "SHORT")),
    ),
    "type_": ((_PRIORITY, "    priority = Column(type_=String(%s))\n"),),
    "sa_type": _of_field("Field(default='none', sa_type=String(%s))"),
    "sa_column": _of_field("Field(sa_column=Column(String(%s)))"),
    "max_length": _of_field("Field(default='none', max_length=%s)"),
    "table of that length": _table_args('"length(priority) <= %s"'),
    "column of that length": _on_column("text('priority IS NULL OR length(priority) <= %s')"),
    "function": _table_args('func.char_length(Item.priority) <= %s, name="short"'),
}


def _fill(checkout: Path, edits: tuple[tuple[str, str], ...], value: str) -> None:
    for old, new in edits:
        change(checkout, MODELS, old, new.replace("%s", value))


@pytest.mark.parametrize("edits", _LENGTHS.values(), ids=_LENGTHS)
@pytest.mark.parametrize("length", [4, 6])
def test_a_length_is_found_where_it_is_said(
    checkout: Path, edits: tuple[tuple[str, str], ...], length: int
) -> None:
    _fill(checkout, edits, str(length))
    found = [(each.differs, each.severity) for each in findings(checkout)]
    short = "priority holds 4 characters, and an answer may have 6 characters"
    assert found == ([(short, Severity.BREAKS)] if length == 4 else [])
    assert [each for each in unclear(checkout) if "CHECK" in each or "length" in each] == []


def test_what_the_column_itself_is_told_goes_before_its_alias(checkout: Path) -> None:
    _fill(checkout, _aliased("Annotated[str, mapped_column(String(4))]"), "")
    change(checkout, MODELS, 'mapped_column(default="none")', "mapped_column(String(20))")
    change(checkout, MODELS, _BASE, f"{_BASE}    type_annotation_map = {{str: String(4)}}\n")
    assert findings(checkout) == []


def test_a_type_goes_before_the_length_of_a_field(checkout: Path) -> None:
    change(checkout, MODELS, _CLASS, _SQLMODEL)
    field = "    summary: str | None = Field(max_length=9, sa_type=Text)\n"
    change(checkout, MODELS, _SUMMARY, field)
    assert [each for each in findings(checkout) if each.severity is Severity.BREAKS] == []


def test_a_table_of_sqlmodel_may_go_by_the_name_of_its_class(checkout: Path) -> None:
    change(checkout, MODELS, _CLASS, "class Items(SQLModel, table=True):")
    change(checkout, MODELS, _TABLE, "")
    change(checkout, MODELS, "String(20)", "String(4)")
    assert [each.differs.split(",")[0] for each in findings(checkout)] == [
        "priority holds 4 characters"
    ]


def test_a_table_of_sqlmodel_is_compared_as_a_table_alone(checkout: Path) -> None:
    change(checkout, MODELS, _CLASS, _SQLMODEL)
    change(checkout, MODELS, _AKS, "")
    [found] = findings(checkout)
    assert (found.differs, found.edit) == ("Item has no column assigned_aks", None)


@pytest.mark.parametrize("length", [4, 20])
def test_columns_of_a_class_that_is_kept_in_the_table_are_its(checkout: Path, length: int) -> None:
    change(checkout, MODELS, _PRIORITY, "")
    change(checkout, MODELS, _SUMMARY, "")
    models = checkout / MODELS
    priority = _PRIORITY.replace("20", str(length))
    models.write_text(f"{models.read_text()}\n\nclass Article(Item):\n{_SUMMARY}{priority}")
    found = [(each.differs.split(",")[0], each.severity) for each in findings(checkout)]
    assert found == ([] if length == 20 else [("priority holds 4 characters", Severity.BREAKS)])


def test_a_column_that_another_class_of_the_table_has_may_be_missing(checkout: Path) -> None:
    (checkout / PROCESSOR).unlink()
    crawler = checkout / "crawler.py"
    crawler.write_text(f"class Row(Base):\n{_TABLE}    title = Column(Text)\n{ASKS}")
    assert {each.severity for each in findings(checkout)} == {Severity.DIFFERS}
    change(checkout, MODELS, _AKS, "")
    broken = [each.differs for each in findings(checkout) if each.severity is Severity.BREAKS]
    assert broken == ["Row has no column assigned_aks"]


_VALUES = {
    "table": _table_args("\"priority IN ('high', 'low'%s)\""),
    "column": _on_column("\"items.priority in ('high','low'%s)\", name='known'"),
    "or null": _table_args("\"priority IN ('high', 'low'%s) OR priority IS NULL\""),
    "array": _table_args("\"priority = ANY (ARRAY['high', 'low'%s])\""),
    "expression": _table_args("priority.in_(['high', 'low'%s])"),
    "two": _table_args(
        "\"(priority IN ('high', 'low'%s)) AND length(summary) BETWEEN 1 AND 2500\""
    ),
}


@pytest.mark.parametrize("edits", _VALUES.values(), ids=_VALUES)
@pytest.mark.parametrize("more", ["", ", 'medium', 'none'"])
def test_a_check_is_held_against_the_values_of_an_answer(
    checkout: Path, edits: tuple[tuple[str, str], ...], more: str
) -> None:
    _fill(checkout, edits, more)
    found = [(each.differs, each.severity) for each in findings(checkout)]
    lacking = "the CHECK on priority does not know medium, none, of priority"
    assert found == ([] if more else [(lacking, Severity.BREAKS)])
    assert [each for each in unclear(checkout) if "CHECK" in each or "length" in each] == []


def test_a_check_without_the_word_for_null_is_in_doubt(checkout: Path) -> None:
    _fill(checkout, _VALUES["table"], ", 'medium'")
    [found] = findings(checkout)
    assert found.differs == "the CHECK on priority does not know none, of priority"
    assert found.severity is Severity.DIFFERS


@pytest.mark.parametrize(
    "condition",
    [
        "priority IN ('high', 'low') OR is_manually_reviewed",
        "NOT priority IN ('high', 'low')",
        "priority NOT IN ('high', 'low')",
        "channel_id IS NULL OR length(priority) <= 2",
        "lower(priority) IN ('high')",
    ],
)
def test_a_check_that_is_not_understood_is_said_to_be(checkout: Path, condition: str) -> None:
    _fill(checkout, _table_args(f'"{condition}"'), "")
    assert findings(checkout) == []
    assert any(each.endswith("the CHECK on priority") for each in unclear(checkout))
