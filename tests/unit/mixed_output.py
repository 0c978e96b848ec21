"""A task whose answers have a field of each kind."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel

from tasks import load_task


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Output(BaseModel):
    flag: bool
    colour: Colour | None
    size: Literal["s", "m", "l"]
    colours: list[Colour]
    share: float
    words: list[str]
    note: str | None


TASK = replace(
    load_task("liga_relevance"),
    output=Output,
    positive=lambda answer: answer.flag,
    ordinal={"size": ("s", "m", "l")},
    calibrated={"share": "flag"},
    matters=("flag.f1",),
)


def made(**changed: Any) -> Output:
    """Return an answer in which everything is given."""
    fields: dict[str, Any] = {
        "flag": True, "colour": "red", "size": "s", "colours": ["red"],
        "share": 0.5, "words": ["a"], "note": "n",
    }  # fmt: skip
    return Output(**{**fields, **changed})
