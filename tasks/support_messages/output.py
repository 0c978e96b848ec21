"""The answer: five fields, in the order in which the model writes them."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator


class Category(StrEnum):
    """What a message is about; the team that gets it follows from this."""

    BILLING = "billing"
    DEFECT = "defect"
    ACCESS = "access"
    HOW_TO = "how_to"
    CANCELLATION = "cancellation"
    FEEDBACK = "feedback"
    SPAM = "spam"

    @property
    def meaning(self) -> str:
        """When a message is of this category, as the prompts say it."""
        return _CATEGORIES[self]


_CATEGORIES = {
    Category.BILLING: "an invoice, a payment, a refund or a price",
    Category.DEFECT: "something that used to work, or should, and does not",
    Category.ACCESS: "a login, a password, a locked account or a missing permission",
    Category.HOW_TO: "how something is done that the product can do",
    Category.CANCELLATION: "the end of a contract or of an account",
    Category.FEEDBACK: "praise, a complaint or a wish, without a problem to solve",
    Category.SPAM: "advertising, fraud, or a message that was not meant for the support",
}


class Urgency(StrEnum):
    """How long the sender can wait."""

    URGENT = "urgent"
    NORMAL = "normal"
    LOW = "low"

    @property
    def meaning(self) -> str:
        """When a message has this urgency, as the prompts say it."""
        return _URGENCIES[self]


_URGENCIES = {
    Urgency.URGENT: "work stands still, data is lost or in the wrong hands, or a deadline is "
    "within a day",
    Urgency.NORMAL: "somebody is held up and has a way around it, or waits for money",
    Urgency.LOW: "nobody is held up",
}


class Product(StrEnum):
    """The products that messages are about."""

    NOTES = "Fjord Notes"
    SYNC = "Fjord Sync"
    INVOICE = "Fjord Invoice"

    @property
    def meaning(self) -> str:
        """What the product does, as the prompts say it."""
        return _PRODUCTS[self]


_PRODUCTS = {
    Product.NOTES: "notes and documents, shared in a team",
    Product.SYNC: "files kept alike on several devices",
    Product.INVOICE: "writing and sending invoices",
}

Summary = Annotated[str, StringConstraints(min_length=1, max_length=400)]


class SupportAnswer(BaseModel):
    """What the support has to know about one message before anybody has read it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: Summary = Field(
        title="Summary",
        description="What the sender wants or reports, in one or two sentences about "
        '"the sender"; nothing that the message does not say.',
    )
    category: Category = Field(title="Category", description="What the message is about.")
    product: Product | None = Field(
        title="Product", description="The product that the message names; null if it names none."
    )
    urgency: Urgency | None = Field(
        title="Urgency", description="How long the sender can wait; null for spam only."
    )
    reply_needed: bool = Field(
        title="Reply needed", description="Whether the sender waits for an answer."
    )

    @model_validator(mode="after")
    def _blank_summary(self) -> Self:
        """Refuse a summary that is blank."""
        if not self.summary.strip():
            raise ValueError("the summary is blank")
        return self

    @model_validator(mode="after")
    def _fits_spam(self) -> Self:
        """Refuse spam with a product, an urgency or a reply, and any other message without an
        urgency."""
        if self.category is not Category.SPAM:
            if self.urgency is None:
                raise ValueError(f"{self.category.value} without urgency")
            return self
        filled = [name for name in ("product", "urgency") if getattr(self, name) is not None]
        filled += ["reply_needed"] if self.reply_needed else []
        if filled:
            raise ValueError(f"spam with {' and '.join(filled)}")
        return self

    @model_validator(mode="after")
    def _urgent_is_answered(self) -> Self:
        """Refuse an urgent message that needs no reply."""
        if self.urgency is Urgency.URGENT and not self.reply_needed:
            raise ValueError("urgent without reply_needed")
        return self
