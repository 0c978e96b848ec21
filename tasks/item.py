"""What the items of all tasks have in common.

Nothing here is part of a label's digest (`Task.label_digest`), and need not be: labels are kept
under the digest of what the teacher is shown of an item (`Task.item_digest`).
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator

# Below this a text is too short to be compared alone: a stock phrase, "It still does not work."
_COMPARABLE_CHARS = 80


class Item(BaseModel):
    """One input row. Tasks derive from it; unknown fields of a row are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str

    @field_validator("id", mode="before")
    @classmethod
    def _id_as_text(cls, value: Any) -> Any:
        """Accept the numbers of a database's rows; True is no number here."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("id")
    @classmethod
    def _id_given(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the id is empty")
        return value


def _none_as_empty(value: Any) -> Any:
    return "" if value is None else value


GivenText = Annotated[str, BeforeValidator(_none_as_empty)]
"""A text of a row, where null stands for an empty one."""


def comparable(title: str, text: str) -> str:
    """Return the text in which duplicates are looked for.

    The same text runs under other titles, so the title is added only where the text says too
    little.
    """
    text = text.strip()
    return text if len(text) >= _COMPARABLE_CHARS else f"{title}\n{text}".strip()


def moment(text: str) -> datetime | None:
    """Return a moment of ISO 8601, in UTC where it names no zone; None for any other text.

    Nothing else counts: a day read as a month would put an item into another split.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
