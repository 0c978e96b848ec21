"""The kinds of a task's fields, and what is counted of each."""

from __future__ import annotations

from images.labeler.fields import Kind, describe, kinds
from tasks import load_task
from tests.unit.mixed_output import Output, made


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
