"""The kinds of a task's fields, and what is counted of each."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel

from images.labeler.fields import Kind, describe, kinds
from tasks import load_task


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Output(BaseModel):
    flag: bool
    colour: Colour | None
    size: Literal["s", "m"]
    colours: list[Colour]
    share: float
    words: list[str]
    note: str | None


def made(**changed: Any) -> Output:
    fields: dict[str, Any] = {
        "flag": True, "colour": "red", "size": "s", "colours": ["red"],
        "share": 0.5, "words": ["a"], "note": "n",
    }  # fmt: skip
    return Output(**{**fields, **changed})


def test_kinds_come_from_the_annotations() -> None:
    assert kinds(Output) == {
        "flag": Kind.FLAG, "colour": Kind.CHOICE, "size": Kind.CHOICE, "colours": Kind.CHOICES,
        "share": Kind.NUMBER, "words": Kind.TEXT, "note": Kind.TEXT,
    }  # fmt: skip
    liga = kinds(load_task("liga_relevance").output)
    assert liga["priority"] is Kind.CHOICE
    assert liga["assigned_aks"] is Kind.CHOICES
    assert liga["tags"] is Kind.TEXT


def test_a_description_counts_values() -> None:
    found = describe(Output, [made(), made(flag=False, note=None, colours=[])])
    assert found["flag"]["counts"] == {"False": 1, "True": 1}
    assert found["colours"] == {"kind": "choices", "counts": {"red": 1}, "empty": 1}
    assert found["note"]["given"] == 1
    assert found["share"]["value"] == {"min": 0.5, "median": 0.5, "max": 0.5}
