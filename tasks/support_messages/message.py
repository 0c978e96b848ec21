"""The input: one message to the support, by mail or form."""

from typing import Any, Self

from pydantic import field_validator, model_validator

from tasks.definition import Item

BODY_LIMIT = 4000
"""Characters of the body that a model is shown."""

UNKNOWN = "unknown"

# Below this a body is too short to be compared alone: "It still does not work."
_COMPARABLE_CHARS = 80


class Message(Item):
    """A message with a subject or a body, or both."""

    subject: str = ""
    body: str = ""
    sender: str = ""
    received_at: str = ""

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

    @field_validator("subject", "body", "sender", "received_at", mode="before")
    @classmethod
    def _none_as_empty(cls, value: Any) -> Any:
        return "" if value is None else value

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if not self.subject.strip() and not self.body.strip():
            raise ValueError("neither subject nor body")
        return self


def user_message(message: Message) -> str:
    """Return what a model is shown of a message."""
    return (
        f"Subject: {message.subject}\n"
        f"From: {message.sender or UNKNOWN}\n"
        f"Received: {message.received_at or UNKNOWN}\n"
        f"Message: {message.body[:BODY_LIMIT]}"
    )


def text_of(message: Message) -> str:
    """Return the text in which duplicates are looked for: the body, or all where it is short."""
    body = message.body.strip()
    return body if len(body) >= _COMPARABLE_CHARS else f"{message.subject}\n{body}".strip()
