"""An answer with every kind of field, for what the news task does not have."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Mood(StrEnum):
    """How a message sounds."""

    ANGRY = "angry"
    CALM = "it's {{ calm }}"

    @property
    def meaning(self) -> str:
        """What the values stand for, with signs that other languages read otherwise."""
        return f'"{self.value}" */ --> </script> ${{x}} | \\'


Short = Annotated[str, StringConstraints(max_length=12, pattern=r"^[a-z'/\- ]{0,12}$")]


class Part(BaseModel):
    """A thing that a message is about."""

    model_config = ConfigDict(extra="forbid")

    name: Short
    since: date | None
    mood: Mood


class Kinds(BaseModel):
    """One of each."""

    model_config = ConfigDict(extra="forbid")

    deadline: date | None = Field(title="Until", description='By "when"; */ --> {{ 1 }}')
    asked_on: date
    number: int = Field(ge=-3, le=9)
    exact: Literal["one", "other"]
    maybe: Literal["one"] | None
    size: float = Field(ge=-1.5)
    short: Short
    mood: Mood | None
    main: Part | None
    parts: list[Part] = Field(max_length=2)
    rows: list[Annotated[list[bool], Field(max_length=3)]] = Field(min_length=1, max_length=2)


KINDS: dict[str, Any] = {
    "deadline": "2026-12-01",
    "asked_on": "2026-11-27",
    "number": 3,
    "exact": "other",
    "maybe": None,
    "size": 0.5,
    "short": "a",
    "mood": "it's {{ calm }}",
    "main": {"name": "lid", "since": None, "mood": "angry"},
    "parts": [{"name": "cap", "since": "2026-01-31", "mood": "angry"}],
    "rows": [[True, False]],
}
"""A valid answer."""
