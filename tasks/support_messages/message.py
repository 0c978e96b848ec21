"""The input: one message to the support, by mail or form."""

from typing import Self

from pydantic import model_validator

from tasks.item import GivenText, Item, comparable

BODY_LIMIT = 4000
"""Characters of the body that a model is shown."""

UNKNOWN = "unknown"


class Message(Item):
    """A message with a subject or a body, or both."""

    subject: GivenText = ""
    body: GivenText = ""
    sender: GivenText = ""
    received_at: GivenText = ""

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
    """Return the text in which duplicates are looked for."""
    return comparable(message.subject, message.body)
