"""The input: one article, post or alert, as a file of ours or as the backend's API gives it."""

from typing import Any, Self

from pydantic import field_validator, model_validator

from tasks.item import GivenText, Item, comparable

CONTENT_LIMIT = 6000
"""Characters of the content that the backend sends; the rest is never seen by the model."""

UNKNOWN = "Unbekannt"


class Article(Item):
    """An article with a title or a content, or both."""

    title: GivenText = ""
    content: GivenText = ""
    source: str = ""
    published_at: GivenText = ""
    url: GivenText = ""

    @model_validator(mode="before")
    @classmethod
    def _find_source(cls, row: Any) -> Any:
        """Take the source from wherever the backend names it, which may be nowhere."""
        if not isinstance(row, dict) or _name(row.get("source")):
            return row
        metadata = row.get("metadata")
        channel = row.get("channel")
        for place in (row, metadata, channel):
            if isinstance(place, dict):
                for key in ("source_name", "source"):
                    if name := _name(place.get(key)):
                        return {**row, "source": name}
        return {**row, "source": ""}

    @field_validator("source", mode="before")
    @classmethod
    def _source_as_text(cls, value: Any) -> Any:
        return _name(value)

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if not self.title.strip() and not self.content.strip():
            raise ValueError("neither title nor content")
        return self


def user_message(article: Article) -> str:
    """Return the message exactly as the backend sends it at inference."""
    return (
        f"Titel: {article.title}\n"
        f"Inhalt: {article.content[:CONTENT_LIMIT]}\n"
        f"Quelle: {article.source or UNKNOWN}\n"
        f"Datum: {article.published_at or UNKNOWN}"
    )


def text_of(article: Article) -> str:
    """Return the text in which duplicates are looked for."""
    return comparable(article.title, article.content)


def _name(source: Any) -> str:
    """Return the name of a source that is a text or an object; empty if it has none."""
    if isinstance(source, dict):
        source = source.get("name") or source.get("title")
    return source.strip() if isinstance(source, str) else ""
